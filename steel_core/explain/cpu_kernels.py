"""What makes explanations fast, in one file behind one switch.

`with plain_path():` makes the calling thread do without, and STEEL_PLAIN_PATH=1 in the environment the whole process:
torch's operators and autograd as they are. Both give the same up to rounding, which a test holds every backbone to.

The fast path has the channels last in memory; ReLUs in place, which saves a tenth of the time; guided backpropagation
by a hook on the ReLU's own node, without a Python function in its place; convolutions by the fastest way that a CPU
has; and Grad-CAM before a linear head without a pass backward. Batches on several cores, and the memory that is kept
between layers, are in `steel_core.device`: training shares them, and they do not touch what an operator computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from steel_core.errors import UsageError
from steel_core.models.base import Classifier

_PLAIN = ContextVar("plain_path", default=os.environ.get("STEEL_PLAIN_PATH", "0") not in ("", "0"))
_RELUS_IN_PLACE = (torch.relu_, torch.Tensor.relu_)
_RELUS = (F.relu, torch.relu, torch.Tensor.relu, *_RELUS_IN_PLACE)


@contextmanager
def plain_path() -> Iterator[None]:
    """Without anything that this file does to be fast, in the calling thread."""
    before = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(before)


def is_plain() -> bool:
    """Whether the calling thread takes the plain path."""
    return _PLAIN.get()


def operators(net: Classifier, guided: bool = False) -> Operators:
    """How the operators of the calling thread act while this is entered; `guided` stops what argues against the target.

    Only of a `hook_free` network may a ReLU act in place.
    """
    return Operators(guided) if is_plain() else _FastOperators(guided, in_place=net.config.hook_free)


def lay_out(images: Tensor) -> Tensor:
    """The same numbers in the memory layout that suits the path: channels last, or torch's own."""
    return images.contiguous(memory_format=torch.contiguous_format if is_plain() else torch.channels_last)


class Operators(TorchFunctionMode):
    """torch's own operators, but for guided ReLUs, which backward pass what argues for the target and nothing else.

    Guided backpropagation: Springenberg et al., arXiv:1412.6806. What must outlive the pass is named by `keep`.
    """

    def __init__(self, guided: bool, in_place: bool = False) -> None:
        super().__init__()
        self._guided = guided
        self._in_place = in_place
        self._kept: set[int] = set()

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor, whose memory no ReLU will change from now on, through no view of it either."""
        self._kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS:
            data = args[0] if args else kwargs["input"]
            return self._rectify(data, func in _RELUS_IN_PLACE or bool(kwargs.get("inplace")))
        return func(*args, **kwargs)

    def _rectify(self, data: Tensor, asked_in_place: bool) -> Tensor:
        """A ReLU that spares kept memory, and views: what they share with others cannot be known from them."""
        kept, view = data.untyped_storage().data_ptr() in self._kept, data._is_view()
        if kept and view and asked_in_place:
            raise UsageError("expected a network whose ReLUs are not in place, got one that overwrites part of a layer")
        if kept or view:
            outputs = self._relu(data, False)
            return data.copy_(outputs) if asked_in_place and not kept else outputs
        return self._relu(data, asked_in_place or self._in_place)

    def _relu(self, data: Tensor, in_place: bool) -> Tensor:
        outputs = torch.relu_(data) if in_place else torch.relu(data)
        if self._guided and outputs.requires_grad:
            self._guide(outputs)
        return outputs

    def _guide(self, outputs: Tensor) -> None:
        outputs.register_hook(lambda gradient: gradient.clamp(min=0))


class _FastOperators(Operators):
    """ReLUs in place, guided without a Python function, and on a CPU the fastest convolutions."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) == 7 and args[0].device.type == "cpu":
            return _convolve(*args)
        return super().__torch_function__(func, types, args, kwargs)

    def _guide(self, outputs: Tensor) -> None:
        assert outputs.grad_fn is not None
        outputs.grad_fn.register_hook(_drop_negative)


def _drop_negative(gradients: Sequence[Tensor], _: Sequence[Tensor]) -> None:
    """In place, against torch's rule for hooks: it guards tensors that others hold, and this one was just made."""
    gradients[0].clamp_(min=0)


def _convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    ordinary = not isinstance(padding, str) and dilation == (1, 1) and groups == 1
    if ordinary and max(stride) > 1 and images.is_leaf and images.requires_grad:
        return cast(Tensor, _StridedConvolution.apply(images, weight, bias, stride, padding))
    alone = len(images) == 1 and max(stride) == 1 and images.dtype == weight.dtype
    if ordinary and alone and weight.shape[2:] == (1, 1) and max(padding) == 0:
        return cast(Tensor, _PixelConvolution.apply(images, weight, bias))
    if weight.shape[2:] == (1, 1):
        # One core's small batches would leave oneDNN for code half as fast, but never when dilated, which does nothing
        # to a kernel of one pixel (`use_mkldnn` in ATen's Convolution.cpp).
        dilation = (2, 2)
    return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)


class _PixelConvolution(torch.autograd.Function):
    """A kernel of one pixel on one image: a product of matrices, with the channels last, where they lie already."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        kernel, result = weight.flatten(1).T, _grid_like(image, len(weight))
        if bias is None:
            torch.mm(_places(image), kernel, out=_places(result))
        else:
            torch.addmm(bias, _places(image), kernel, out=_places(result))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        result = _grid_like(gradient, weight.shape[1])
        torch.mm(_places(gradient), weight.flatten(1), out=_places(result))
        return result, None, None


def _places(grid: Tensor) -> Tensor:
    """The channels of each place (N x h x w, F) of a grid (N, F, h, w); a view where the channels come last."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def _grid_like(grid: Tensor, channels: int) -> Tensor:
    """Memory for a grid of the same size with other channels, which come last."""
    n, _, rows, columns = grid.shape
    strides = (rows * columns * channels, 1, columns * channels, channels)
    return grid.new_empty_strided((n, channels, rows, columns), strides)


class _StridedConvolution(torch.autograd.Function):
    """The first convolution, whose gradient oneDNN takes five times as long for as for its result: twice as fast."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.steps, ctx.size = {"stride": tuple(stride), "padding": tuple(padding)}, images.shape[2:]
        return torch.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        places = gradient.permute(0, 2, 3, 1).flatten(1, 2)  # (N, hw, F): no copy where the channels come last
        windows = weight.flatten(1).T @ places.transpose(1, 2)  # (N, C x kernel, hw)
        return F.fold(windows, ctx.size, weight.shape[2:], **ctx.steps), None, None, None, None


def linear_head_cams(net: Classifier, features: Tensor, mixes: Tensor) -> Tensor:
    """Signed Grad-CAM (N, M, h, w) of M weighted sums of logits (N, M, K), from what `features` gives (N, F, h, w).

    Before a linear head the gradient is the same at every place and for every image: that of each logit, at one place.
    """
    place = features.new_zeros(mixes.shape[2], features.shape[1], 1, 1).requires_grad_()
    slopes = torch.autograd.grad(net.classify(place).diagonal().sum(), place)[0][:, :, 0, 0]
    pooled = mixes @ slopes / features.shape[2:].numel()
    return torch.einsum("nmf,nfhw->nmhw", pooled, features)
