"""The majority class: what knowing nothing of the image reaches."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from steel_core.baselines.base import BASELINES, Baseline, BaselineInfo, Grids, Probabilities


@BASELINES.register("majority")
class Majority(Baseline):
    """Says of every image how often each class occurred."""

    info: ClassVar[BaselineInfo] = BaselineInfo(
        title="Majority class",
        plain="Names the most frequent class, whatever the image shows.",
        source="Holte, Machine Learning 11, 1993 (0-R)",
    )

    @override
    def fit(self, grids: Grids, labels: npt.NDArray[np.int64], classes: int) -> None:
        self.shares = np.bincount(labels, minlength=classes) / len(labels)

    @override
    def predict(self, grids: Grids) -> Probabilities:
        return np.tile(self.shares, (len(grids), 1))
