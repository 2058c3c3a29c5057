"""Probabilities, confusion matrix, recall, precision, F1, AUC, average precision and calibration, with intervals.

Every figure is a function of a weight for each sample, (R, N), so that a bootstrap over groups is one matrix product
instead of a thousand calls of scikit-learn, which serves as the oracle in the tests.

Legend: N samples, K classes, R resamples, B bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from steel_core.errors import DataError
from steel_core.metrics.intervals import (
    Bools,
    Figure,
    Floats,
    Ints,
    basic,
    effective_observations,
    group_names,
    group_weights,
    mover,
    share,
    wilson,
)

ECE_BINS = 15
FEW = 30
"""Below so many images a figure says little; pages grey it."""

_BLOCK = 2_000_000  # numbers in a block of resampled weights: what a processor's cache holds


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Figures of one checkpoint on one set of images, each with its 95 % interval.

    `accuracy` and `recall` have Wilson intervals, `macro_recall` the MOVER interval built from them (Zou and Donner,
    Statistics in Medicine 27, 2008). Their number of observations is Kish's effective one, as if near-duplicates of one
    group were all right or all wrong together: the careful end. `macro_f1`, `auc` and `ece` have basic intervals of a
    bootstrap over groups; where no resample differs, which says nothing, the Wilson interval of the figure as a share
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


def probabilities(logits: Floats, head: str, temperature: float = 1.0) -> Floats:
    """Probabilities (N, K) of logits (N, K): "softmax" over the classes, or "sigmoid" for each class alone.

    Never quite 1, so that a threshold of 1 refers every image.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.minimum(softmax(scaled, axis=1) if head == "softmax" else expit(scaled), np.nextafter(1.0, 0.0))


def fit_temperature(logits: Floats, labels: Ints | Floats, head: str) -> float:
    """The temperature that minimises the `losses` of (N, K) logits of a validation split; labels as there.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    def loss(log_temperature: float) -> float:
        return float(losses(logits, labels, head, float(np.exp(log_temperature))).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def losses(logits: Floats, labels: Ints | Floats, head: str, temperature: float = 1.0) -> Floats:
    """Negative log likelihood (N,) of the true classes under logits (N, K); NaN where they are not known.

    With a sigmoid head the sum of the binary cross-entropies of the K classes.

    Args:
        logits: (N, K).
        labels: number of the true class (N,), -1 where it is not known; or targets (N, K) of `multi_label.targets`.
        head: "softmax" or "sigmoid".
        temperature: the logits are divided by it.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    hot = np.asarray(labels, dtype=np.float64)
    if hot.ndim == 1:
        hot = np.where(np.asarray(labels)[:, None] >= 0, np.eye(scaled.shape[1])[np.asarray(labels)], np.nan)
    if head == "softmax":
        return np.asarray(-(hot * log_softmax(scaled, axis=1)).sum(axis=1))
    return np.asarray((np.logaddexp(0, scaled) - hot * scaled).sum(axis=1))


def refer_thresholds(probs: Floats, labels: Ints, precision: float = 0.99, quantile: float = 0.02) -> Floats:
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


def confusion(labels: Ints, pred: Ints, classes: int, weights: Floats | None = None) -> Floats:
    """Weighted counts (R, K, K), rows actual and columns predicted, for weights (R, N); ones if None."""
    weights = np.ones((1, len(labels))) if weights is None else weights
    cells = np.eye(classes * classes)[labels * classes + pred]
    return np.asarray(weights @ cells).reshape(-1, classes, classes)


def macro_recall(counts: Floats) -> Floats:
    """Mean recall (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support = counts.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.nanmean(np.diagonal(counts, axis1=1, axis2=2) / np.where(support, support, np.nan), axis=1)
        )


def macro_f1(counts: Floats) -> Floats:
    """Mean F1 (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support, predicted = counts.sum(axis=2), counts.sum(axis=1)
    both = np.where(support, support + predicted, np.nan)
    return np.asarray(np.nanmean(2 * np.diagonal(counts, axis1=1, axis2=2) / both, axis=1))


def auc(scores: Floats, positive: Bools, weights: Floats | None = None) -> Floats:
    """Weighted area under the ROC curve (R,) of scores (N,), ties counted half; NaN where one side is empty."""

    def area(up: Floats, down: Floats) -> Floats:
        below = np.cumsum(down, axis=1) - down / 2
        return np.asarray((up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))

    return _over_ranks(area, scores, positive, weights)


def average_precision(scores: Floats, positive: Bools, weights: Floats | None = None) -> Floats:
    """Weighted average precision (R,) of scores (N,): precision summed over the steps of recall; NaN without positives.

    Equal scores are one step, as in scikit-learn.
    """

    def precision(up: Floats, down: Floats) -> Floats:
        found = np.cumsum(up[:, ::-1], axis=1)
        called = np.maximum(found + np.cumsum(down[:, ::-1], axis=1), np.finfo(np.float64).tiny)
        return np.asarray((up[:, ::-1] * found / called).sum(axis=1) / up.sum(axis=1))

    return _over_ranks(precision, scores, positive, weights)


def _over_ranks(
    figure: Callable[[Floats, Floats], Floats], scores: Floats, positive: Bools, weights: Floats | None
) -> Floats:
    """`figure` of the weights of positives and negatives (R, T) at each of the T different scores, from low to high."""
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
            out.append(figure(up, down))
    return np.concatenate(out)


def macro_auc(probs: Floats, labels: Ints, weights: Floats | None = None) -> Floats:
    """Mean over the classes of one class against the rest (R,); NaN where no class has both sides."""
    each = np.stack([auc(probs[:, k], labels == k, weights) for k in range(probs.shape[1])])
    seen = ~np.isnan(each)
    total = np.where(seen, each, 0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), np.nan)


def ece(probs: Floats, labels: Ints, weights: Floats | None = None, bins: int = ECE_BINS) -> Floats:
    """Expected calibration error (R,) of the winning class, in `bins` bins of equal width (Guo et al., 2017)."""
    weights = np.ones((1, len(labels))) if weights is None else weights
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = weights @ (np.eye(bins)[place] * (right - confidence)[:, None])
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1))


def evaluate(
    probs: Floats, labels: Ints, classes: Sequence[str], groups: Sequence[str] | None = None, seed: int = 0
) -> EvaluationReport:
    """All figures of probabilities (N, K) against labels (N,), with intervals.

    Args:
        probs: probabilities (N, K).
        labels: index of the true class (N,).
        classes: names of the K classes.
        groups: the group of near-duplicates each sample belongs to; each sample is its own group if None.
        seed: of the bootstrap.

    Raises:
        DataError: there is no sample.
    """
    n, k = probs.shape
    if n == 0:
        raise DataError("expected at least one labelled image to evaluate, got none")
    names = group_names(groups, n)
    pred = probs.argmax(axis=1)
    counts = confusion(labels, pred, k)
    support, hits = counts[0].sum(axis=1).astype(int), np.diagonal(counts[0])
    trials = effective_observations(names)
    recalls = [hits[c] / support[c] if support[c] else None for c in range(k)]
    recall_bounds = [
        None if share is None else wilson(share, effective_observations(names[labels == c]))
        for c, share in enumerate(recalls)
    ]

    weights = group_weights(names, seed=seed)
    resampled = confusion(labels, pred, k, weights)
    area, gap = float(macro_auc(probs, labels)[0]), float(ece(probs, labels)[0])
    harmonic = float(macro_f1(counts)[0])
    mean_recall = float(macro_recall(counts)[0])
    right = int((pred == labels).sum())
    intervals: dict[str, Any] = {
        "accuracy": wilson(right / n, trials),
        "macro_recall": mover(recalls, recall_bounds),
        "macro_f1": basic(harmonic, macro_f1(resampled), trials),
        "auc": None if np.isnan(area) else basic(area, macro_auc(probs, labels, weights), trials),
        "ece": basic(gap, ece(probs, labels, weights), trials),
        "recall": dict(zip(classes, recall_bounds, strict=True)),
    }
    return EvaluationReport(
        classes=tuple(classes),
        n=n,
        groups=len(np.unique(names)),
        accuracy=right / n,
        macro_recall=mean_recall,
        macro_f1=harmonic,
        auc=None if np.isnan(area) else area,
        ece=gap,
        recall=dict(zip(classes, [None if r is None else float(r) for r in recalls], strict=True)),
        support=dict(zip(classes, support.tolist(), strict=True)),
        confusion=counts[0].astype(int).tolist(),
        intervals=intervals,
    )


def per_class(
    probs: Floats, labels: Ints, classes: Sequence[str], groups: Sequence[str] | None = None, seed: int = 0
) -> dict[str, dict[str, Figure]]:
    """For each class its recall, precision, f1, auc and average_precision (one class against the rest).

    Shares have Wilson intervals from the effective observations, the others basic intervals of a bootstrap over groups.

    Args:
        probs: probabilities (N, K); the largest is the prediction.
        labels: index of the true class (N,).
        classes: names of the K classes.
        groups: the group of near-duplicates each sample belongs to; each sample is its own group if None.
        seed: of the bootstrap.
    """
    names = group_names(groups, len(labels))
    pred = probs.argmax(axis=1)
    weights = group_weights(names, seed=seed)
    return {name: class_figures(probs[:, k], labels == k, pred == k, names, weights) for k, name in enumerate(classes)}


def class_figures(
    scores: Floats, actual: Bools, called: Bools, names: npt.NDArray[np.str_], weights: Floats
) -> dict[str, Figure]:
    """Recall, precision, f1, auc and average_precision of one class, with the intervals of `per_class`.

    Args:
        scores: the higher, the more likely the class (N,).
        actual: whether it is there (N,).
        called: whether it is named (N,).
        names: of the samples' groups (N,).
        weights: of `group_weights` (R, N).
    """
    n, effective = int(actual.sum()), effective_observations(names[actual])
    nothing = Figure(None, 0.0, 1.0, n, effective)
    found = {
        "recall": share(called[actual], names[actual]),
        "precision": share(actual[called], names[called]),
        "f1": nothing,
        "auc": nothing,
        "average_precision": nothing,
    }
    if n:
        both = weights @ np.stack([actual & called, actual, called], axis=1).astype(np.float64)  # (R, 3)
        value = 2 * float((actual & called).sum()) / float(actual.sum() + called.sum())
        with np.errstate(invalid="ignore"):
            resampled = 2 * both[:, 0] / (both[:, 1] + both[:, 2])
        found["f1"] = Figure(value, *basic(value, resampled, effective), n, effective)
    if 0 < n < len(actual):
        for key, figure in {"auc": auc, "average_precision": average_precision}.items():
            value = float(figure(scores, actual)[0])
            found[key] = Figure(value, *basic(value, figure(scores, actual, weights), effective), n, effective)
    return found


def confusion_table(
    actual: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    columns: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row a cell of the confusion matrix, row by row.

    Args:
        actual: true class of each sample (N,).
        predicted: what it was called (N,), a class or an outcome such as "refer".
        classes: the matrix's rows.
        columns: the matrix's columns; the classes if None.
        groups: as in `per_class`.

    Returns:
        Columns actual, predicted, n (images in the cell), of (images in its row), share, low, high (of the row's
        images, with the Wilson interval), n_low, n_high (the same as counts, given the row's number) and few (the row
        has fewer than `FEW` images). share is NaN where the row is empty.
    """
    truth, called = np.asarray(actual, dtype=object), np.asarray(predicted, dtype=object)
    names = group_names(groups, len(truth))
    rows = []
    for row in classes:
        mine = truth == row
        for column in columns or classes:
            cell = share(called[mine] == column, names[mine])
            value = np.nan if cell.value is None else cell.value
            count = int((called[mine] == column).sum())
            rows.append((row, column, count, cell.n, value, cell.low, cell.high, cell.low * cell.n, cell.high * cell.n,
                         cell.n < FEW))  # fmt: skip
    names_of = ["actual", "predicted", "n", "of", "share", "low", "high", "n_low", "n_high", "few"]
    return pd.DataFrame(rows, columns=names_of)


def chance(figures: Mapping[str, Any]) -> tuple[str, float]:
    """Which of a card's figures tells skill, and what a model that has learnt nothing reaches there.

    Args:
        figures: of one part of the data, as `EvaluationReport.to_json` gives them.
    """
    if figures.get("multi_label"):
        return "auc", 0.5
    return "macro_recall", 1 / max(sum(count > 0 for count in figures["support"].values()), 1)


def beats_chance(figures: Mapping[str, Any]) -> bool:
    """Whether the whole interval of the figure that tells skill lies above `chance`; an unknown figure does not."""
    name, level = chance(figures)
    low = (figures["intervals"].get(name) or (None,))[0]
    return low is not None and low > level


def most_confused(cells: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """The wrong cells of a `confusion_table` that hold images, the fullest first; to refer an image is not wrong."""
    wrong = cells[(cells["actual"] != cells["predicted"]) & cells["predicted"].isin(cells["actual"]) & (cells["n"] > 0)]
    return wrong.sort_values(["n", "share"], ascending=False, kind="stable").head(most).reset_index(drop=True)
