"""Explanations without hooks on the model, from any thread, on a model that others use.

A hook on a module is seen by every thread that uses it. Here nothing is set on the model: the gradient comes from
autograd, guided backpropagation from a ReLU that is another one for the calling thread only, and Grad-CAM
from calling `features` and `classify` one after the other. One forward and one backward pass give the prediction,
Grad-CAM of every class, guided backpropagation and, as their product, Guided Grad-CAM.

Legend of shapes: N images, C channels, H rows, W columns, K classes, F channels and h x w places of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain.base import target_weights
from steel_core.explain.hooks import grids, isolated
from steel_core.models.base import Classifier


class Explained(NamedTuple):
    """What one pass tells about a batch.

    Attributes:
        logits: (N, K).
        averaged: (N, F) mean of each feature channel over the last grid.
        cam: (N, 1, h, w) signed Grad-CAM of the targets on the layer's own grid; `enlarge` brings it to the image's.
        guided: (N, C, H, W) guided gradient of the targets' logits, or None where it was not asked for.
        cams: (N, K, h, w) signed Grad-CAM of every class, or None where it was not asked for.
    """

    logits: Tensor
    averaged: Tensor
    cam: Tensor
    guided: Tensor | None = None
    cams: Tensor | None = None


def gradients(model: Classifier, inputs: Tensor, targets: Tensor, *, guided: bool = False) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the targets' logits, of any classifier.

    Args:
        model: as `Explainer.attribute` takes it.
        inputs: normalised images (N, C, H, W), any number.
        targets: as `Explainer.attribute` takes them: indices of classes (N,), or weights of the logits (N, K).
        guided: stop what argues against the target at every ReLU (Springenberg et al., arXiv:1412.6806).

    Returns:
        Logits (N, K) and gradients (N, C, H, W), both detached.

    Raises:
        UsageError: a target does not exist.
    """
    logits, slopes = [], []
    with evaluating(model) as net:
        for images, rows in zip(_chunks(inputs), _rows(targets, inputs), strict=True):
            with _Pass(net, guided) as act:
                out = net(act.keep(images).requires_grad_())
            wanted = target_weights(rows, out.shape[1]).to(out)
            logits.append(out.detach())
            slopes.append(torch.autograd.grad(out, images, wanted)[0])
    return torch.cat(logits), torch.cat(slopes)


def predict(model: Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) of normalised images (N, C, H, W), and the mean of each feature channel over the last grid (N, F).

    The model acts in the mode that it is in.
    """
    logits, averaged = [], []
    with torch.inference_mode(), _Pass(model) as act:
        for images in _chunks(inputs):
            features = act.keep(model.features(act.keep(images)))
            logits.append(model.classify(features))
            averaged.append(features.mean(dim=(2, 3)))
    return torch.cat(logits), torch.cat(averaged)


def explain(
    model: Classifier,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    layer: str = "",
    guided: bool = True,
    every_class: bool = False,
) -> Explained:
    """Prediction, Grad-CAM and guided backpropagation of a model that `supports` the layer, in one pass.

    Args:
        model: as `Explainer.attribute` takes it.
        inputs: normalised images (N, C, H, W), any number.
        targets: as `Explainer.attribute` takes them; None for the class with the largest logit of each image.
        layer: a name that `layers` lists, or "" for the last convolutional stage.
        guided: whether the guided gradient is wanted; without it the pass goes forward only.
        every_class: whether Grad-CAM of every class is wanted: free for the last stage before a linear head, K passes
            backward through what comes after the layer otherwise.

    Raises:
        UsageError: a target does not exist.
    """
    stage = _stage(model, layer)
    assert stage is not None, "the caller asks `supports`"
    parts = []
    with evaluating(model) as net:
        stages = list(net.features)
        for images, rows in zip(_chunks(inputs), _rows(targets, inputs), strict=True):
            with _Pass(net, guided) as act, torch.set_grad_enabled(guided):
                activation = act.keep(_through(stages[:stage], act.keep(images).requires_grad_(guided)))
                features = act.keep(_through(stages[stage:], activation))
                out = net.classify(features)
            logits = out.detach()
            wanted = target_weights(logits.argmax(dim=1) if targets is None else rows, logits.shape[1]).to(logits)
            image_slope, slope = torch.autograd.grad(out, (images, activation), wanted) if guided else (None, None)
            activation = activation.detach()
            if slope is not None and not every_class and net.config.linear_head and stage == len(stages):
                cams = _weighed(slope, activation)[:, None]  # no ReLU lies between: the guided slope is the true one
            else:
                every = torch.eye(logits.shape[1]).to(logits).expand(len(logits), -1, -1)
                cams = _grad_cams(net, stages[stage:], activation, every if every_class else wanted[:, None])
            parts.append(
                Explained(
                    logits,
                    features.detach().mean(dim=(2, 3)),
                    torch.einsum("nk,nkhw->nhw", wanted, cams)[:, None] if every_class else cams,
                    image_slope,
                    cams if every_class else None,
                )
            )
    if len(parts) == 1:
        return parts[0]
    return Explained._make(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))


def enlarge(cam: Tensor, size: Sequence[int]) -> Tensor:
    """A map (N, M, h, w) on the grid of an image (N, M, H, W), bilinearly."""
    return F.interpolate(cam, size=tuple(size), mode="bilinear", align_corners=False)


def guided_grad_cam(guided: Tensor, cam: Tensor) -> Tensor:
    """(N, 1, H, W): a guided gradient (N, C, H, W) inside the regions that argue for the target (N, 1, h, w)."""
    return guided.sum(dim=1, keepdim=True) * enlarge(cam.clamp(min=0), guided.shape[2:])


def supports(model: Classifier, layer: str = "") -> bool:
    """Whether `explain` serves this model at this layer; captum serves wherever it does not.

    Raises:
        UsageError: the model has no such layer.
    """
    return _stage(model, layer) is not None


def layers(model: Classifier, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The layers that Grad-CAM can read, in the order in which the data pass, with their rows and columns.

    Args:
        model: any classifier.
        size: rows and columns of the image.
    """
    found = grids(model, next(model.parameters()).new_zeros(1, 3, *size))
    if not model.config.hook_free:
        return found
    last = f"features.{len(model.features) - 1}"  # the same as all of `features`
    return {
        name: grid for name, grid in found.items() if name == "features" or _STAGE.fullmatch(name.replace(last, ""))
    }


@contextmanager
def evaluating(model: Classifier) -> Iterator[Classifier]:
    """The model as it acts in evaluation mode, with gradients on whatever the caller's mode is.

    A model that is being trained keeps its mode: a private copy of its structure acts for it.
    """
    if any(module.training for module in model.modules()):
        with isolated(model) as private:
            yield private
    else:
        with torch.inference_mode(False), torch.enable_grad():
            yield model


class _Pass(TorchFunctionMode):
    """How the calling thread's ReLUs act while this is entered: in place, and backward as guided backpropagation asks.

    In place they save a tenth of the time. Only for `hook_free` models, where nothing else reads what a ReLU is given;
    what must outlive the pass is named by `keep`. On a CPU, convolutions go where they are fastest.
    """

    _RELUS = (F.relu, torch.relu, torch.Tensor.relu)

    def __init__(self, net: Classifier, guided: bool = False) -> None:
        super().__init__()
        self._guided = guided
        self._in_place = net.config.hook_free
        self._kept: set[int] = set()

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor, whose memory no ReLU will change from now on."""
        self._kept.add(tensor.data_ptr())
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self._RELUS:
            in_place = self._in_place and args[0].data_ptr() not in self._kept
            outputs = torch.relu_(args[0]) if in_place else torch.relu(args[0])
            if self._guided and outputs.grad_fn:
                outputs.grad_fn.register_hook(_only_for)
            return outputs
        if func is torch.conv2d and len(args) == 7 and args[0].device.type == "cpu":
            return _convolved(*args)
        return func(*args, **(kwargs or {}))


def _only_for(gradients: Sequence[Tensor], _: Sequence[Tensor]) -> None:
    """Of what a ReLU hands back, keep what argues for the target: guided backpropagation.

    In place, against torch's rule for hooks: the rule guards tensors that others hold, and this one was just made.
    """
    gradients[0].clamp_(min=0)


def _convolved(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """`torch.conv2d` by the fastest way that a CPU has for it."""
    plain = not isinstance(padding, str) and dilation == (1, 1) and groups == 1
    if plain and max(stride) > 1 and images.is_leaf and images.requires_grad:
        return cast(Tensor, _StridedConvolution.apply(images, weight, bias, stride, padding))
    alone = len(images) == 1 and max(stride) == 1 and images.dtype == weight.dtype
    if plain and alone and weight.shape[2:] == (1, 1) and max(padding) == 0:
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


def _grad_cams(net: Classifier, after: Sequence[nn.Module], activation: Tensor, mixes: Tensor) -> Tensor:
    """Signed Grad-CAM (N, M, h, w) of M weighted sums of logits (N, M, K), of a layer's output (N, F, h, w)."""
    if net.config.linear_head and not after:
        # The gradient is the same at every place and for every image: that of each logit (K, F), at one place.
        place = activation.new_zeros(mixes.shape[2], activation.shape[1], 1, 1).requires_grad_()
        slopes = torch.autograd.grad(net.classify(place).diagonal().sum(), place)[0][:, :, 0, 0]
        pooled = mixes @ slopes / activation.shape[2:].numel()
        return torch.einsum("nmf,nfhw->nmhw", pooled, activation)
    leaf = activation.requires_grad_()
    out = net.classify(_through(after, leaf))
    maps = []
    for mix in mixes.unbind(1):
        (slope,) = torch.autograd.grad(out, leaf, mix, retain_graph=True)
        maps.append(_weighed(slope, activation.detach()))
    return torch.stack(maps, dim=1)


def _weighed(slope: Tensor, activation: Tensor) -> Tensor:
    """Signed Grad-CAM (N, h, w) from the gradient at a layer's output, and that output (N, F, h, w)."""
    return (slope.mean(dim=(2, 3), keepdim=True) * activation).sum(dim=1)


def _through(stages: Sequence[nn.Module], data: Tensor) -> Tensor:
    """What the stages make of it, one after the other."""
    for stage in stages:
        data = stage(data)
    return data


def _stage(model: Classifier, layer: str) -> int | None:
    """How many stages of `features` end with the layer, or None if it is not the end of a stage."""
    name = layer or model.config.cam_layer
    try:
        model.get_submodule(name)
    except AttributeError:
        raise UsageError(
            f"layer {name!r}: expected the name of a module of the network, such as {model.config.cam_layer!r}"
        ) from None
    if not model.config.hook_free:
        return None
    if name == "features":
        return len(model.features)
    return int(name.removeprefix("features.")) + 1 if _STAGE.fullmatch(name) else None


_STAGE = re.compile(r"features\.\d+")


def _chunks(inputs: Tensor) -> Iterator[Tensor]:
    """Images in batches that suit the device, in the layout that it likes, each a tensor that may take a gradient."""
    for images in inputs.split(batch_size(inputs.device)):
        own = images.clone() if images.is_inference() else images.detach()
        yield own.contiguous(memory_format=torch.channels_last)


def _rows(targets: Tensor | None, inputs: Tensor) -> Iterator[Tensor]:
    """The targets of each chunk; class 0 where there are none, for the caller to replace."""
    rows = inputs.new_zeros(len(inputs), dtype=torch.int64) if targets is None else targets.detach().clone()
    yield from rows.split(batch_size(inputs.device))
