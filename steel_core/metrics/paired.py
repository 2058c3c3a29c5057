"""Two models on the same images: differences with paired intervals, and the exact McNemar test.

Legend: N samples, K classes, R resamples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from steel_core.metrics import classification, multi_label
from steel_core.metrics.classification import WeightedMetric
from steel_core.metrics.intervals import effective_observations, group_names, group_weights, wilson_interval
from steel_core.types import BoolArray, Float64Array, Int64Array, StrArray


class McNemar(NamedTuple):
    """How many images only one of two models names rightly, and how likely so uneven a count is by chance.

    `p_groups`, the one to believe, is the sign test over groups of near-duplicates, each on the side of the model that
    names more of it rightly. Exact, by the binomial distribution (McNemar, Psychometrika 12, 1947).
    """

    only_a: int
    only_b: int
    p: float
    p_groups: float


def mcnemar(right_a: BoolArray, right_b: BoolArray, groups: Sequence[str] | None = None) -> McNemar:
    """The exact test for models that are right (N,) or not on the same images."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    _, place = np.unique(group_names(groups, len(right_a)), return_inverse=True)
    leaning = np.sign(np.bincount(place, right_a.astype(np.float64) - right_b.astype(np.float64)))
    return McNemar(
        only_a, only_b, _sign_test(only_a, only_b), _sign_test(int((leaning > 0).sum()), int((leaning < 0).sum()))
    )


def paired_estimates(
    probs_a: Float64Array,
    probs_b: Float64Array,
    labels: Int64Array | Float64Array,
    groups: Sequence[str] | StrArray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy, macro recall, macro F1, AUC and ECE of two models, and their difference with its interval.

    For targets (N, K) of `multi_label.encode_targets` instead of labels (N,): mean average precision, AUC and ECE.
    The same resamples of groups serve both models (basic interval of a paired bootstrap), so what makes images hard
    for both cancels. Where no resample differs, the interval is what the effective number of observations can exclude.
    Columns figure, a, b, difference (b - a), low, high. AUC is NaN where only one class occurs.
    """
    names = group_names(groups, len(labels))
    weights = group_weights(names, seed=seed)
    unseen = wilson_interval(0.0, effective_observations(names))[1]
    rows = []
    for name, metric in (_SINGLE_LABEL if labels.ndim == 1 else _MULTI_LABEL).items():
        a, b = (float(metric(probs, labels, None)[0]) for probs in (probs_a, probs_b))
        gap = b - a
        resampled = metric(probs_b, labels, weights) - metric(probs_a, labels, weights)
        if np.isnan(gap):
            low, high = -1.0, 1.0
        else:
            down, up = np.nanquantile(resampled, [0.025, 0.975])
            low, high = (gap - unseen, gap + unseen) if up - down < 1e-9 else (2 * gap - up, 2 * gap - down)
        rows.append((name, a, b, gap, max(-1.0, min(low, gap)), min(1.0, max(high, gap))))
    return pd.DataFrame(rows, columns=["figure", "a", "b", "difference", "low", "high"])


def _accuracy(probs: Float64Array, labels: Int64Array, weights: Float64Array | None) -> Float64Array:
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    return np.array([right.mean()]) if weights is None else weights @ right / weights.sum(axis=1)


def _of_confusion(metric: Callable[[Float64Array], Float64Array]) -> WeightedMetric:
    def evaluate(probs: Float64Array, labels: Int64Array, weights: Float64Array | None) -> Float64Array:
        return metric(classification.confusion_counts(labels, probs.argmax(axis=1), probs.shape[1], weights))

    return evaluate


_SINGLE_LABEL: dict[str, WeightedMetric] = {
    "accuracy": _accuracy,
    "macro_recall": _of_confusion(classification.macro_recall),
    "macro_f1": _of_confusion(classification.macro_f1),
    "auc": classification.macro_auc,
    "ece": classification.ece,
}
_MULTI_LABEL: dict[str, WeightedMetric] = {
    "mean_average_precision": multi_label.mean_average_precision,
    "auc": multi_label.mean_auc,
    "ece": multi_label.mean_ece,
}


def _sign_test(one: int, other: int) -> float:
    return float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0
