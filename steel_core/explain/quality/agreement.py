"""Agreement: do two methods tell the same about one image? Where they do not, at most one of them can be right.

Source: Krishna et al., The Disagreement Problem in Explainable Machine Learning, TMLR 2024, arXiv:2202.01602.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from steel_core.explain.quality.base import rank_pixels, ranks
from steel_core.types import Float32Array, Float64Array

TOP = 0.1  # share of the pixels that count as a map's strongest


def compare_methods(
    maps: Mapping[str, Float32Array], seed: int = 0
) -> dict[tuple[str, str], tuple[Float64Array, Float64Array]]:
    """For each two methods the rank correlation (N,), and the IoU of their strongest tenths (N,), of maps (N, H, W)."""
    ranked = {method: ranks(values) for method, values in maps.items()}
    strongest = {method: strongest_pixels(values, seed) for method, values in maps.items()}
    return {
        (a, b): ((ranked[a] * ranked[b]).sum(axis=1), _iou(strongest[a], strongest[b]))
        for a, b in combinations(maps, 2)
    }


def strongest_pixels(evidence: Float32Array, seed: int = 0) -> np.ndarray:
    """The strongest tenth of each map's pixels (N, P)."""
    place = rank_pixels(evidence, seed).reshape(len(evidence), -1)
    return np.asarray(place < max(1, round(TOP * place.shape[1])))


def _iou(a: np.ndarray, b: np.ndarray) -> Float64Array:
    return np.asarray((a & b).sum(axis=1) / (a | b).sum(axis=1))
