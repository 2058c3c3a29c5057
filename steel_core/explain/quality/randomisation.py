"""Randomisation: a map that stays when the model forgets what it learnt does not explain this model."""

import copy
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import nn

from steel_core.explain.quality.base import METRICS, Case, Metric, spearman
from steel_core.models.base import Classifier
from steel_core.types import Float32Array, Float64Array

SURVIVES = 0.5  # rank correlation with the fully randomised model's map from which a map counts as the same


def randomise_model(model: Classifier, share: float, seed: int = 0) -> Classifier:
    """A copy of the model whose last layers have forgotten: from the head downwards, that share of them, at least one.

    The weights of a layer are shuffled, not drawn anew: their distribution, and with it the size of the activations,
    stays. Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv:1810.03292 (cascading).
    """
    changed = copy.deepcopy(model)
    features = [layer for layer in changed.features.modules() if layer._parameters]
    in_features = {id(layer) for layer in features}
    head = [layer for layer in changed.modules() if layer._parameters and id(layer) not in in_features]
    cascade = head + features[::-1]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in cascade[: max(1, round(share * len(cascade)))]:
            _shuffle(layer, generator)
    return changed


def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    for weights in layer._parameters.values():
        if weights is not None:
            mixed = torch.randperm(weights.numel(), generator=generator).to(weights.device)
            weights.copy_(weights.flatten()[mixed].view_as(weights))


def _against_randomised(
    share: float, likeness: Callable[[Float32Array, Float32Array], Float64Array]
) -> Callable[[Case], Float64Array]:
    return lambda case: likeness(case.evidence, _maps_without_memory(case, share))


@lru_cache(maxsize=8)  # several metrics look at the same maps, one after the other
def _maps_without_memory(case: Case, share: float) -> Float32Array:
    """Maps (N, H, W) of the model without that share of what it learnt."""
    return case.explain(case.inputs, model=randomise_model(case.model, share, case.seed))


def other_class(case: Case) -> Float64Array:
    """Rank correlation (N,) of the maps of the explained class and of another one, drawn at random."""
    classes = len(case.probs(case.inputs[:1])[0])
    if classes < 2:
        return np.full(len(case), np.nan)
    drawn = np.random.default_rng([case.seed, case.number]).integers(1, classes, len(case))
    step = torch.from_numpy(drawn).to(case.targets)
    return spearman(case.evidence, case.explain(case.inputs, (case.targets + step) % classes))


def ssim(a: Float32Array, b: Float32Array) -> Float64Array:
    """Structural similarity (N,) of maps (N, H, W), each scaled by its largest magnitude; 0 where one is constant.

    Source: Wang et al., IEEE Transactions on Image Processing 13, 2004.
    """
    out = np.zeros(len(a))
    for i, pair in enumerate(zip(a, b, strict=True)):
        sizes = [float(np.abs(one).max()) for one in pair]
        if all(sizes) and all(np.ptp(one) > 0 for one in pair):
            x, y = (one / size for one, size in zip(pair, sizes, strict=True))
            out[i] = structural_similarity(x, y, data_range=2.0)
    return out


def explains_model(low: float | None, high: float | None) -> bool | None:
    """Whether maps change when the model forgets, by the interval of their likeness; None where it leaves that open."""
    if low is None or high is None:
        return None
    if high < SURVIVES:
        return True
    return False if low >= SURVIVES else None


_ADEBAYO = "Adebayo et al., NeurIPS 2018, arXiv:1810.03292; cascading from the head down, weights shuffled"

for _name, _title, _source, _measure in (
    ("randomised-head", "Likeness after forgetting: head", f"{_ADEBAYO}; rank correlation",
     _against_randomised(0.0, spearman)),
    ("randomised-half", "Likeness after forgetting: half", f"{_ADEBAYO}; rank correlation",
     _against_randomised(0.5, spearman)),
    ("randomised-model", "Likeness after forgetting: all", f"{_ADEBAYO}; rank correlation",
     _against_randomised(1.0, spearman)),
    ("randomised-model-ssim", "Likeness after forgetting: all, SSIM", f"{_ADEBAYO}; SSIM",
     _against_randomised(1.0, ssim)),
    ("random-logit", "Likeness for another class",
     "Sixt et al., When Explanations Lie, ICML 2020, arXiv:1912.09818; rank correlation", other_class),
):  # fmt: skip
    METRICS.register(_name)(Metric(_title, "randomisation", False, _source, _measure, maps=1, bounded=False))
