"""Batch normalisation: put behind every convolution for training only, and folded into the weights for prediction.

A network without it learns slowly from random weights; folded at the end, it is the plain architecture again. Sources:
Ioffe and Szegedy, Batch Normalization, ICML 2015; folding: Jacob et al., CVPR 2018, section 3.2.
"""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


class NormalisedConv(nn.Sequential):
    """A convolution followed by the batch normalisation of its channels, which `fold_batch_norm` takes out again."""


def insert_batch_norm(module: nn.Module) -> None:
    """Put a batch normalisation behind every convolution of `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, NormalisedConv(child, nn.BatchNorm2d(child.out_channels)))
        else:
            insert_batch_norm(child)


def fold_batch_norm(module: nn.Module) -> None:
    """Undo `insert_batch_norm`, in place, leaving what `module`, which is in evaluation mode, computes as it is."""
    for name, child in module.named_children():
        if isinstance(child, NormalisedConv):
            setattr(module, name, fuse_conv_bn_eval(*child))
        else:
            fold_batch_norm(child)


def fold_for_inference(model: M) -> M:
    """A copy of `model` in evaluation mode, its normalisations folded into the convolutions right before them."""
    copied = copy.deepcopy(model).eval()
    for part in copied.modules():
        if isinstance(part, nn.Sequential):
            for i in range(1, len(part)):
                before, norm = part[i - 1], part[i]
                if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[i - 1], part[i] = fuse_conv_bn_eval(before, norm), nn.Identity()
    return copied
