"""SmoothGrad: the gradient, averaged over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Refined, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("smooth-grad")
@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """Mean gradient of the logit over copies with Gaussian noise, summed over channels.

    The noise is grey, the same in all channels, as the pictures are.

    Attributes:
        samples: noisy copies, at least 2.
        noise: standard deviation of the noise as a share of the image's range of values, at least 0.
    """

    samples: int = 50
    noise: float = 0.15

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="SmoothGrad",
        plain="Shows where a change of brightness would change the score for this class most, averaged over noise.",
        source="Smilkov et al., SmoothGrad, arXiv:1706.03825, 2017",
        needs=frozenset({"gradients", "seed"}),
        forward=50,
        backward=50,
        class_dependent=True,
        signed=False,
        blur=1.0,
    )

    def __post_init__(self) -> None:
        if self.samples < 2 or not self.noise >= 0:
            raise UsageError(
                f"SmoothGrad: expected at least 2 samples and noise of 0 or more, got {self.samples} and {self.noise}"
            )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        *_, last = self.refine(model, inputs, targets, background=background, seed=seed)
        return last.values

    @override
    def refine(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Iterator[Refined]:
        check_batch(inputs, targets)
        generator = torch.Generator().manual_seed(seed)
        spread = self.noise * (inputs.amax(dim=(1, 2, 3), keepdim=True) - inputs.amin(dim=(1, 2, 3), keepdim=True))
        total = torch.zeros_like(inputs[:, :1])
        squares = torch.zeros_like(total)
        size = batch_size(inputs.device)
        for start in range(0, self.samples, size):
            done = min(start + size, self.samples)
            # One at a time, so that the noise does not depend on the size of the batch.
            draws = torch.stack([torch.randn(1, *inputs.shape[2:], generator=generator) for _ in range(start, done)])
            draws = draws.to(inputs)
            for row, (image, target) in enumerate(zip(inputs.split(1), targets.split(1), strict=True)):
                repeated = target.expand(len(draws), *target.shape[1:])
                slopes = engine.gradients(model, image + spread[row] * draws, repeated)[1].sum(dim=1, keepdim=True)
                total[row] += slopes.sum(dim=0)
                squares[row] += slopes.square().sum(dim=0)
            mean = total / done
            variance = (squares / done - mean.square()).clamp(min=0) / (done - 1)
            error = variance.sum(dim=(1, 2, 3)).sqrt() / mean.flatten(1).norm(dim=1).clamp(
                min=torch.finfo(mean.dtype).tiny
            )
            yield Refined(mean, error, done / self.samples)
