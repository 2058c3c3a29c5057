"""Localisation: does the map point at the defect that an inspector outlined?

A large defect is hit by chance: see `Metric.chance`. Images without a mask or a box of the explained class are NaN.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from steel_core.explain.quality.base import METRICS, Case, Metric
from steel_core.explain.regions import dice
from steel_core.types import Float32Array, Float64Array, Mask


def pointing_game(evidence: Float32Array, truth: Mask) -> float:
    """1 if the strongest evidence (H, W) lies inside the mask (H, W), else 0; of equal pixels, the share inside."""
    top = evidence == evidence.max()
    return float(truth[top].mean())


def energy_inside(evidence: Float32Array, truth: Mask) -> float:
    """Share of the positive evidence (H, W) that lies inside the mask (H, W), 0 to 1; 0 where there is none."""
    positive = np.maximum(evidence, 0).astype(np.float64)
    total = positive.sum()
    return float(positive[truth].sum() / total) if total else 0.0


def rank_accuracy(evidence: Float32Array, truth: Mask) -> float:
    """Of as many strongest pixels (H, W) as the mask (H, W) has, the share inside it, 0 to 1.

    Pixels as strong as the weakest of them count with their share, so a constant map reaches the mask's area.
    """
    size = int(truth.sum())
    bar = np.partition(evidence.ravel(), -size)[-size]
    above, equal = evidence > bar, evidence == bar
    missing = size - int(above.sum())
    return float((int(truth[above].sum()) + missing * truth[equal].mean()) / size)


def iou(region: Mask, truth: Mask) -> float:
    """Common area over the area of both, 0 to 1; 1 where both are empty."""
    union = int((region | truth).sum())
    return int((region & truth).sum()) / union if union else 1.0


def precision(region: Mask, truth: Mask) -> float:
    """Share of the region that is defect, 0 to 1; 0 for an empty region."""
    return float(truth[region].mean()) if region.any() else 0.0


def recall(region: Mask, truth: Mask) -> float:
    """Share of the defect that the region covers, 0 to 1."""
    return float(region[truth].mean())


def _of_map(measure: Callable[[Float32Array, Mask], float]) -> Callable[[Case], Float64Array]:
    return lambda case: _measure_each(measure, case.evidence, case.truth)


def _of_region(measure: Callable[[Mask, Mask], float]) -> Callable[[Case], Float64Array]:
    return lambda case: _measure_each(measure, case.regions, case.truth)


def _measure_each(measure: Callable[[Any, Mask], float], shown: Iterable[Any], truth: Iterable[Any]) -> Float64Array:
    pairs = zip(shown, truth, strict=True)
    return np.array([np.nan if mask is None or one is None else measure(one, mask) for one, mask in pairs])


def _area(_: Float32Array, truth: Mask) -> float:
    return float(truth.mean())


def _overlap_by_chance(region: Mask, truth: Mask) -> tuple[float, float, float]:
    """Area shares of both, and of what they would have in common if the region lay at random."""
    return float(region.mean()), float(truth.mean()), float(region.mean() * truth.mean())


def _dice_by_chance(region: Mask, truth: Mask) -> float:
    mine, its, common = _overlap_by_chance(region, truth)
    return 2 * common / (mine + its)


def _iou_by_chance(region: Mask, truth: Mask) -> float:
    mine, its, common = _overlap_by_chance(region, truth)
    return common / (mine + its - common)


for _name, _title, _source, _measure, _chance in (
    ("pointing-game", "Pointing game",
     "Zhang et al., IJCV 126, 2018, arXiv:1608.00507; without its tolerance of 15 pixels",
     _of_map(pointing_game), _of_map(_area)),
    ("energy-pointing-game", "Energy inside", "Wang et al., Score-CAM, CVPR Workshops 2020, arXiv:1910.01279",
     _of_map(energy_inside), _of_map(_area)),
    ("rank-accuracy", "Relevance rank accuracy", "Arras et al., Information Fusion 81, 2022, arXiv:2003.07258",
     _of_map(rank_accuracy), _of_map(_area)),
    ("dice", "Dice", "Dice, Ecology 26, 1945", _of_region(dice), _of_region(_dice_by_chance)),
    ("iou", "IoU", "Jaccard, New Phytologist 11, 1912", _of_region(iou), _of_region(_iou_by_chance)),
    ("precision", "Precision", "share of the region that is defect",
     _of_region(precision), _of_region(lambda _, truth: float(truth.mean()))),
    ("recall", "Recall", "share of the defect that is in the region",
     _of_region(recall), _of_region(lambda region, _: float(region.mean()))),
):  # fmt: skip
    METRICS.register(_name)(Metric(_title, "localisation", True, _source, _measure, _chance))
