"""SmoothGrad: the gradient, averaged over noisy copies of the image."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query, Refined


@EXPLAINERS.register("smooth-grad")
@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """Mean gradient of the logit over copies with Gaussian noise, summed over channels.

    The noise is grey, the same in all channels, as the pictures are.
    """

    samples: int = 50  # noisy copies, at least 2
    noise: float = 0.15  # standard deviation of the noise as a share of the image's range of values, at least 0

    info = ExplainerInfo(
        title="SmoothGrad",
        plain="Shows where a change of brightness would change the score for this class most, averaged over noise.",
        source="Smilkov et al., SmoothGrad, arXiv:1706.03825, 2017",
        needs=frozenset({"gradients", "seed"}),
        forward=50,
        backward=50,
        signed=False,
        blur=1.0,
    )

    def __post_init__(self) -> None:
        if self.samples < 2 or not self.noise >= 0:
            raise UsageError(
                f"SmoothGrad: expected at least 2 samples and noise of 0 or more, got {self.samples} and {self.noise}"
            )

    def _attribute(self, query: Query) -> Tensor:
        *_, last = self._refine(query)
        return last.values

    def _refine(self, query: Query) -> Iterator[Refined]:
        inputs, generator = query.inputs, torch.Generator().manual_seed(query.seed)
        spread = self.noise * (inputs.amax(dim=(1, 2, 3), keepdim=True) - inputs.amin(dim=(1, 2, 3), keepdim=True))
        total, squares = (torch.zeros_like(inputs[:, :1]) for _ in range(2))
        size = batch_size(inputs.device)
        for start in range(0, self.samples, size):
            done = min(start + size, self.samples)
            # One at a time, so that the noise does not depend on the size of the batch.
            draws = torch.stack([torch.randn(1, *inputs.shape[2:], generator=generator) for _ in range(start, done)])
            draws = draws.to(inputs)
            for row, (image, target) in enumerate(query.images()):
                copies = image + spread[row] * draws
                slopes = engine.gradients(query.model, copies, target)[1].sum(dim=1, keepdim=True)
                total[row] += slopes.sum(dim=0)
                squares[row] += slopes.square().sum(dim=0)
            mean = total / done
            variance = (squares / done - mean.square()).clamp(min=0) / (done - 1)
            norm = mean.flatten(1).norm(dim=1).clamp(min=torch.finfo(mean.dtype).tiny)
            yield Refined(mean, variance.sum(dim=(1, 2, 3)).sqrt() / norm, done / self.samples)
