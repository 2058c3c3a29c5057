"""Losses of training, for one class an image or several: cross-entropy and focal loss, by softmax or class by class."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

LOSSES = {"cross-entropy": 0.0, "focal": 2.0}
"""Exponent of the focal loss (Lin et al., ICCV 2017, arXiv:1708.02002), where 2 was best; 0 is cross-entropy."""


def image_losses(
    logits: Tensor, targets: Tensor, weights: Tensor, *, loss: str, head: str, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Weighted loss (N,) of each image, and its weight (N,): the mean loss is the ratio of their sums.

    Logits are (N, K); targets class numbers (N,), or (N, K) floats from 0 to 1, several of which may be 1. A weight is
    the mean of those (K,) of the image's classes, or 1 for an image of no class. With head "softmax" targets are shares
    of one whole, with "sigmoid" each class stands by itself. Smoothing is the share of the target spread over all
    classes (softmax), or moved towards one half (sigmoid); Szegedy et al., CVPR 2016.
    """
    classes, gamma = logits.shape[1], LOSSES[loss]
    hot = F.one_hot(targets, classes).to(logits.dtype) if targets.ndim == 1 else targets.to(logits.dtype)
    count = hot.sum(dim=1)
    weight = ((hot @ weights) / count.clamp(min=1e-6)).where(count > 0, 1.0)
    if head == "sigmoid":
        soft = hot * (1 - smoothing) + smoothing / 2
        each = sigmoid_focal_loss(logits, soft, alpha=-1, gamma=gamma).sum(dim=1)  # alpha below 0: no class weights
    else:
        soft = hot / count.clamp(min=1e-6)[:, None] * (1 - smoothing) + smoothing / classes
        log_probs = logits.log_softmax(dim=1)
        each = -(soft * (1 - log_probs.exp()) ** gamma * log_probs).sum(dim=1)
    return each * weight, weight
