"""The interface of an explainer and the registry of all of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.errors import UsageError
from steel_core.models.base import Classifier
from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class ExplainerInfo:
    """What a method is, needs and costs."""

    title: str
    plain: str  # one sentence that tells an inspector what the map shows
    source: str  # paper and year
    forward: int  # forward passes for one image, with default parameters
    backward: int  # backward passes for one image, with default parameters
    # any of "gradients", "cam layer", "background" (reference images), "baseline" (one reference image, which the
    # method makes itself), "seed"
    needs: frozenset[str] = frozenset()
    class_dependent: bool = True
    # whether negative values argue against the target. Where not, every value argues for it by its size, and the sign
    # says whether a brighter (+) or a darker (-) pixel would raise the logit.
    signed: bool = True
    additive: bool = False  # whether the values of an image sum to the target's logit minus that of the reference
    control: bool = False  # whether it is a yardstick that knows nothing of the model
    # standard deviation, in pixels of the model's input, by which `render.evidence` smooths the map for people: more
    # than 0 where single pixels are noise and only their neighbourhood tells something
    blur: float = 0.0


class Query(NamedTuple):
    """The arguments of `Explainer.attribute`, checked and off the caller's graph; the background can be empty."""

    model: Classifier
    inputs: Tensor
    targets: Tensor
    background: Tensor
    seed: int

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image (1, C, H, W) with its target (1,) or (1, K)."""
        return zip(self.inputs.split(1), self.targets.split(1), strict=True)


class Refined(NamedTuple):
    """A map while it is being refined."""

    values: Tensor  # (N, 1, H, W), as `Explainer.attribute` gives them
    # (N,) the map's own standard error, as a share of its norm (both L2); None for a method without sampling
    noise: Tensor | None
    share: float  # of the work that is done, 0 to 1


@dataclass(frozen=True)
class Explainer(ABC):
    """One method: `_attribute`, and `_refine` if it can show a map before it is done.

    Its fields are its parameters, all with defaults; it keeps no state between calls.
    """

    info: ClassVar[ExplainerInfo]

    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """Raw signed attribution of the targets' logits (N, 1, H, W), on the grid and in the type of the input.

        An image's map does not depend on the other images of its batch. The model is left exactly as it came: no hook,
        no gradient, the same mode.

        Args:
            model: on the device of `inputs`; explained as it acts in evaluation mode. Other threads may use it.
            inputs: normalised images (N, C, H, W).
            targets: index of a class (N,), int64; or float weights of logits (N, K): +1 and -1 contrast two.
            background: reference images (B, C, H, W), normalised alike; only for methods that need it.
            seed: of the method's random numbers.

        Raises:
            UsageError: a shape is wrong, a target does not exist, or the background is missing where it is needed.
        """
        return self._whole(self._query(model, inputs, targets, background, seed))

    def refine(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Iterator[Refined]:
        """The map in steps, a first one at once; the last is what `attribute` returns for the same arguments."""
        yield from self._refine(self._query(model, inputs, targets, background, seed))

    def parameters(self) -> dict[str, Any]:
        """The settings that, with seed and background, make the result repeatable."""
        return dict(vars(self))

    @abstractmethod
    def _attribute(self, query: Query) -> Tensor:
        """(N, C, H, W), which are summed over the channels, or (N, 1, H, W), in any floating type."""

    def _refine(self, query: Query) -> Iterator[Refined]:
        yield Refined(self._whole(query), None, 1.0)

    def _whole(self, query: Query) -> Tensor:
        values = self._attribute(query).detach().to(query.inputs)
        return values if values.shape[1] == 1 else values.sum(dim=1, keepdim=True)

    def _query(self, model: Classifier, inputs: Tensor, targets: Tensor, background: Tensor | None, seed: int) -> Query:
        if inputs.ndim != 4 or len(inputs) == 0:
            raise UsageError(f"expected images of shape (N, C, H, W), got {tuple(inputs.shape)}")
        if len(targets) != len(inputs) or targets.ndim != (2 if targets.is_floating_point() else 1):
            raise UsageError(
                f"expected one class index, or one row of weights, for each of {len(inputs)} images, "
                f"got {targets.dtype} {tuple(targets.shape)}"
            )
        background = inputs[:0] if background is None else background
        if "background" in self.info.needs and (len(background) == 0 or background.shape[1:] != inputs.shape[1:]):
            raise UsageError(
                f"{self.info.title} compares with reference images: expected a background of images like the inputs, "
                f"{tuple(inputs.shape[1:])} each, got {tuple(background.shape) if len(background) else 'none'}"
            )
        return Query(model, inputs.detach(), targets.detach(), background.detach(), seed)


class TargetLogit(nn.Module):
    """The one number of each image that a method explains: the logit of the target, or a weighted sum of logits.

    The targets are as `Explainer.attribute` takes them, for each image, or one row for all images.
    """

    def __init__(self, model: Classifier, targets: Tensor) -> None:
        super().__init__()
        self.model = model
        self.targets = targets

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 1) of normalised images (N, C, H, W); a target that does not exist is refused with a UsageError."""
        logits = self.model(inputs)
        return (logits * target_weights(self.targets, logits.shape[1]).to(logits)).sum(dim=1, keepdim=True)


def target_weights(targets: Tensor, classes: int) -> Tensor:
    """The weight of each logit (N, K) in what is explained, of targets as `Explainer.attribute` takes them.

    Raises:
        UsageError: a target is not the index of a class, or not a weight for each of them.
    """
    if targets.is_floating_point():
        if targets.ndim != 2 or targets.shape[1] != classes:
            raise UsageError(f"targets {tuple(targets.shape)}: expected a weight for each of {classes} classes")
        return targets
    if ((targets < 0) | (targets >= classes)).any():
        raise UsageError(f"targets {targets.tolist()}: expected indices of classes, 0 to {classes - 1}")
    return F.one_hot(targets, classes).float()


EXPLAINERS: Registry[type[Explainer]] = Registry("explainer", "steel_core.explain.methods", "steel_lens.explainers")
