"""What a network must beat: classifiers that need no network, fitted anew wherever they are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from steel_core.registry import Registry

Grids = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BaselineInfo:
    """What a baseline is.

    Attributes:
        title: name for people.
        plain: one sentence that says what it does.
        source: paper or book.
    """

    title: str
    plain: str
    source: str


class Baseline(ABC):
    """A classifier of grey images (N, H, W) in 0 to 1, all of one size.

    Args:
        seed: of its random numbers.
    """

    info: ClassVar[BaselineInfo]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, grids: Grids, labels: npt.NDArray[np.int64], classes: int) -> None:
        """Learn from images (N, H, W) and labels (N,) from 0 to `classes` - 1."""

    @abstractmethod
    def predict(self, grids: Grids) -> Probabilities:
        """Probabilities (N, K) of images (N, H, W)."""


BASELINES: Registry[type[Baseline]] = Registry("baseline", "steel_core.baselines.methods")


def spread(probs: npt.NDArray[np.floating], known: npt.NDArray[np.int64], classes: int) -> Probabilities:
    """Probabilities (N, K) over all classes, of those (N, len(known)) that occurred while fitting."""
    full = np.zeros((len(probs), classes))
    full[:, known] = probs
    return full
