"""The two simplest: how often each class occurred, and what brightness and coarse layout alone tell."""

import cv2
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from steel_core.baselines.base import BASELINES, Baseline, BaselineInfo, FeatureBaseline
from steel_core.types import Float32Array, Float64Array, FloatArray, Int64Array

_LONGEST = 64  # pixels; finer detail is beyond what a few components hold
_COMPONENTS = 50


@BASELINES.register("majority")
class Majority(Baseline):
    """Says of every image how often each class occurred."""

    info = BaselineInfo(title="Majority class", source="Holte, Machine Learning 11, 1993 (0-R)")

    def fit(self, grids: Float32Array, labels: Int64Array, classes: int) -> None:
        self.shares = np.bincount(labels, minlength=classes) / len(labels)

    def predict(self, grids: Float32Array) -> Float64Array:
        return np.tile(self.shares, (len(grids), 1))


@BASELINES.register("pixels")
class Pixels(FeatureBaseline):
    """PCA to at most 50 components, then multinomial logistic regression."""

    info = BaselineInfo(
        title="Logistic regression on pixels",
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
