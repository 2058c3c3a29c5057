"""Two models on the same images: differences with paired intervals, and the exact McNemar test.

Legend: N samples, K classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from steel_core.metrics import figures, multi_label
from steel_core.metrics.intervals import (
    Bools,
    Floats,
    Ints,
    effective_observations,
    group_names,
    group_weights,
    wilson,
)


class McNemar(NamedTuple):
    """How many images only one of two models names rightly, and how likely so uneven a count is by chance.

    `p` counts every image by itself. `p_groups` is the sign test over groups of near-duplicates, each on the side of
    the model that names more of it rightly: the one to believe where there are groups.

    Source: McNemar, Psychometrika 12, 1947; exact, by the binomial distribution.
    """

    only_a: int
    only_b: int
    p: float
    p_groups: float


def mcnemar(right_a: Bools, right_b: Bools, groups: Sequence[str] | None = None) -> McNemar:
    """The exact test for models that are right (N,) or not on the same images."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    _, place = np.unique(group_names(groups, len(right_a)), return_inverse=True)
    leaning = np.sign(np.bincount(place, right_a.astype(np.float64) - right_b.astype(np.float64)))
    return McNemar(only_a, only_b, _even(only_a, only_b), _even(int((leaning > 0).sum()), int((leaning < 0).sum())))


def paired_figures(
    probs_a: Floats,
    probs_b: Floats,
    labels: Ints | Floats,
    groups: Sequence[str] | npt.NDArray[np.str_] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy, macro recall, macro F1, AUC and ECE of two models, and their difference with its interval.

    For targets (N, K) of `multi_label.targets` instead of labels (N,): mean average precision, AUC and ECE.

    The same resamples of groups serve both models (basic interval of a paired bootstrap), so what makes images hard
    for both cancels. Where no resample differs, the interval is what the effective number of observations can exclude.

    Returns:
        Columns figure, a, b, difference (b - a), low, high. AUC is NaN where only one class occurs.
    """
    names = group_names(groups, len(labels))
    weights = group_weights(names, seed=seed)
    unseen = wilson(0.0, effective_observations(names))[1]
    rows = []
    for name, figure in (_FIGURES if labels.ndim == 1 else _MULTI_LABEL).items():
        a, b = (float(figure(probs, labels, None)[0]) for probs in (probs_a, probs_b))
        gap = b - a
        resampled = figure(probs_b, labels, weights) - figure(probs_a, labels, weights)
        if np.isnan(gap):
            low, high = -1.0, 1.0
        else:
            down, up = np.nanquantile(resampled, [0.025, 0.975])
            low, high = (gap - unseen, gap + unseen) if up - down < 1e-9 else (2 * gap - up, 2 * gap - down)
        rows.append((name, a, b, gap, max(-1.0, min(low, gap)), min(1.0, max(high, gap))))
    return pd.DataFrame(rows, columns=["figure", "a", "b", "difference", "low", "high"])


def _accuracy(probs: Floats, labels: Ints, weights: Floats | None) -> Floats:
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    return np.array([right.mean()]) if weights is None else weights @ right / weights.sum(axis=1)


def _counted(figure: Callable[[Floats], Floats]) -> Callable[[Floats, Ints, Floats | None], Floats]:
    def count(probs: Floats, labels: Ints, weights: Floats | None) -> Floats:
        return figure(figures.confusion(labels, probs.argmax(axis=1), probs.shape[1], weights))

    return count


_FIGURES: dict[str, Callable[[Floats, Any, Floats | None], Floats]] = {
    "accuracy": _accuracy,
    "macro_recall": _counted(figures.macro_recall),
    "macro_f1": _counted(figures.macro_f1),
    "auc": figures.macro_auc,
    "ece": figures.ece,
}
_MULTI_LABEL: dict[str, Callable[[Floats, Any, Floats | None], Floats]] = {
    "mean_average_precision": multi_label.mean_average_precision,
    "auc": multi_label.mean_auc,
    "ece": multi_label.mean_ece,
}


def _even(one: int, other: int) -> float:
    """Two-sided p that both are equally likely."""
    return float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0
