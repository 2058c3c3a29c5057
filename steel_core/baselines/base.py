"""What a network must beat: classifiers that need no network, fitted anew wherever they are compared."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from steel_core.registry import Registry
from steel_core.types import Float32Array, Float64Array, FloatArray, Int64Array


@dataclass(frozen=True, slots=True)
class BaselineInfo:
    """What a baseline is: name for people, and its paper or book."""

    title: str
    source: str


class Baseline(ABC):
    """A classifier of grey images (N, H, W) in 0 to 1, all of one size."""

    info: ClassVar[BaselineInfo]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, grids: Float32Array, labels: Int64Array, classes: int) -> None:
        """Learn from images (N, H, W) and labels (N,) from 0 to `classes` - 1."""

    @abstractmethod
    def predict(self, grids: Float32Array) -> Float64Array:
        """Probabilities (N, K) of images (N, H, W)."""


class FeatureBaseline(Baseline):
    """A classifier of scikit-learn on features of the images."""

    @abstractmethod
    def features(self, grids: Float32Array) -> FloatArray:
        """Features (N, F) of images (N, H, W)."""

    @abstractmethod
    def make_model(self, features: FloatArray) -> Any:
        """The classifier, not fitted yet, for features (N, F)."""

    def fit(self, grids: Float32Array, labels: Int64Array, classes: int) -> None:
        features = self.features(grids)
        self.classes = classes
        self.model = self.make_model(features).fit(features, labels)

    def predict(self, grids: Float32Array) -> Float64Array:
        return self.over_all_classes(self.model.predict_proba(self.features(grids)))

    def over_all_classes(self, values: FloatArray) -> Float64Array:
        """Values (N, K) of all classes, of those that occurred while fitting; 0 for the others."""
        full = np.zeros((len(values), self.classes))
        full[:, self.model.classes_] = values
        return full


BASELINES: Registry[type[Baseline]] = Registry("baseline", "steel_core.baselines.methods", "steel_lens.baselines")
