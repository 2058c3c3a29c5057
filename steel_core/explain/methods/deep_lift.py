"""DeepLIFT's rescale rule, and DeepLIFT and DeepSHAP: what each pixel adds to a logit, compared with reference images.

The rules are written here because those of captum 0.9 and shap 0.51 do not sum to the difference of the logits where
the windows of a max-pooling overlap: on the reduced SqueezeNet captum's map is off by three quarters of its norm.

Source: Shrikumar et al., Learning Important Features Through Propagating Activation Differences, ICML 2017,
arXiv:1704.02685, section 3.5.1.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query, TargetLogit
from steel_core.explain.cpu_kernels import lay_out
from steel_core.explain.hooks import isolated
from steel_core.explain.methods.expected_gradients import evenly
from steel_core.models.base import Classifier

_ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_COMPLETE = 1e-3  # of the sum of magnitudes; rounding stays below 1e-4


@EXPLAINERS.register("deep-lift")
class DeepLift(Explainer):
    """DeepLIFT with the rescale rule, against mean grey, which is zero after normalisation.

    The values of an image sum to its logit minus that of mean grey.
    """

    info = ExplainerInfo(
        title="DeepLIFT",
        plain="Shows how much each spot moves the score for this class up or down, compared with a plain grey sheet.",
        source="Shrikumar et al., ICML 2017, arXiv:1704.02685; rescale rule",
        needs=frozenset({"gradients", "baseline"}),
        forward=2,
        backward=1,
        additive=True,
        blur=2.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return contributions(query.model, query.inputs, torch.zeros_like(query.inputs[:1]), query.targets)


@EXPLAINERS.register("deep-shap")
@dataclass(frozen=True)
class DeepShap(Explainer):
    """Mean, over reference images, of DeepLIFT with the rescale rule.

    The values of an image sum to its logit minus the mean logit of the reference images that were used. Each of them
    costs a forward and a backward pass of image and reference together, so their number is limited.
    """

    references: int = 20  # most reference images to use, evenly spread over the background; at least 1

    info = ExplainerInfo(
        title="DeepSHAP",
        plain="Shows how much each spot moves the score up or down compared with ordinary sheets, by a quick rule.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874, section 4.2; DeepLIFT: Shrikumar et al., ICML 2017, "
        "arXiv:1704.02685",
        needs=frozenset({"gradients", "background"}),
        forward=40,
        backward=40,
        additive=True,
        blur=2.0,
    )

    def __post_init__(self) -> None:
        if self.references < 1:
            raise UsageError(f"DeepSHAP references: expected at least 1, got {self.references}")

    def _attribute(self, query: Query) -> Tensor:
        used = evenly(query.background, self.references)
        each = (contributions(query.model, image, used, target) for image, target in query.images())
        return torch.stack([values.mean(dim=0) for values in each])


def contributions(model: Classifier, inputs: Tensor, references: Tensor, targets: Tensor) -> Tensor:
    """What each value of the inputs adds to the targets' logits, compared with the references: (N, C, H, W).

    The reference goes through the network first. Then each non-linear part, an activation module or `MaxPool2d`, none
    in place, passes back the slope between reference and image instead of the one at the image, so an image's values
    sum to its logit minus that of its reference. Inputs and references are (N, C, H, W), or one for all (1, C, H, W);
    targets as `Explainer.attribute` takes them, or one row for all.

    Raises:
        UsageError: the model has other non-linear parts, so the values do not add up; or a target does not exist.
    """
    size = batch_size(inputs.device)
    with isolated(model) as private:
        for module in private.modules():
            if isinstance(module, (*_ELEMENTWISE, nn.MaxPool2d)):
                module.forward = _Rescaled(module)  # type: ignore[assignment, method-assign]
        inputs, references, targets = (tensor.detach().clone() for tensor in (inputs, references, targets))
        n = max(len(inputs), len(references))
        chunks = zip(
            *(part.expand(n, *part.shape[1:]).split(size) for part in (inputs, references, targets)), strict=True
        )
        return torch.cat([_contributions(private, x, r[: len(references)], rows) for x, r, rows in chunks])


def _contributions(net: Classifier, images: Tensor, references: Tensor, targets: Tensor) -> Tensor:
    logit = TargetLogit(net, targets)
    with torch.no_grad():
        there = logit(lay_out(references))
    leaf = lay_out(images.detach()).requires_grad_()
    here = logit(leaf)
    values = torch.autograd.grad(here.sum(), leaf)[0] * (images - references)
    gap = values.sum(dim=(1, 2, 3)) - (here.detach() - there)[:, 0]
    if (gap.abs() > _COMPLETE * values.abs().sum(dim=(1, 2, 3))).any():
        raise UsageError("DeepLIFT: expected a network of activation modules and max-pooling, got one with other parts")
    return values


class _Rescaled:
    """Stands for a non-linear module: notes references while gradients are off, and compares images with them after."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._plain = module.forward
        self._seen: deque[Tensor] = deque()

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self._seen.append(x)
            return self._plain(x)
        reference = self._seen.popleft()
        if isinstance(self._module, nn.MaxPool2d):
            return _max_pool(self._module, x, reference)
        y, run = self._plain(x), (x - reference).detach()
        slope = (y.detach() - self._plain(reference)).div_(run)
        if (still := run == 0).any():
            slope = torch.where(still, torch.autograd.grad(y.sum(), x, retain_graph=True)[0], slope)
        return _Sloped.apply(x, y.detach(), slope)


def _max_pool(module: nn.MaxPool2d, x: Tensor, reference: Tensor) -> Tensor:
    """Max-pooling (N, C, H, W); the reference is (N, C, H, W) or (1, C, H, W).

    The difference of two maxima is passed on to the place of the larger one, where image and reference differ by at
    least as much: the slope lies between 0 and 1.
    """
    (y, at), (floor, at_reference) = (
        F.max_pool2d(
            z, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
        )
        for z in (x.detach(), reference)
    )
    place = torch.where(y >= floor, at, at_reference).flatten(2)
    chosen, beside = (z.flatten(2).gather(2, place).view_as(y) for z in (x, reference.expand_as(x)))
    run = chosen.detach() - beside
    return _Sloped.apply(chosen, y, (y - floor) / torch.where(run == 0, 1, run))


class _Sloped(torch.autograd.Function):
    """The value `y`, whose slope towards `x` is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG004 - x is where the gradient goes
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None
