"""Completeness: do the values of an additive method sum to what they claim to divide among the pixels?"""

import numpy as np
import torch

from steel_core.explain.quality.base import METRICS, Case, Metric, logits
from steel_core.types import Float64Array


def completeness_error(case: Case) -> Float64Array:
    """|sum of the map - gap| / (|sum| + |gap|) of each image (N,), 0 to 1; NaN for a method that is not additive.

    The gap is the target's logit minus that of the reference: the mean over the background, or mean grey (normalised,
    0).
    """
    info = case.explainer.info
    if not info.additive:
        return np.full(len(case), np.nan)
    with_background = "background" in info.needs and case.background is not None
    reference = case.background if with_background else torch.zeros_like(case.inputs[:1])
    assert reference is not None
    columns = case.targets.cpu().numpy()
    here = logits(case.model, case.inputs)[np.arange(len(case)), columns]
    gap = here - logits(case.model, reference).mean(axis=0)[columns]
    total = case.values.reshape(len(case), -1).sum(axis=1, dtype=np.float64)
    return relative_error(total, gap)


def relative_error(total: Float64Array, gap: Float64Array) -> Float64Array:
    """|total - gap| / (|total| + |gap|), (N,): 0 where they agree, 1 where one is zero or the signs differ."""
    size = np.abs(total) + np.abs(gap)
    return np.asarray(np.abs(total - gap) / np.where(size > 0, size, 1))


_SOURCE = "Sundararajan et al., ICML 2017, arXiv:1703.01365 (axiom of completeness); symmetric relative error"

METRICS.register("completeness-error")(Metric("Error of the sum", "completeness", False, _SOURCE, completeness_error))
