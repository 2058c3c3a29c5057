"""Curves of a classifier: ROC, precision against recall, calibration, histograms of scores, risk against coverage.

Each returns a table, one row a point; intervals 95 %, pointwise. Legend: N samples, K classes, T thresholds, B bins.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from steel_core.metrics.classification import ECE_BINS, logits_to_probabilities
from steel_core.metrics.intervals import effective_observations, estimate_share, group_names, wilson_interval
from steel_core.types import BoolArray, Float64Array, Int64Array


def roc_points(scores: Float64Array, positive: BoolArray, groups: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns threshold, false_positive_rate, true_positive_rate, low, high (of this); empty without both sides."""
    columns = ["threshold", "false_positive_rate", "true_positive_rate", "low", "high"]
    if positive.all() or not positive.any():
        return pd.DataFrame(columns=columns, dtype=np.float64)
    fall, hit, thresholds = roc_curve(positive, scores)
    effective = effective_observations(group_names(groups, len(scores))[positive])
    bounds = np.array([wilson_interval(float(rate), effective) for rate in hit])
    return pd.DataFrame(np.column_stack([thresholds, fall, hit, bounds]), columns=columns)


def precision_recall_points(
    scores: Float64Array, positive: BoolArray, groups: Sequence[str] | None = None
) -> pd.DataFrame:
    """Columns threshold, recall, precision, low, high (of precision); empty where nothing is positive.

    The last point, recall 0 with precision 1, is a convention and has threshold infinity. The effective observations
    behind a point are those of all samples in proportion to the samples called.
    """
    columns = ["threshold", "recall", "precision", "low", "high"]
    if not positive.any():
        return pd.DataFrame(columns=columns, dtype=np.float64)
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    ratio = effective_observations(group_names(groups, len(scores))) / len(scores)
    predicted = np.r_[len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"), 0]
    bounds = np.array([wilson_interval(float(p), ratio * n) for p, n in zip(precision, predicted, strict=True)])
    return pd.DataFrame(np.column_stack([np.r_[thresholds, np.inf], recall, precision, bounds]), columns=columns)


def reliability_bins(
    probs: Float64Array, labels: Int64Array, groups: Sequence[str] | None = None, bins: int = ECE_BINS
) -> pd.DataFrame:
    """The reliability diagram of the winning class: how often it is right, against how sure the model was.

    Columns start, end, n, confidence (mean), accuracy, low, high, one row a bin of equal width that holds samples; the
    mean of |confidence - accuracy| weighted by n is `ece`.
    """
    names = group_names(groups, len(labels))
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for b in np.unique(place):
        mine = place == b
        accuracy = estimate_share(right[mine], names[mine])
        rows.append((b / bins, (b + 1) / bins, accuracy.n, float(confidence[mine].mean()), *accuracy[:3]))
    return pd.DataFrame(rows, columns=["start", "end", "n", "confidence", "accuracy", "low", "high"])


def compare_heads(logits: Float64Array, classes: Sequence[str], temperature: float = 1.0) -> pd.DataFrame:
    """Softmax beside sigmoid for the logits (K,) of one image: columns label, softmax, sigmoid, the likeliest first.

    Softmax must name a winner; a sigmoid may find nothing likely. For a network trained with softmax, whose logits mean
    something only against each other, the sigmoid shows how little backs the winner, and is no calibrated probability.
    """
    row = np.asarray(logits, dtype=np.float64)[None]
    table = pd.DataFrame({
        "label": list(classes),
        "softmax": logits_to_probabilities(row, "softmax", temperature)[0],
        "sigmoid": logits_to_probabilities(row, "sigmoid", temperature)[0],
    })  # fmt: skip
    return table.sort_values("softmax", ascending=False, kind="stable").reset_index(drop=True)


def score_histogram(scores: Float64Array, positive: BoolArray, bins: int = 20) -> pd.DataFrame:
    """Columns start, end, positive, negative: the scores (N,) of either kind in each bin of 0 to 1, start included."""
    edges = np.linspace(0, 1, bins + 1)
    counts = [np.histogram(scores[side], edges)[0] for side in (positive, ~positive)]
    return pd.DataFrame({"start": edges[:-1], "end": edges[1:], "positive": counts[0], "negative": counts[1]})


def loss_histogram(losses: Float64Array, wrong: BoolArray, bins: int = 30) -> pd.DataFrame:
    """Columns start, end, right, wrong: the losses (N,) of either kind in each of equal bins from 0 to the largest."""
    edges = np.linspace(0, max(float(losses.max(initial=0)), 1e-6), bins + 1)
    counts = [np.histogram(losses[side], edges)[0] for side in (~wrong, wrong)]
    return pd.DataFrame({"start": edges[:-1], "end": edges[1:], "right": counts[0], "wrong": counts[1]})


def risk_coverage(confidence: Float64Array, right: BoolArray, groups: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns threshold, coverage, risk (share wrong of the n decided), low, high, n, from the highest confidence."""
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], np.cumsum(~right[order])
    last = np.flatnonzero(np.r_[sure[:-1] != sure[1:], True]) if len(sure) else np.zeros(0, int)
    decided = last + 1
    ratio = effective_observations(group_names(groups, len(right))) / max(len(right), 1)
    risk = wrong[last] / decided
    bounds = np.array([wilson_interval(float(r), ratio * n) for r, n in zip(risk, decided, strict=True)]).reshape(-1, 2)
    table = pd.DataFrame(np.column_stack([sure[last], decided / max(len(sure), 1), risk, bounds]),
                         columns=["threshold", "coverage", "risk", "low", "high"])  # fmt: skip
    return table.assign(n=decided)
