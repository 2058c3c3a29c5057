"""The majority class: what knowing nothing of the image reaches."""

from typing import ClassVar

import numpy as np

from steel_core.baselines.base import BASELINES, Baseline, BaselineInfo
from steel_core.types import Float32Array, Float64Array, Int64Array


@BASELINES.register("majority")
class Majority(Baseline):
    """Says of every image how often each class occurred."""

    info: ClassVar[BaselineInfo] = BaselineInfo(
        title="Majority class",
        plain="Names the most frequent class, whatever the image shows.",
        source="Holte, Machine Learning 11, 1993 (0-R)",
    )

    def fit(self, grids: Float32Array, labels: Int64Array, classes: int) -> None:
        self.shares = np.bincount(labels, minlength=classes) / len(labels)

    def predict(self, grids: Float32Array) -> Float64Array:
        return np.tile(self.shares, (len(grids), 1))
