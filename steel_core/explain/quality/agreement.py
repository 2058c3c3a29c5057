"""Agreement: do two methods tell the same about one image? Where they do not, at most one of them can be right.

Source: Krishna et al., The Disagreement Problem in Explainable Machine Learning, TMLR 2024, arXiv:2202.01602.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from steel_core.explain.quality.base import Floats, Maps, order, ranks

TOP = 0.1
"""Share of the pixels that count as a map's strongest."""


def agreement(maps: Mapping[str, Maps], seed: int = 0) -> dict[tuple[str, str], tuple[Floats, Floats]]:
    """For each two methods the rank correlation (N,), and the IoU of their strongest tenths (N,).

    Args:
        maps: evidence (N, H, W) of each method for the same images.
        seed: of the random order in which equal pixels are ranked.
    """
    ranked = {method: ranks(values) for method, values in maps.items()}
    strongest = {method: top(values, seed) for method, values in maps.items()}
    return {
        (a, b): ((ranked[a] * ranked[b]).sum(axis=1), _iou(strongest[a], strongest[b]))
        for a, b in combinations(maps, 2)
    }


def top(evidence: Maps, seed: int = 0) -> np.ndarray:
    """The strongest tenth of each map's pixels (N, P)."""
    place = order(evidence, seed).reshape(len(evidence), -1)
    return np.asarray(place < max(1, round(TOP * place.shape[1])))


def _iou(a: np.ndarray, b: np.ndarray) -> Floats:
    return np.asarray((a & b).sum(axis=1) / (a | b).sum(axis=1))
