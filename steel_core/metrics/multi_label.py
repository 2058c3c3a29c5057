"""Several defect types in one image: what the truth is, what is said of a sheet, and how good that is.

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

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core.errors import DataError
from steel_core.metrics.figures import (
    auc,
    average_precision,
    class_figures,
    ece,
    refer_thresholds,
)
from steel_core.metrics.intervals import (
    Bools,
    Figure,
    Floats,
    Ints,
    basic,
    effective_observations,
    group_names,
    group_weights,
    share,
)
from steel_core.types import CLEAR, DEFECT, REFER

VERDICTS = (CLEAR, DEFECT)
"""The classes of the question that a verdict on a sheet answers."""

NEVER = 1.0
"""A threshold that no probability reaches: of "clear", where no clear sheet was seen."""

_RIGHT = 0.99  # share of the sheets called clear that must be clear


@dataclass(frozen=True, slots=True)
class MultiLabelReport:
    """Figures of one multi-label checkpoint on one set of images, each with its 95 % interval.

    Attributes:
        classes: the defect types.
        n: images.
        groups: groups of near-duplicates among them.
        figures: mean_average_precision, auc and macro_f1 (means over the types that occur and are not everywhere, the
            last at their thresholds), exact_match (share of images whose named types are the true
            ones, all of them and no other), ece (mean over the types of the calibration error of the answer whether
            the type is there), escape (share of defective sheets that are called clear), false_call (share of clear
            sheets that are called defective), referred (share of images that a person must decide). Shares have Wilson
            intervals, the others basic intervals of a bootstrap over groups.
        per_class: for each type the recall, precision, f1, auc and average_precision, see `metrics.per_class`.
        tables: for each type the images that are found, missed, false (named and not there) and absent (neither).
    """

    classes: tuple[str, ...]
    n: int
    groups: int
    figures: dict[str, Figure]
    per_class: dict[str, dict[str, Figure]]
    tables: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write; a figure stands under its name, its ends under `intervals`."""
        return {
            "multi_label": True,
            "classes": self.classes,
            "n": self.n,
            "groups": self.groups,
            **{name: figure.value for name, figure in self.figures.items()},
            "intervals": {name: (figure.low, figure.high) for name, figure in self.figures.items()},
            "counted": {name: figure.n for name, figure in self.figures.items()},
            "per_class": {
                name: {key: figure._asdict() for key, figure in row.items()} for name, row in self.per_class.items()
            },
            "tables": self.tables,
        }


def defect_types(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that a multi-label checkpoint knows: all but "clear"."""
    return tuple(name for name in classes if name != CLEAR)


def targets(labels: Sequence[str], classes: Sequence[str]) -> Floats:
    """The truth (N, K): 1 where an image has a type, 0 where not, NaN where its labels are missing or unknown.

    Args:
        labels: of each image (N,), "|" between several, as in `DatasetIndex.table`.
        classes: the K defect types.
    """
    known = {name: k for k, name in enumerate(classes)}
    truth = np.zeros((len(labels), len(classes)))
    for row, cell in zip(truth, labels, strict=True):
        named = set(cell.split("|"))
        if named == {CLEAR}:
            continue
        if named <= known.keys():
            row[[known[name] for name in named]] = 1.0
        else:
            row[:] = np.nan
    return truth


def verdict_probs(probs: Floats) -> Floats:
    """Probability of each of `VERDICTS` (N, 2) from those of the types (N, K); never quite 1."""
    likeliest = probs.max(axis=1)
    return np.minimum(np.stack([1 - likeliest, likeliest], axis=1), np.nextafter(1.0, 0.0))


def named(probs: Floats, classes: Sequence[str], thresholds: Mapping[str, float]) -> Bools:
    """Which types are named (N, K): those whose probability reaches their threshold (one half if unset)."""
    return np.asarray(probs >= np.array([thresholds.get(name, 0.5) for name in classes]))


def outcomes(probs: Floats, classes: Sequence[str], thresholds: Mapping[str, float]) -> npt.NDArray[np.object_]:
    """What is said of each sheet (N,): "defect", "clear" or "refer"."""
    clear = verdict_probs(probs)[:, 0] >= thresholds.get(CLEAR, NEVER)
    any_named = named(probs, classes, thresholds).any(axis=1)
    return np.where(any_named, DEFECT, np.where(clear, CLEAR, REFER)).astype(object)


def fit_thresholds(probs: Floats, truth: Floats, classes: Sequence[str]) -> dict[str, float]:
    """Thresholds of the types and of "clear" from a validation split, each as `refer_thresholds` sets it.

    That of "clear" is stricter, because it lets sheets out: where more than 1 % of the sheets that pass would be
    defective all the same, only those pass that are surer than every defective sheet. Where no sheet is clear, nothing
    is known of clear sheets, and it is `NEVER`.

    Args:
        probs: calibrated probabilities (N, K).
        truth: of `targets` (N, K), without NaN.
        classes: the K types.
    """
    lines = {}
    for k, name in enumerate(classes):
        answer = np.stack([probs[:, k], 1 - probs[:, k]], axis=1)  # "there" first: one half is enough to be named
        lines[name] = float(refer_thresholds(answer, (truth[:, k] == 0).astype(np.int64))[0])
    lines[CLEAR] = _clear_threshold(verdict_probs(probs), np.asarray(truth.any(axis=1), dtype=np.int64))
    return lines


def _clear_threshold(verdict: Floats, defective: Ints) -> float:
    if defective.all():
        return NEVER
    line = float(refer_thresholds(verdict, defective)[0])
    passed = verdict[:, 0] >= line
    if (passed & (defective == 1)).sum() > (1 - _RIGHT) * passed.sum():
        line = float(np.nextafter(verdict[defective == 1, 0].max(), NEVER))
    return line


def evaluate(
    probs: Floats,
    truth: Floats,
    classes: Sequence[str],
    called: Bools,
    said: Sequence[str] | npt.NDArray[np.object_],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> MultiLabelReport:
    """All figures of probabilities against the truth, with intervals.

    Args:
        probs: probabilities (N, K).
        truth: of `targets` (N, K), without NaN.
        classes: the K types.
        called: the types that were named (N, K), see `named`.
        said: the outcome of each image (N,), see `outcomes`.
        groups: the group of near-duplicates each image belongs to; each image is its own group if None.
        seed: of the bootstrap.

    Raises:
        DataError: there is no image.
    """
    n = len(probs)
    if not n:
        raise DataError("expected at least one labelled image to evaluate, got none")
    names = group_names(groups, n)
    weights = group_weights(names, seed=seed)
    actual, outcome = truth > 0, np.asarray(said, dtype=object)
    defective = actual.any(axis=1)
    trials = effective_observations(names)

    def mean(figure: Callable[[Floats, Floats, Floats | None], Floats], scores: Floats) -> Figure:
        value = float(figure(scores, truth, None)[0])
        if np.isnan(value):
            return Figure(None, 0.0, 1.0, n, trials)
        return Figure(value, *basic(value, figure(scores, truth, weights), trials), n, trials)

    return MultiLabelReport(
        classes=tuple(classes),
        n=n,
        groups=len(np.unique(names)),
        figures={
            "mean_average_precision": mean(mean_average_precision, probs),
            "auc": mean(mean_auc, probs),
            "macro_f1": mean(mean_f1, called.astype(np.float64)),
            "exact_match": share((actual == called).all(axis=1), names),
            "ece": mean(mean_ece, probs),
            "escape": share(outcome[defective] == CLEAR, names[defective]),
            "false_call": share(outcome[~defective] == DEFECT, names[~defective]),
            "referred": share(~np.isin(outcome, VERDICTS), names),
        },
        per_class={
            name: class_figures(probs[:, k], actual[:, k], called[:, k], names, weights)
            for k, name in enumerate(classes)
        },
        tables={
            name: {
                "found": int((actual[:, k] & called[:, k]).sum()),
                "missed": int((actual[:, k] & ~called[:, k]).sum()),
                "false": int((~actual[:, k] & called[:, k]).sum()),
                "absent": int((~actual[:, k] & ~called[:, k]).sum()),
            }
            for k, name in enumerate(classes)
        },
    )


def mean_average_precision(probs: Floats, truth: Floats, weights: Floats | None = None) -> Floats:
    """Mean average precision (R,) of the types that occur and are not everywhere, for weights (R, N).

    Args:
        probs: (N, K).
        truth: of `targets` (N, K), without NaN.
        weights: of the images (R, N); ones if None.
    """
    return _mean(average_precision, probs, truth, weights)


def mean_auc(probs: Floats, truth: Floats, weights: Floats | None = None) -> Floats:
    """Mean area under the ROC curve (R,), as `mean_average_precision`."""
    return _mean(auc, probs, truth, weights)


def mean_f1(called: Floats, truth: Floats, weights: Floats | None = None) -> Floats:
    """Mean F1 (R,) of types that are named (N, K), 0 or 1; otherwise as `mean_average_precision`."""

    def f1(called: Floats, actual: Bools, weights: Floats | None) -> Floats:
        weights = np.ones((1, len(called))) if weights is None else weights
        return np.asarray(2 * (weights @ (actual * called)) / (weights @ actual + weights @ called))

    return _mean(f1, called, truth, weights)


def mean_ece(probs: Floats, truth: Floats, weights: Floats | None = None) -> Floats:
    """Mean calibration error (R,) of the answer whether a type is there; otherwise as `mean_average_precision`."""

    def gap(scores: Floats, actual: Bools, weights: Floats | None) -> Floats:
        return ece(np.stack([1 - scores, scores], axis=1), actual.astype(np.int64), weights)

    return _mean(gap, probs, truth, weights)


def _mean(
    figure: Callable[[Floats, Bools, Floats | None], Floats], scores: Floats, truth: Floats, weights: Floats | None
) -> Floats:
    """Mean of a figure (R,) over the types that have both sides; NaN without one. A resample may lack a type."""
    occurs = np.flatnonzero((truth > 0).any(axis=0) & ~(truth > 0).all(axis=0))
    rows = 1 if weights is None else len(weights)
    if not len(occurs):
        return np.full(rows, np.nan)
    with np.errstate(invalid="ignore"):
        each = np.stack([figure(scores[:, k], truth[:, k] > 0, weights) for k in occurs])
    seen = ~np.isnan(each)
    return np.where(seen, each, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
