"""The interface of an explainer and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from steel_core.errors import UsageError
from steel_core.models.base import Classifier
from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class ExplainerInfo:
    """What a method is, needs and costs.

    Attributes:
        title: name for people.
        plain: one sentence that tells an inspector what the map shows.
        source: paper and year.
        needs: any of "gradients", "cam layer", "background", "seed".
        forward: forward passes for one image, with default parameters.
        backward: backward passes for one image, with default parameters.
        class_dependent: whether the map depends on the class that is explained.
        signed: whether negative values argue against the target. Where not, every value argues for it by its size, and
            the sign says whether a brighter (+) or a darker (-) pixel would raise the logit.
        blur: standard deviation, in pixels of the model's input, by which `render.evidence` smooths the map for people:
            more than 0 where single pixels are noise and only their neighbourhood tells something.
    """

    title: str
    plain: str
    source: str
    needs: frozenset[str]
    forward: int
    backward: int
    class_dependent: bool
    signed: bool = True
    blur: float = 0.0


@dataclass(frozen=True)
class Explainer(ABC):
    """One method. Its fields are its parameters, all with defaults; it keeps no state between calls."""

    info: ClassVar[ExplainerInfo]

    @abstractmethod
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """Raw signed attribution of the targets' logits, on the grid of the input.

        An image's map does not depend on the other images of its batch. The model is left exactly as it came: no hook,
        no gradient, the same mode.

        Args:
            model: classifier, on the device of `inputs`; explained as it acts in evaluation mode. It may be in use by
                other threads.
            inputs: normalised images (N, C, H, W).
            targets: index of the class to explain for each image (N,), int64.
            background: reference images (B, C, H, W), normalised alike; only for methods that need it.
            seed: seed of the method's random numbers.

        Returns:
            (N, 1, H, W) in the type of `inputs`. N images, C channels, H rows, W columns, B reference images.

        Raises:
            UsageError: a shape is wrong, a target does not exist, or the background is missing where it is needed.
        """

    def parameters(self) -> dict[str, Any]:
        """The settings that, with seed and background, make the result repeatable."""
        return dict(vars(self))


class TargetLogit(nn.Module):
    """The one number that a method explains: the logit of the target.

    Args:
        model: classifier.
        targets: index of each image's class (N,), or of the one class of all images (1,).
    """

    def __init__(self, model: Classifier, targets: Tensor) -> None:
        super().__init__()
        self.model = model
        self.targets = targets

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, 1) of normalised images (N, C, H, W).

        Raises:
            UsageError: a target is not the index of a class.
        """
        logits = self.model(inputs)
        classes = logits.shape[1]
        if ((self.targets < 0) | (self.targets >= classes)).any():
            raise UsageError(f"targets {self.targets.tolist()}: expected indices of classes, 0 to {classes - 1}")
        return logits.gather(1, self.targets.expand(len(logits)).unsqueeze(1))


def check_batch(inputs: Tensor, targets: Tensor) -> None:
    """Refuses a batch that `Explainer.attribute` cannot take.

    Raises:
        UsageError: `inputs` is not (N, C, H, W), or `targets` not (N,) of integers.
    """
    if inputs.ndim != 4 or len(inputs) == 0:
        raise UsageError(f"expected images of shape (N, C, H, W), got {tuple(inputs.shape)}")
    if targets.shape != inputs.shape[:1] or targets.is_floating_point():
        raise UsageError(
            f"expected one class index for each of {len(inputs)} images, got {targets.dtype} {tuple(targets.shape)}"
        )


EXPLAINERS: Registry[type[Explainer]] = Registry("explainer", "steel_core.explain.methods")
