"""Batch normalisation for training only: put behind every convolution, folded into its weights afterwards.

A network without normalisation learns slowly from random weights. Normalised while it trains and folded at the end, it
is the plain architecture again: same tensors, same cost, same explanations.

Source: Ioffe and Szegedy, Batch Normalization, ICML 2015; folding: Jacob et al., CVPR 2018, section 3.2.
"""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class NormalisedConv(nn.Sequential):
    """A convolution followed by the batch normalisation of its channels."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels))

    def folded(self) -> nn.Conv2d:
        """One convolution that does in evaluation mode what the two do."""
        convolution, norm = copy.deepcopy(self).eval()
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return fuse_conv_bn_eval(convolution, norm)


def insert_batch_norm(module: nn.Module) -> None:
    """Put a batch normalisation behind every convolution of `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, NormalisedConv(child))
        else:
            insert_batch_norm(child)


def fold_batch_norm(module: nn.Module) -> None:
    """Undo `insert_batch_norm`, in place, leaving what `module` computes in evaluation mode as it is."""
    for name, child in module.named_children():
        if isinstance(child, NormalisedConv):
            setattr(module, name, child.folded())
        else:
            fold_batch_norm(child)
