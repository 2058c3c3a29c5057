"""Logistic regression on principal components of the pixels: what brightness and coarse layout alone tell."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from typing_extensions import override

from steel_core.baselines.base import BASELINES, Baseline, BaselineInfo, Grids, Probabilities, spread

_LONGEST = 64  # pixels; finer detail is beyond what a few components hold
_COMPONENTS = 50


@BASELINES.register("pixels")
class Pixels(Baseline):
    """PCA to at most 50 components, then multinomial logistic regression."""

    info: ClassVar[BaselineInfo] = BaselineInfo(
        title="Logistic regression on pixels",
        plain="Weighs coarse patterns of brightness, without looking for shapes.",
        source="Turk and Pentland, Journal of Cognitive Neuroscience 3, 1991 (PCA of pixels)",
    )

    @override
    def fit(self, grids: Grids, labels: npt.NDArray[np.int64], classes: int) -> None:
        pixels = _flat(grids)
        components = min(_COMPONENTS, *pixels.shape)
        self.classes = classes
        self.model: Pipeline = make_pipeline(
            PCA(components, random_state=self.seed), StandardScaler(), LogisticRegression(max_iter=2000)
        ).fit(pixels, labels)

    @override
    def predict(self, grids: Grids) -> Probabilities:
        return spread(self.model.predict_proba(_flat(grids)), self.model.classes_, self.classes)


def _flat(grids: Grids) -> npt.NDArray[np.float32]:
    zoom = min(1.0, _LONGEST / max(grids.shape[1:]))
    height, width = (max(1, round(side * zoom)) for side in grids.shape[1:])
    small = [cv2.resize(grid, (width, height), interpolation=cv2.INTER_AREA) for grid in grids]
    return np.stack(small).reshape(len(grids), -1)
