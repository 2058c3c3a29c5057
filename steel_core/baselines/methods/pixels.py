"""Logistic regression on principal components of the pixels: what brightness and coarse layout alone tell."""

from typing import ClassVar

import cv2
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from steel_core.baselines.base import BASELINES, BaselineInfo, FeatureBaseline
from steel_core.types import Float32Array, FloatArray

_LONGEST = 64  # pixels; finer detail is beyond what a few components hold
_COMPONENTS = 50


@BASELINES.register("pixels")
class Pixels(FeatureBaseline):
    """PCA to at most 50 components, then multinomial logistic regression."""

    info: ClassVar[BaselineInfo] = BaselineInfo(
        title="Logistic regression on pixels",
        plain="Weighs coarse patterns of brightness, without looking for shapes.",
        source="Turk and Pentland, Journal of Cognitive Neuroscience 3, 1991 (PCA of pixels)",
    )

    def features(self, grids: Float32Array) -> Float32Array:
        zoom = min(1.0, _LONGEST / max(grids.shape[1:]))
        height, width = (max(1, round(side * zoom)) for side in grids.shape[1:])
        small = [cv2.resize(grid, (width, height), interpolation=cv2.INTER_AREA) for grid in grids]
        return np.stack(small).reshape(len(grids), -1)

    def make_model(self, features: FloatArray) -> Pipeline:
        components = PCA(min(_COMPONENTS, *features.shape), random_state=self.seed)
        return make_pipeline(components, StandardScaler(), LogisticRegression(max_iter=2000))
