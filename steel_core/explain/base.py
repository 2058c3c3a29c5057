"""The interface of an explainer and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steel_core.models.base import Classifier
from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class ExplainerInfo:
    """What a method is, needs and costs.

    Attributes:
        title: name for people.
        plain: one sentence that tells an inspector what the map shows.
        source: paper and year.
        needs: any of "gradients", "cam layer", "background".
        forward: forward passes for one image.
        backward: backward passes for one image.
        class_dependent: whether the map depends on the class that is explained.
    """

    title: str
    plain: str
    source: str
    needs: frozenset[str]
    forward: int
    backward: int
    class_dependent: bool


@dataclass(frozen=True)
class Explainer(ABC):
    """One method. Its fields are its parameters, all with defaults; it keeps no state between calls."""

    info: ClassVar[ExplainerInfo]

    @abstractmethod
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """Raw signed attribution of the targets' logits, on the grid of the input.

        The model is left exactly as it came: no hook, no gradient, the same mode.

        Args:
            model: classifier in evaluation mode, on the device of `inputs`. It may be in use by other threads.
            inputs: normalised images (N, C, H, W).
            targets: index of the class to explain for each image (N,), int64.
            background: reference images (B, C, H, W), normalised alike; only for methods that need it.
            seed: seed of the method's random numbers.

        Returns:
            (N, 1, H, W) float32. N images, C channels, H rows, W columns, B reference images.
        """

    def parameters(self) -> dict[str, Any]:
        """The settings that, with seed and background, make the result repeatable."""
        return dict(vars(self))


EXPLAINERS: Registry[type[Explainer]] = Registry("explainer", "steel_core.explain.methods")
