"""Gradients of the logit by the pixels: plain, guided, guided times deviation, and averaged over noise."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query, Refined


@EXPLAINERS.register("gradient")
class Gradient(Explainer):
    """The gradient of the logit with respect to the pixels, summed over channels. Its size is called saliency."""

    info = ExplainerInfo(
        title="Gradient (saliency)",
        plain="Shows which pixels would change the score for this class most if they were a little brighter or darker.",
        source="Simonyan et al., Deep Inside Convolutional Networks, ICLR Workshop 2014, arXiv:1312.6034",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        signed=False,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return engine.gradients(query.model, query.inputs, query.targets)[1]


@EXPLAINERS.register("guided-backprop")
class GuidedBackprop(Explainer):
    """The gradient of the logit, cut at every ReLU to what raises it, summed over channels.

    It draws edges much alike for every class, and hardly changes when the network's weights are randomised (Adebayo et
    al., NeurIPS 2018, arXiv:1810.03292): a picture of what the network can see rather than of what decided.
    """

    info = ExplainerInfo(
        title="Guided backprop",
        plain="Draws the fine lines and edges that the network reacts to; they look much alike whatever the class.",
        source="Springenberg et al., Striving for Simplicity, ICLR Workshop 2015, arXiv:1412.6806",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        signed=False,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return engine.gradients(query.model, query.inputs, query.targets, guided=True)[1]


@EXPLAINERS.register("guided-input")
class GuidedInput(Explainer):
    """Guided backpropagation times the difference of each pixel to the median of its image, summed over channels.

    The product says what the guided gradient alone leaves open: whether the pixel deviates in the direction that raises
    the logit. The sheet's own median takes the place of black as what a pixel is compared with. Of the maps that were
    tried it finds defects best, when chosen on one half of NEU-Seg and judged on the other (docs/quality.md).
    """

    info = ExplainerInfo(
        title="Guided gradient x deviation",
        plain="Shows what stands out from the sheet's own grey and raises the score for this class: good for outlines.",
        source="Gradient times input: Shrikumar et al., arXiv:1605.01713, 2016; guided backpropagation: Springenberg "
        "et al., arXiv:1412.6806; with the image's median as reference",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        blur=2.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        slopes = engine.gradients(query.model, query.inputs, query.targets, guided=True)[1]
        median = query.inputs.flatten(2).median(dim=2).values[..., None, None]
        return slopes * (query.inputs - median)


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
