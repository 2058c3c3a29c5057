"""Probabilities, confusion matrices, recall, precision, F1, AUC, average precision and calibration, with intervals.

Every metric is a function of a weight for each sample, (R, N), so that a bootstrap over groups is one matrix product
instead of a thousand calls of scikit-learn. Legend: N samples, K classes, R resamples, B bins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from steel_core.errors import DataError
from steel_core.metrics.intervals import (
    FEW,
    Estimate,
    basic_interval,
    bootstrap_estimate,
    effective_observations,
    estimate_share,
    group_names,
    group_weights,
    mean_of_known,
    mover_interval,
    wilson_interval,
)
from steel_core.types import BoolArray, Float64Array, Int64Array, StrArray

ECE_BINS = 15

WeightedMetric = Callable[[Float64Array, Any, Float64Array | None], Float64Array]
"""Value (R,) of scores, the truth, and weights of the samples (R, N); ones if None."""

_BLOCK = 2_000_000  # numbers in a block of resampled weights: what a processor's cache holds


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Metrics of one checkpoint on one set of images, each with its 95 % interval.

    `accuracy` and `recall` have Wilson intervals, `macro_recall` the MOVER interval built from them (Zou and Donner,
    Statistics in Medicine 27, 2008). Their number of observations is Kish's effective one, as if near-duplicates of one
    group were all right or all wrong together: the careful end. `macro_f1`, `auc` and `ece` have basic intervals of a
    bootstrap over groups; where no resample differs, which says nothing, the Wilson interval of the value as a share
    of the effective observations. `auc` is the mean over the classes of one class against the rest; `ece` is the
    expected calibration error of the winning class in 15 equal bins (Guo et al., ICML 2017).
    """

    classes: tuple[str, ...]
    n: int
    groups: int
    accuracy: float
    macro_recall: float
    macro_f1: float
    auc: float | None
    ece: float
    recall: dict[str, float | None]
    support: dict[str, int]
    confusion: list[list[int]]
    intervals: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write; `confusion` has actual classes as rows, predicted ones as columns."""
        return {name: getattr(self, name) for name in self.__slots__}


def logits_to_probabilities(logits: Float64Array, head: str, temperature: float = 1.0) -> Float64Array:
    """Probabilities (N, K) of logits (N, K), "softmax" or "sigmoid"; never quite 1, so that a threshold of 1 refers."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.minimum(softmax(scaled, axis=1) if head == "softmax" else expit(scaled), np.nextafter(1.0, 0.0))


def fit_temperature(logits: Float64Array, labels: Int64Array | Float64Array, head: str) -> float:
    """The temperature that minimises `log_losses` of a validation split (Guo et al., ICML 2017)."""

    def loss(log_temperature: float) -> float:
        return float(log_losses(logits, labels, head, float(np.exp(log_temperature))).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def log_losses(
    logits: Float64Array, labels: Int64Array | Float64Array, head: str, temperature: float = 1.0
) -> Float64Array:
    """Negative log likelihood (N,) of the true classes under logits (N, K); NaN where they are not known.

    `labels`: number of the true class (N,), -1 where unknown, under a "softmax" head; under a "sigmoid" one targets
    (N, K) of `multi_label.encode_targets`, and the sum of their binary cross-entropies.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    hot = np.asarray(labels, dtype=np.float64)
    if hot.ndim == 1:
        hot = np.where(np.asarray(labels)[:, None] >= 0, np.eye(scaled.shape[1])[np.asarray(labels)], np.nan)
    if head == "softmax":
        return np.asarray(-(hot * log_softmax(scaled, axis=1)).sum(axis=1))
    return np.asarray((np.logaddexp(0, scaled) - hot * scaled).sum(axis=1))


def fit_refer_thresholds(
    probs: Float64Array, labels: Int64Array, precision: float = 0.99, quantile: float = 0.02
) -> Float64Array:
    """For each class, the probability below which its prediction is referred to a person (K,).

    It is the larger of two values, both taken on a validation split: the smallest probability above which predictions
    of the class are right with at least `precision`; and the `quantile` of the probabilities of its right predictions,
    so that an image less typical than nearly all that were seen is looked at. Never below one half, never above 0.99;
    0.99 for a class that was never predicted rightly, about which nothing is known.
    """
    pred, confidence = probs.argmax(axis=1), probs.max(axis=1)
    thresholds = np.full(probs.shape[1], 0.99)
    for k in range(probs.shape[1]):
        mine = pred == k
        order = np.argsort(-confidence[mine], kind="stable")
        right, scores = (labels[mine] == k)[order], confidence[mine][order]
        if not right.any():
            continue
        enough = np.cumsum(right) / np.arange(1, len(right) + 1) >= precision
        enough &= np.r_[scores[1:] != scores[:-1], True]  # equal scores share one fate
        last = int(np.flatnonzero(enough)[-1]) if enough.any() else -1
        precise = scores[last] if last >= 0 else 1.0
        if last == len(scores) - 1:
            precise = 0.5  # every prediction of this class may pass
        thresholds[k] = np.clip(max(precise, np.quantile(scores[right], quantile)), 0.5, 0.99)
    return thresholds


def auc(scores: Float64Array, positive: BoolArray, weights: Float64Array | None = None) -> Float64Array:
    """Weighted area under the ROC curve (R,) of scores (N,), ties counted half; NaN where one side is empty."""

    def area(up: Float64Array, down: Float64Array) -> Float64Array:
        below = np.cumsum(down, axis=1) - down / 2
        return np.asarray((up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))

    return _over_ranks(area, scores, positive, weights)


def average_precision(scores: Float64Array, positive: BoolArray, weights: Float64Array | None = None) -> Float64Array:
    """Weighted average precision (R,) of scores (N,), equal ones as one step of recall; NaN without positives."""

    def precision(up: Float64Array, down: Float64Array) -> Float64Array:
        hits = np.cumsum(up[:, ::-1], axis=1)
        predicted = np.maximum(hits + np.cumsum(down[:, ::-1], axis=1), np.finfo(np.float64).tiny)
        return np.asarray((up[:, ::-1] * hits / predicted).sum(axis=1) / up.sum(axis=1))

    return _over_ranks(precision, scores, positive, weights)


def _over_ranks(
    metric: Callable[[Float64Array, Float64Array], Float64Array],
    scores: Float64Array,
    positive: BoolArray,
    weights: Float64Array | None,
) -> Float64Array:
    """`metric` of the weights of positives and negatives (R, T) at each of the T different scores, from low to high."""
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    sign = positive[order]
    out = []
    step = max(1, _BLOCK // max(len(scores), 1))
    for first in range(0, len(weights), step):  # blocks: a thousand resamples of many images need not lie in memory
        ranked = weights[first : first + step, order]
        up = np.add.reduceat(ranked * sign, starts, axis=1)
        down = np.add.reduceat(ranked * ~sign, starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            out.append(metric(up, down))
    return np.concatenate(out)


def macro_auc(probs: Float64Array, labels: Int64Array, weights: Float64Array | None = None) -> Float64Array:
    """Mean over the classes of one class against the rest (R,); NaN where no class has both sides."""
    return mean_of_known(np.stack([auc(probs[:, k], labels == k, weights) for k in range(probs.shape[1])]))


def ece(
    probs: Float64Array, labels: Int64Array, weights: Float64Array | None = None, bins: int = ECE_BINS
) -> Float64Array:
    """Expected calibration error (R,) of the winning class, in `bins` bins of equal width (Guo et al., 2017)."""
    weights = np.ones((1, len(labels))) if weights is None else weights
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = weights @ (np.eye(bins)[place] * (right - confidence)[:, None])
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1))


def confusion_counts(
    labels: Int64Array, pred: Int64Array, classes: int, weights: Float64Array | None = None
) -> Float64Array:
    """Weighted counts (R, K, K), rows actual and columns predicted, for weights (R, N); ones if None."""
    weights = np.ones((1, len(labels))) if weights is None else weights
    cells = np.eye(classes * classes)[labels * classes + pred]
    return np.asarray(weights @ cells).reshape(-1, classes, classes)


def macro_recall(counts: Float64Array) -> Float64Array:
    """Mean recall (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support = counts.sum(axis=2)
    with np.errstate(invalid="ignore"):
        recalls = np.diagonal(counts, axis1=1, axis2=2) / np.where(support, support, np.nan)
        return np.asarray(np.nanmean(recalls, axis=1))


def macro_f1(counts: Float64Array) -> Float64Array:
    """Mean F1 (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support, predicted = counts.sum(axis=2), counts.sum(axis=1)
    both = np.where(support, support + predicted, np.nan)
    return np.asarray(np.nanmean(2 * np.diagonal(counts, axis1=1, axis2=2) / both, axis=1))


def confusion_table(
    actual: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    columns: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row a cell of the confusion matrix, row by row; rows are the classes, columns these too if None.

    `predicted`: each sample's outcome (N,), a class or an outcome such as "refer"; `groups` as in `evaluate`.

    Returns:
        Columns actual, predicted, n (images in the cell), of (images in its row), share, low, high (of the row's
        images, with the Wilson interval), n_low, n_high (the same as counts, given the row's number) and few (the row
        has fewer than `FEW` images). share is NaN where the row is empty.
    """
    truth, outcomes = np.asarray(actual, dtype=object), np.asarray(predicted, dtype=object)
    names = group_names(groups, len(truth))
    rows = []
    for row in classes:
        mine = truth == row
        for column in columns or classes:
            cell = estimate_share(outcomes[mine] == column, names[mine])
            value = np.nan if cell.value is None else cell.value
            count = int((outcomes[mine] == column).sum())
            rows.append((row, column, count, cell.n, value, cell.low, cell.high, cell.low * cell.n, cell.high * cell.n,
                         cell.n < FEW))  # fmt: skip
    heads = ["actual", "predicted", "n", "of", "share", "low", "high", "n_low", "n_high", "few"]
    return pd.DataFrame(rows, columns=heads)


def most_confused(cells: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """The wrong cells of a `confusion_table` that hold images, the fullest first; to refer an image is not wrong."""
    wrong = cells[(cells["actual"] != cells["predicted"]) & cells["predicted"].isin(cells["actual"]) & (cells["n"] > 0)]
    return wrong.sort_values(["n", "share"], ascending=False, kind="stable").head(most).reset_index(drop=True)


def evaluate(
    probs: Float64Array, labels: Int64Array, classes: Sequence[str], groups: Sequence[str] | None = None, seed: int = 0
) -> EvaluationReport:
    """All metrics of probabilities (N, K) against labels (N,), with intervals.

    `labels`: index of the true class (N,). `groups`: each sample's group of near-duplicates (N,); its own if None.
    DataError where there is no sample.
    """
    n, k = probs.shape
    if n == 0:
        raise DataError("expected at least one labelled image to evaluate, got none")
    names = group_names(groups, n)
    pred = probs.argmax(axis=1)
    counts = confusion_counts(labels, pred, k)
    accuracy, trials = float(np.mean(pred == labels)), effective_observations(names)
    recalls = [estimate_share(pred[labels == c] == c, names[labels == c]) for c in range(k)]
    recall_bounds = [None if recall.value is None else (recall.low, recall.high) for recall in recalls]

    weights = group_weights(names, seed=seed)
    resampled = confusion_counts(labels, pred, k, weights)
    area, gap, harmonic = float(macro_auc(probs, labels)[0]), float(ece(probs, labels)[0]), float(macro_f1(counts)[0])
    intervals: dict[str, Any] = {
        "accuracy": wilson_interval(accuracy, trials),
        "macro_recall": mover_interval([recall.value for recall in recalls], recall_bounds),
        "macro_f1": basic_interval(harmonic, macro_f1(resampled), trials),
        "auc": None if np.isnan(area) else basic_interval(area, macro_auc(probs, labels, weights), trials),
        "ece": basic_interval(gap, ece(probs, labels, weights), trials),
        "recall": dict(zip(classes, recall_bounds, strict=True)),
    }
    return EvaluationReport(
        classes=tuple(classes), n=n, groups=len(np.unique(names)), accuracy=accuracy,
        macro_recall=float(macro_recall(counts)[0]), macro_f1=harmonic, auc=None if np.isnan(area) else area, ece=gap,
        recall={name: recall.value for name, recall in zip(classes, recalls, strict=True)},
        support={name: recall.n for name, recall in zip(classes, recalls, strict=True)},
        confusion=counts[0].astype(int).tolist(), intervals=intervals,
    )  # fmt: skip


def per_class_estimates(
    probs: Float64Array, labels: Int64Array, classes: Sequence[str], groups: Sequence[str] | None = None, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """For each class its recall, precision, f1, auc and average_precision (one class against the rest).

    Shares have Wilson intervals from the effective observations, the others basic intervals of a bootstrap over groups.
    """
    names = group_names(groups, len(labels))
    pred = probs.argmax(axis=1)
    weights = group_weights(names, seed=seed)
    return {
        name: class_estimates(probs[:, k], labels == k, pred == k, names, weights) for k, name in enumerate(classes)
    }


def class_estimates(
    scores: Float64Array, actual: BoolArray, predicted: BoolArray, names: StrArray, weights: Float64Array
) -> dict[str, Estimate]:
    """What `per_class_estimates` gives, of one class: scores, whether it is there and named (N,), weights (R, N)."""
    n, effective = int(actual.sum()), effective_observations(names[actual])
    nothing = Estimate(None, 0.0, 1.0, n, effective)
    estimates = {
        "recall": estimate_share(predicted[actual], names[actual]),
        "precision": estimate_share(actual[predicted], names[predicted]),
        "f1": nothing,
        "auc": nothing,
        "average_precision": nothing,
    }
    if n:
        both = weights @ np.stack([actual & predicted, actual, predicted], axis=1).astype(np.float64)  # (R, 3)
        value = 2 * float((actual & predicted).sum()) / float(actual.sum() + predicted.sum())
        with np.errstate(invalid="ignore"):
            resampled = 2 * both[:, 0] / (both[:, 1] + both[:, 2])
        estimates["f1"] = bootstrap_estimate(value, resampled, n, effective)
    if 0 < n < len(actual):
        for key, metric in {"auc": auc, "average_precision": average_precision}.items():
            value = float(metric(scores, actual)[0])
            estimates[key] = bootstrap_estimate(value, metric(scores, actual, weights), n, effective)
    return estimates


def chance_level(metrics: Mapping[str, Any]) -> tuple[str, float]:
    """Which of a card's metrics tells skill, and what a model that has learnt nothing reaches there."""
    if metrics.get("multi_label"):
        return "auc", 0.5
    return "macro_recall", 1 / max(sum(count > 0 for count in metrics["support"].values()), 1)


def beats_chance(metrics: Mapping[str, Any]) -> bool:
    """Whether the whole interval of the metric that tells skill lies above `chance_level`; an unknown one does not."""
    name, level = chance_level(metrics)
    low = (metrics["intervals"].get(name) or (None,))[0]
    return low is not None and low > level
