"""Explanations without hooks on the model, from any thread, on a model that others use.

A hook on a module is seen by every thread that uses it. Here nothing is set on the model: the gradient comes from
autograd, guided backpropagation from a ReLU that is another one for the calling thread only, and Grad-CAM
from calling `features` and `classify` one after the other. One forward and one backward pass give the prediction,
Grad-CAM, guided backpropagation and, as their product, Guided Grad-CAM.

Legend of shapes: N images, C channels, H rows, W columns, K classes, F channels and h x w places of a layer.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import cpu_kernels
from steel_core.explain.base import TargetLogit, target_weights
from steel_core.explain.hooks import grid_sizes, isolated
from steel_core.models.base import Classifier


class Explained(NamedTuple):
    """What one pass tells about a batch."""

    logits: Tensor  # (N, K)
    averaged: Tensor  # (N, F) mean of each feature channel over the last grid
    # (N, 1, h, w) signed Grad-CAM of the targets on the layer's own grid; `enlarge` brings it to the image's
    cam: Tensor
    # (N, C, H, W) guided gradient of the targets' logits, or None where it was not asked for
    guided: Tensor | None = None


def gradients(model: Classifier, inputs: Tensor, targets: Tensor, *, guided: bool = False) -> tuple[Tensor, Tensor]:
    """Logits (N, K), and the gradient of the targets' logits (N, C, H, W), of any classifier; both detached.

    Arguments are as `Explainer.attribute` takes them; one row of targets may serve all images. `guided` stops what
    argues against the target at every ReLU (Springenberg et al., arXiv:1412.6806).

    Raises:
        UsageError: a target does not exist.
    """
    logits, slopes = [], []
    with evaluating(model) as net:
        for images, rows in zip(_chunks(inputs), _rows(targets, inputs), strict=True):
            with cpu_kernels.operators(net, guided) as ops:
                out = net(ops.keep(images).requires_grad_())
            wanted = target_weights(rows, out.shape[1]).to(out)
            logits.append(out.detach())
            slopes.append(torch.autograd.grad(out, images, wanted)[0])
    return torch.cat(logits), torch.cat(slopes)


def predict(model: Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) of normalised images (N, C, H, W), and the mean of each feature channel over the last grid (N, F).

    The model acts in the mode that it is in.
    """
    logits, averaged = [], []
    with torch.inference_mode(False), torch.no_grad():
        for images in _chunks(inputs):
            with cpu_kernels.operators(model) as ops:  # anew for each: what it kept of one chunk is freed memory now
                features = ops.keep(model.features(ops.keep(images)))
                logits.append(model.classify(features))
                averaged.append(features.mean(dim=(2, 3)))
    return torch.cat(logits), torch.cat(averaged)


def explain(
    model: Classifier, inputs: Tensor, targets: Tensor | None = None, *, layer: str = "", guided: bool = True
) -> Explained:
    """Prediction, Grad-CAM and guided backpropagation of a model that `supports` the layer, in one pass.

    Arguments are as `Explainer.attribute` takes them; targets of None are the class with the largest logit of each
    image. `layer` is a name that `layers` lists, or "" for the last convolutional stage. Without `guided` the pass goes
    forward only.

    Raises:
        UsageError: a target does not exist.
    """
    stage = _stage(model, layer)
    assert stage is not None, "the caller asks `supports`"
    parts = []
    with evaluating(model) as net:
        before, after = (nn.Sequential(*part) for part in (list(net.features)[:stage], list(net.features)[stage:]))
        for images, rows in zip(_chunks(inputs), _rows(targets, inputs), strict=True):
            with cpu_kernels.operators(net, guided) as ops, torch.set_grad_enabled(guided):
                activation = ops.keep(before(ops.keep(images).requires_grad_(guided)))
                features = ops.keep(after(activation))
                out = net.classify(features)
            logits = out.detach()
            wanted = target_weights(logits.argmax(dim=1) if targets is None else rows, logits.shape[1]).to(logits)
            image_slope, slope = torch.autograd.grad(out, (images, activation), wanted) if guided else (None, None)
            activation = activation.detach()
            head_follows = net.config.linear_head and not after and not cpu_kernels.is_plain()
            if head_follows and slope is None:
                cam = cpu_kernels.linear_head_cams(net, activation, wanted[:, None])
            else:
                if slope is None or not head_follows:  # else no ReLU lies between that would guide the slope
                    (slope,) = torch.autograd.grad(net.classify(after(activation.requires_grad_())), activation, wanted)
                cam = (slope.mean(dim=(2, 3), keepdim=True) * activation.detach()).sum(dim=1, keepdim=True)
            parts.append(Explained(logits, features.detach().mean(dim=(2, 3)), cam, image_slope))
    if len(parts) == 1:
        return parts[0]
    return Explained._make(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))


def masked_scores(model: Classifier, image: Tensor, target: Tensor, shown: Iterable[Tensor]) -> Tensor:
    """The target's logit (M,) for one normalised image (1, C, H, W), behind each of M masks; forward passes only.

    Masks (H, W) are 1 where the image shows and are drawn batch by batch; what is hidden becomes mean grey, which is
    zero after normalisation. The target is as `Explainer.attribute` takes it, (1,) or (1, K).

    Raises:
        UsageError: the target does not exist.
    """
    pending, size = iter(shown), batch_size(image.device)
    with evaluating(model) as net, torch.no_grad():
        score, scores = TargetLogit(net, target.detach().clone()), []
        while masks := list(islice(pending, size)):
            scores.append(score(cpu_kernels.lay_out(image * torch.stack(masks)[:, None].to(image)))[:, 0])
        return torch.cat(scores)


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
    """The layers that Grad-CAM can read in an image of that size, first to last, with their own rows and columns."""
    sizes = grid_sizes(model, next(model.parameters()).new_zeros(1, 3, *size))
    if model.config.hook_free:
        sizes.pop(f"features.{len(model.features) - 1}", None)  # the same as all of `features`
        return {name: grid for name, grid in sizes.items() if name == "features" or _STAGE.fullmatch(name)}
    return sizes


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
        yield cpu_kernels.lay_out(own)


def _rows(targets: Tensor | None, inputs: Tensor) -> Iterator[Tensor]:
    """The targets of each chunk; class 0 where there are none, for the caller to replace."""
    rows = inputs.new_zeros(len(inputs), dtype=torch.int64) if targets is None else targets.detach().clone()
    yield from rows.expand(len(inputs), *rows.shape[1:]).split(batch_size(inputs.device))
