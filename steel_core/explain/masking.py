"""The score of a picture of which parts are hidden, for methods that look at a model from outside."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from steel_core.explain import engine
from steel_core.explain.base import TargetLogit
from steel_core.models.base import Classifier


def masked_scores(model: Classifier, image: Tensor, target: Tensor, shown: Iterable[Tensor]) -> Tensor:
    """The target's logit for one image, hidden behind each of many masks; forward passes only.

    Args:
        model: classifier; it may be in use by other threads.
        image: normalised (1, C, H, W); what is hidden becomes mean grey, which is zero after normalisation.
        target: as `Explainer.attribute` takes it, for this image: (1,) or (1, K).
        shown: batches of masks (M, H, W), 1 where the image shows and 0 where it is hidden; fractions blend.

    Returns:
        (S,) for all S masks together.

    Raises:
        UsageError: the target does not exist.
    """
    with engine.evaluating(model) as net, torch.no_grad():
        score = TargetLogit(net, target.detach().clone())
        return torch.cat(
            [
                score((image * masks[:, None].to(image)).contiguous(memory_format=torch.channels_last))[:, 0]
                for masks in shown
            ]
        )
