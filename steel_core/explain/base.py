"""The interface of an explainer and the registry of all of them."""

from __future__ import annotations

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
    """What a method is, needs and costs.

    Attributes:
        title: name for people.
        plain: one sentence that tells an inspector what the map shows.
        source: paper and year.
        needs: any of "gradients", "cam layer", "background" (reference images), "baseline" (one reference image, which
            the method makes itself), "seed".
        forward: forward passes for one image, with default parameters.
        backward: backward passes for one image, with default parameters.
        class_dependent: whether the map depends on the class that is explained.
        signed: whether negative values argue against the target. Where not, every value argues for it by its size, and
            the sign says whether a brighter (+) or a darker (-) pixel would raise the logit.
        additive: whether the values of an image sum to the target's logit minus that of the reference.
        control: whether it is a yardstick that knows nothing of the model.
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
    additive: bool = False
    control: bool = False
    blur: float = 0.0


class Refined(NamedTuple):
    """A map while it is being refined.

    Attributes:
        values: (N, 1, H, W), as `Explainer.attribute` gives them.
        noise: (N,) the map's own standard error, as a share of its norm (both L2); None for a method without sampling.
        share: of the work that is done, 0 to 1.
    """

    values: Tensor
    noise: Tensor | None
    share: float


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
            targets: what to explain of each image: the index of a class (N,), int64; or the weight of each logit
                (N, K), floating point: +1 and -1 for the contrast of two classes.
            background: reference images (B, C, H, W), normalised alike; only for methods that need it.
            seed: seed of the method's random numbers.

        Returns:
            (N, 1, H, W) in the type of `inputs`. N images, C channels, H rows, W columns, B reference images.

        Raises:
            UsageError: a shape is wrong, a target does not exist, or the background is missing where it is needed.
        """

    def refine(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Iterator[Refined]:
        """The map in steps, a first one at once; the last is what `attribute` returns for the same arguments."""
        yield Refined(self.attribute(model, inputs, targets, background=background, seed=seed), None, 1.0)

    def parameters(self) -> dict[str, Any]:
        """The settings that, with seed and background, make the result repeatable."""
        return dict(vars(self))


class TargetLogit(nn.Module):
    """The one number of each image that a method explains: the logit of the target, or a weighted sum of logits.

    Args:
        model: classifier.
        targets: as `Explainer.attribute` takes them, for each image, or one row for all images.
    """

    def __init__(self, model: Classifier, targets: Tensor) -> None:
        super().__init__()
        self.model = model
        self.targets = targets

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 1) of normalised images (N, C, H, W).

        Raises:
            UsageError: a target is not the index of a class, or not a weight for each of them.
        """
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


def check_batch(inputs: Tensor, targets: Tensor) -> None:
    """Refuses a batch that `Explainer.attribute` cannot take.

    Raises:
        UsageError: `inputs` is not (N, C, H, W), or `targets` neither (N,) of integers nor (N, K) of weights.
    """
    if inputs.ndim != 4 or len(inputs) == 0:
        raise UsageError(f"expected images of shape (N, C, H, W), got {tuple(inputs.shape)}")
    if len(targets) != len(inputs) or targets.ndim != (2 if targets.is_floating_point() else 1):
        raise UsageError(
            f"expected one class index, or one row of weights, for each of {len(inputs)} images, "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )


EXPLAINERS: Registry[type[Explainer]] = Registry("explainer", "steel_core.explain.methods")
