"""Several defect types in one image: what the truth is, what the verdict on a sheet is, and how good that is.

This is the one place that decides what multi-label means; readers, training, prediction and pages follow it.

- The classes are the defect types alone. The truth is one row of 0 and 1 an image, a column a type; a sheet that is
  labelled "clear" is the row of zeros. A label that is missing or unknown makes a row of NaN, which counts nowhere.
- Each type has a probability of its own (a sigmoid). The types whose probability reaches their threshold are named.
- "clear" is no class. Its probability is 1 less that of the likeliest type: the probability that all are absent is at
  most so large. It has a threshold like any class, under the name "clear".
- The outcome for the sheet: "defect" where any type is named; "clear" where its probability reaches its threshold; a
  person decides ("refer") where neither does. Where a plant's thresholds allow both, it is "defect".

So a verdict on a sheet is a question of two classes, `VERDICTS`, and all that is known of such questions (thresholds,
escapes, costs, risk against coverage) holds for `verdict_probs`. A confusion matrix between the types does not exist:
an image belongs to no single row. Each type has a table of two by two instead, and the verdicts have their matrix.

Legend: N images, K types, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from steel_core.errors import DataError
from steel_core.metrics.classification import (
    WeightedMetric,
    auc,
    average_precision,
    class_estimates,
    ece,
    fit_refer_thresholds,
)
from steel_core.metrics.intervals import (
    Estimate,
    bootstrap_estimate,
    effective_observations,
    estimate_share,
    group_names,
    group_weights,
    mean_of_known,
)
from steel_core.types import CLEAR, DEFECT, REFER, BoolArray, Float64Array, Int64Array, ObjectArray

VERDICTS = (CLEAR, DEFECT)

NEVER = 1.0
"""A threshold that no probability reaches: of "clear", where no clear sheet was seen."""

_RIGHT = 0.99  # share of the sheets called clear that must be clear


@dataclass(frozen=True, slots=True)
class MultiLabelReport:
    """Metrics of one multi-label checkpoint on one set of images, each with its 95 % interval.

    Attributes:
        estimates: mean_average_precision, auc and macro_f1 (means over the types that occur and are not everywhere),
            exact_match (share of images whose named types are the true ones, and no other), ece (mean over the types of
            the calibration error of whether the type is there), escape (share of defective sheets that are called
            clear), false_call (share of clear sheets that are called defective), referred (share that a person must
            decide). Shares have Wilson intervals, the others basic intervals of a bootstrap over groups.
        tables: for each type the images that are found, missed, false (named and not there) and absent (neither).
    """

    classes: tuple[str, ...]
    n: int
    groups: int
    estimates: dict[str, Estimate]
    per_class: dict[str, dict[str, Estimate]]
    tables: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write; a value stands under its metric's name, its ends under `intervals`."""
        return {
            "multi_label": True,
            "classes": self.classes,
            "n": self.n,
            "groups": self.groups,
            **{name: estimate.value for name, estimate in self.estimates.items()},
            "intervals": {name: (estimate.low, estimate.high) for name, estimate in self.estimates.items()},
            "counted": {name: estimate.n for name, estimate in self.estimates.items()},
            "per_class": {
                name: {key: estimate._asdict() for key, estimate in row.items()} for name, row in self.per_class.items()
            },
            "tables": self.tables,
        }


def defect_types(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that a multi-label checkpoint knows: all but "clear"."""
    return tuple(name for name in classes if name != CLEAR)


def encode_targets(labels: Sequence[str], classes: Sequence[str]) -> Float64Array:
    """The truth (N, K): 1 where an image has a type, 0 where not, NaN where its labels (N,) are missing or unknown."""
    columns = {name: k for k, name in enumerate(classes)}
    truth = np.zeros((len(labels), len(classes)))
    for row, cell in zip(truth, labels, strict=True):
        names = set(cell.split("|"))
        if names == {CLEAR}:
            continue
        if names <= columns.keys():
            row[[columns[name] for name in names]] = 1.0
        else:
            row[:] = np.nan
    return truth


def verdict_probs(probs: Float64Array) -> Float64Array:
    """Probability of each of `VERDICTS` (N, 2) from those of the types (N, K); never quite 1."""
    likeliest = probs.max(axis=1)
    return np.minimum(np.stack([1 - likeliest, likeliest], axis=1), np.nextafter(1.0, 0.0))


def named_types(probs: Float64Array, classes: Sequence[str], thresholds: Mapping[str, float]) -> BoolArray:
    """Which types are named (N, K): those whose probability reaches their threshold (one half if unset)."""
    return np.asarray(probs >= np.array([thresholds.get(name, 0.5) for name in classes]))


def decide_outcomes(probs: Float64Array, classes: Sequence[str], thresholds: Mapping[str, float]) -> ObjectArray:
    """The outcome of each sheet (N,): "defect", "clear" or "refer"."""
    clear = verdict_probs(probs)[:, 0] >= thresholds.get(CLEAR, NEVER)
    any_named = named_types(probs, classes, thresholds).any(axis=1)
    return np.where(any_named, DEFECT, np.where(clear, CLEAR, REFER)).astype(object)


def fit_thresholds(probs: Float64Array, truth: Float64Array, classes: Sequence[str]) -> dict[str, float]:
    """Thresholds of the types and of "clear" from a validation split, each as `fit_refer_thresholds` sets it.

    That of "clear" is stricter, because it lets sheets out: where more than 1 % of the sheets that pass would be
    defective all the same, only those pass that are surer than every defective sheet. Where no sheet is clear, nothing
    is known of clear sheets, and it is `NEVER`. From calibrated probabilities and a truth (N, K) without NaN.
    """
    lines = {}
    for k, name in enumerate(classes):
        answer = np.stack([probs[:, k], 1 - probs[:, k]], axis=1)  # "there" first: one half is enough to be named
        lines[name] = float(fit_refer_thresholds(answer, (truth[:, k] == 0).astype(np.int64))[0])
    lines[CLEAR] = _clear_threshold(verdict_probs(probs), np.asarray(truth.any(axis=1), dtype=np.int64))
    return lines


def _clear_threshold(verdict: Float64Array, defective: Int64Array) -> float:
    if defective.all():
        return NEVER
    line = float(fit_refer_thresholds(verdict, defective)[0])
    passed = verdict[:, 0] >= line
    if (passed & (defective == 1)).sum() > (1 - _RIGHT) * passed.sum():
        line = float(np.nextafter(verdict[defective == 1, 0].max(), NEVER))
    return line


def evaluate(
    probs: Float64Array,
    truth: Float64Array,
    classes: Sequence[str],
    predicted: BoolArray,
    outcomes: Sequence[str] | ObjectArray,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> MultiLabelReport:
    """All metrics of probabilities (N, K) against the truth of `encode_targets`, without NaN, with intervals.

    `predicted` is of `named_types`, `outcomes` of `decide_outcomes`, `groups` (N,) of near-duplicates. DataError where
    there is no image.
    """
    n = len(probs)
    if not n:
        raise DataError("expected at least one labelled image to evaluate, got none")
    names = group_names(groups, n)
    weights = group_weights(names, seed=seed)
    actual, outcome = truth > 0, np.asarray(outcomes, dtype=object)
    defective = actual.any(axis=1)
    trials = effective_observations(names)

    def estimate(metric: WeightedMetric, scores: Float64Array) -> Estimate:
        value = float(metric(scores, truth, None)[0])
        return bootstrap_estimate(value, metric(scores, truth, weights), n, trials)

    return MultiLabelReport(
        classes=tuple(classes),
        n=n,
        groups=len(np.unique(names)),
        estimates={
            "mean_average_precision": estimate(mean_average_precision, probs),
            "auc": estimate(mean_auc, probs),
            "macro_f1": estimate(mean_f1, predicted.astype(np.float64)),
            "exact_match": estimate_share((actual == predicted).all(axis=1), names),
            "ece": estimate(mean_ece, probs),
            "escape": estimate_share(outcome[defective] == CLEAR, names[defective]),
            "false_call": estimate_share(outcome[~defective] == DEFECT, names[~defective]),
            "referred": estimate_share(~np.isin(outcome, VERDICTS), names),
        },
        per_class={
            name: class_estimates(probs[:, k], actual[:, k], predicted[:, k], names, weights)
            for k, name in enumerate(classes)
        },
        tables={name: _two_by_two(actual[:, k], predicted[:, k]) for k, name in enumerate(classes)},
    )


def _two_by_two(actual: BoolArray, predicted: BoolArray) -> dict[str, int]:
    cells = (actual & predicted, actual & ~predicted, ~actual & predicted, ~actual & ~predicted)
    return {name: int(cell.sum()) for name, cell in zip(("found", "missed", "false", "absent"), cells, strict=True)}


def _f1(predicted: Float64Array, actual: BoolArray, weights: Float64Array | None) -> Float64Array:
    weights = np.ones((1, len(predicted))) if weights is None else weights
    return np.asarray(2 * (weights @ (actual * predicted)) / (weights @ actual + weights @ predicted))


def _binary_ece(scores: Float64Array, actual: BoolArray, weights: Float64Array | None) -> Float64Array:
    return ece(np.stack([1 - scores, scores], axis=1), actual.astype(np.int64), weights)


def _mean_over_types(
    metric: WeightedMetric, scores: Float64Array, truth: Float64Array, weights: Float64Array | None = None
) -> Float64Array:
    """Mean (R,) of a metric over the types that occur and are not everywhere; NaN without one.

    A resample may lack a type. `scores` are probabilities (N, K), for F1 whether a type is named, 0 or 1; for weights
    (R, N), ones if None. The calibration error is that of the answer whether a type is there.
    """
    occurs = np.flatnonzero((truth > 0).any(axis=0) & ~(truth > 0).all(axis=0))
    if not len(occurs):
        return np.full(1 if weights is None else len(weights), np.nan)
    with np.errstate(invalid="ignore"):
        each = np.stack([metric(scores[:, k], truth[:, k] > 0, weights) for k in occurs])
    return np.nan_to_num(mean_of_known(each))  # a resample without any type counts as 0


mean_average_precision = partial(_mean_over_types, average_precision)
"""Mean (R,) over the types, of probabilities (N, K), truth (N, K) and weights (R, N)."""

mean_auc = partial(_mean_over_types, auc)
"""The same of the area under the ROC curve."""

mean_f1 = partial(_mean_over_types, _f1)
"""The same of F1; its first argument is whether a type is named, 0 or 1."""

mean_ece = partial(_mean_over_types, _binary_ece)
"""The same of the calibration error of the answer whether a type is there."""
