"""Pure functions on arrays: confusion matrix, recall, F1, AUC, calibration, thresholds, and their 95 % intervals.

Every figure is a function of a weight for each sample, (R, N), so that a bootstrap over groups is one matrix product
instead of a thousand calls of scikit-learn, which serves as the oracle in the tests.

Legend: N samples, K classes, R resamples, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from scipy.stats import norm

from steel_core.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES = 1000
ECE_BINS = 15


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
    """Probabilities (N, K) of logits (N, K): "softmax" over the classes, or "sigmoid" for each class alone."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.asarray(softmax(scaled, axis=1) if head == "softmax" else expit(scaled))


def fit_temperature(logits: Floats, labels: Ints, head: str) -> float:
    """The temperature that minimises the negative log likelihood on (N, K) logits of a validation split.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    hot = np.eye(logits.shape[1])[labels]

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if head == "softmax":
            return float(-(hot * log_softmax(scaled, axis=1)).sum(axis=1).mean())
        return float((np.logaddexp(0, scaled) - hot * scaled).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


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
        last = int(np.flatnonzero(enough)[-1]) if enough.any() else -1
        precise = scores[last] if last >= 0 else 1.0
        if last == len(scores) - 1:
            precise = 0.5  # every prediction of this class may pass
        thresholds[k] = np.clip(max(precise, np.quantile(scores[right], quantile)), 0.5, 0.99)
    return thresholds


def wilson(share: float, n: float) -> Interval:
    """95 % Wilson score interval of a proportion, from `n` independent observations, which need not be a whole number.

    Source: Wilson, Journal of the American Statistical Association 22, 1927.
    """
    if n <= 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.975))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(max(share * (1 - share), 0.0) / n + z**2 / (4 * n**2)))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def effective_observations(groups: npt.NDArray[Any]) -> float:
    """Kish's effective number of observations where those of one group tell the same.

    Source: Kish, Survey Sampling, 1965.
    """
    if not len(groups):
        return 0.0
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


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


def auc(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """Weighted area under the ROC curve (R,) of scores (N,), ties counted half; NaN where one side is empty."""
    weights = np.ones((1, len(scores))) if weights is None else weights
    _, tie = np.unique(scores, return_inverse=True)
    starts = np.flatnonzero(np.r_[True, np.diff(np.sort(tie)) > 0])
    order = np.argsort(tie, kind="stable")
    up = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    down = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))


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


def group_weights(groups: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Bootstrap weights (R, N): groups are drawn with replacement, and their samples come along."""
    _, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    count = int(place.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, place].astype(np.float64)


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
    groups = [str(i) for i in range(n)] if groups is None else groups
    names = np.asarray(groups, dtype=object).astype(str)
    pred = probs.argmax(axis=1)
    counts = confusion(labels, pred, k)
    support, hits = counts[0].sum(axis=1).astype(int), np.diagonal(counts[0])
    trials = effective_observations(names)
    recalls = [hits[c] / support[c] if support[c] else None for c in range(k)]
    recall_bounds = [
        None if share is None else wilson(share, effective_observations(names[labels == c]))
        for c, share in enumerate(recalls)
    ]

    weights = group_weights(list(names), seed=seed)
    resampled = confusion(labels, pred, k, weights)
    area, gap = float(macro_auc(probs, labels)[0]), float(ece(probs, labels)[0])
    harmonic = float(macro_f1(counts)[0])
    mean_recall = float(macro_recall(counts)[0])
    right = int((pred == labels).sum())
    intervals: dict[str, Any] = {
        "accuracy": wilson(right / n, trials),
        "macro_recall": _mover(recalls, recall_bounds),
        "macro_f1": _basic(harmonic, macro_f1(resampled), trials),
        "auc": None if np.isnan(area) else _basic(area, macro_auc(probs, labels, weights), trials),
        "ece": _basic(gap, ece(probs, labels, weights), trials),
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


def _mover(shares: Sequence[float | None], bounds: Sequence[Interval | None]) -> Interval:
    """Interval of a mean of independent proportions, from the interval of each."""
    present = [(s, b) for s, b in zip(shares, bounds, strict=True) if s is not None and b is not None]
    mean = sum(s for s, _ in present) / len(present)
    down = sum((s - b[0]) ** 2 for s, b in present) ** 0.5 / len(present)
    up = sum((b[1] - s) ** 2 for s, b in present) ** 0.5 / len(present)
    return max(0.0, mean - down), min(1.0, mean + up)


def _basic(value: float, resampled: Floats, trials: float) -> Interval:
    """Basic bootstrap interval of a figure between 0 and 1; it holds the figure, though its resamples may be biased."""
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    if high - low < 1e-9:
        return wilson(value, trials)
    return max(0.0, min(2 * value - float(high), value)), min(1.0, max(2 * value - float(low), value))
