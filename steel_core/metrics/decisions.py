"""Where to draw the line: thresholds from what errors cost, escapes and false calls, conformal prediction sets.

All is chosen on validation images and must be reported on test. Legend: N samples, K classes, T thresholds.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field

from steel_core.errors import UsageError
from steel_core.metrics.intervals import Estimate, estimate_share, group_names
from steel_core.records import Number, Record
from steel_core.types import CLEAR, REFER, BoolArray, Float64Array, Int64Array, ObjectArray, StrArray

UNKNOWN_THRESHOLD = 0.99
"""Threshold of a class about whose predictions the validation split says nothing."""


Cost = Annotated[Number, Field(ge=0)]


class Costs(Record):
    """What one sheet costs, in any one currency; 1 for an escape or a false call of a class that is not named."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    published = "costs"

    escape: dict[str, Cost] = Field(default={})
    """Of a sheet of this class that is called clear or, by a model without "clear", another defect."""

    false_call: dict[str, Cost] = Field(default={})
    """Of a sheet called this class that is clear or, by a model without "clear", another defect."""

    refer: Cost = 0.1
    """Of a person who looks at a sheet."""

    def name_all(self, classes: Sequence[str]) -> Self:
        """The same with the cost of each error in each class, also where nobody named it."""
        defects = [name for name in classes if name != CLEAR]
        escape, false_call = ({name: of.get(name, 1.0) for name in defects} for of in (self.escape, self.false_call))
        return self.replace(escape=escape, false_call=false_call)

    def describe(self, classes: Sequence[str]) -> str:
        """The same for people: one number where all classes cost alike."""
        costs = self.name_all(classes)
        words = []
        for error, of in (("escape", costs.escape), ("false call", costs.false_call)):
            each = ", ".join(f"{name} {cost:g}" for name, cost in of.items())
            words.append(f"{error} {next(iter(of.values())):g}" if len(set(of.values())) == 1 else f"{error} ({each})")
        return f"{', '.join(words)}, a person's look {self.refer:g}"

    def matrix(self, classes: Sequence[str]) -> Float64Array:
        """What it costs to call a sheet of the row's class by the column's (K, K).

        To call a defect "clear" is an escape of that defect, to call a clear sheet a defect is a false call of that
        defect; with a class "clear", to mix two defects up costs nothing, as the sheet is held back all the same.
        Without one, each mistake is both an escape and a false call.
        """
        escape, false_call = ([costs.get(name, 1.0) for name in classes] for costs in (self.escape, self.false_call))
        cost = np.add.outer(escape, false_call)
        if CLEAR in classes:
            clear = list(classes).index(CLEAR)
            cost = np.zeros_like(cost)
            cost[:, clear], cost[clear, :] = escape, false_call
        np.fill_diagonal(cost, 0.0)
        return cost


def decide_outcomes(probs: Float64Array, classes: Sequence[str], thresholds: Mapping[str, float]) -> ObjectArray:
    """Outcome (N,) of probabilities (N, K): the likeliest class, or "refer" below its threshold (one half if unset)."""
    pred = probs.argmax(axis=1)
    lines = np.array([thresholds.get(name, 0.5) for name in classes])
    return np.where(probs.max(axis=1) >= lines[pred], np.asarray(classes, dtype=object)[pred], REFER)


def choose_thresholds(
    probs: Float64Array,
    labels: Int64Array,
    classes: Sequence[str],
    costs: Costs,
    mix: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """For each class the threshold at which these images would have cost least, given the mix of classes in production.

    A threshold touches only the images whose likeliest class is its own, so each is found by itself, exactly: every
    score is tried. Of equally cheap thresholds the one that refers most, so what is less sure than all that were seen
    is referred. A class that is never the likeliest gets `UNKNOWN_THRESHOLD`: nothing is known of it.
    """
    price = costs.matrix(classes)
    weights = _weights(labels, classes, mix)
    pred, confidence = probs.argmax(axis=1), probs.max(axis=1)
    chosen = {}
    for k, name in enumerate(classes):
        mine = np.flatnonzero(pred == k)
        if not len(mine):
            chosen[name] = UNKNOWN_THRESHOLD
            continue
        order = mine[np.argsort(-confidence[mine], kind="stable")]
        scores = confidence[order]
        gain = np.r_[0.0, np.cumsum(weights[order] * (price[labels[order], k] - costs.refer))]
        cuts = np.r_[True, scores[1:] != scores[:-1], True]  # equal scores share one fate
        best = int(np.flatnonzero(cuts)[np.argmin(np.round(gain[cuts], 12))])
        chosen[name] = float(scores[best - 1]) if best else min(1.0, float(np.nextafter(scores[0], 2.0)))
    return chosen


def plant_estimates(
    outcomes: Sequence[str] | ObjectArray,
    labels: Int64Array,
    classes: Sequence[str],
    costs: Costs | None = None,
    mix: Mapping[str, float] | None = None,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Escapes, false calls, referrals and costs, one row a class and one for all.

    `outcomes` of each sheet (N,): a class, or anything else ("refer", "unfamiliar") for a person.

    Returns:
        Columns label ("all" last), n, and for each of escape, false_call and referred the rate with _low, _high and
        _n, the images it is a share of: escape and referred of the sheets of the class (with "clear" among the
        classes, "all" counts defective sheets as candidates to escape), false_call of the sheets that are not of the
        class (of the clear ones, where there is "clear"). cost_per_1000: by true class, so that the classes sum to
        "all"; cost_low and cost_high: its 95 % interval (MOVER, see `intervals.mover_interval`).
    """
    names = group_names(groups, len(labels))
    costs = costs or Costs()
    price = costs.matrix(classes)
    weights = _weights(labels, classes, mix)
    place = {name: k for k, name in enumerate(classes)}
    predicted = np.array([place.get(outcome, -1) for outcome in outcomes], dtype=np.int64)
    paid = np.where(predicted >= 0, price[labels, predicted], costs.refer)
    clear = place.get(CLEAR, -1)
    wrong = (predicted >= 0) & (predicted != labels)
    escaped = wrong & (predicted == clear) if clear >= 0 else wrong
    per_1000 = 1000 * weights / max(weights.sum(), 1e-12)
    ends = np.zeros((len(classes), 2))
    for c in range(len(classes)):
        mine = labels == c
        ends[c] = per_1000[mine].sum() * _cost_ends(paid[mine], {*price[c].tolist(), costs.refer}, names[mine])
    rows = []
    for name in [*classes, "all"]:
        k = place.get(name, -1)
        mine = (labels == k) | (k < 0)
        may_escape = mine & (labels != clear)
        may_be_called, is_called = _false_calls(predicted, labels, k, clear)
        estimates = {
            "escape": estimate_share(escaped[may_escape], names[may_escape]),
            "false_call": estimate_share(is_called[may_be_called], names[may_be_called]),
            "referred": estimate_share(predicted[mine] < 0, names[mine]),
        }
        cost = float((paid * per_1000)[mine].sum()) if len(labels) else np.nan
        down, up = np.sqrt(np.square(ends if k < 0 else ends[[k]]).sum(axis=0)).tolist()
        rows.append({"label": name, "n": int(mine.sum())} | _to_columns(estimates)
                    | {"cost_per_1000": cost, "cost_low": max(0.0, cost - down), "cost_high": cost + up})  # fmt: skip
    return pd.DataFrame(rows)


def threshold_curve(
    probs: Float64Array,
    labels: Int64Array,
    classes: Sequence[str],
    label: str,
    costs: Costs,
    thresholds: Mapping[str, float],
    mix: Mapping[str, float] | None = None,
    points: int = 101,
) -> pd.DataFrame:
    """Columns threshold, escape, false_call, referred, cost_per_1000 as the threshold of one class moves."""
    if label not in classes:
        raise UsageError(f"unknown class {label!r}; expected one of {', '.join(classes)}")
    weights = _weights(labels, classes, mix)
    weights = weights / weights.sum()
    price, k = costs.matrix(classes), list(classes).index(label)
    clear = list(classes).index(CLEAR) if CLEAR in classes else -1
    pred, confidence = probs.argmax(axis=1), probs.max(axis=1)
    lines = np.array([thresholds.get(name, 0.5) for name in classes])
    rows = []
    for at in np.linspace(0, 1, points):
        passed = confidence >= np.where(pred == k, at, lines[pred])
        wrong = passed & (pred != labels)
        escaped = wrong & (pred == clear) if clear >= 0 else wrong
        false = wrong & (pred == k) & ((labels == clear) if clear >= 0 else True)
        cost = np.where(passed, price[labels, pred], costs.refer)
        rows.append([at, *(float((weights * each).sum()) for each in (escaped, false, ~passed)),
                     1000 * float((weights * cost).sum())])  # fmt: skip
    return pd.DataFrame(rows, columns=["threshold", "escape", "false_call", "referred", "cost_per_1000"])


def conformal_scores(probs: Float64Array, method: str = "lac") -> Float64Array:
    """How badly each class fits each image (N, K): its place on the scale that a conformal quantile cuts.

    "lac" is 1 - p: the smallest sets (Sadinle, Lei and Wasserman, JASA 114, 2019). "aps" is the probability of all
    classes at least as likely: sets that adapt to hard images (Romano, Sesia and Candes, NeurIPS 2020; without their
    random part, so coverage is at least what is stated).
    """
    if method == "lac":
        return 1.0 - probs
    if method != "aps":
        raise UsageError(f"conformal method: expected lac or aps, got {method!r}")
    order = np.argsort(-probs, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(probs, order, axis=1), axis=1)
    scores = np.empty_like(probs)
    np.put_along_axis(scores, order, summed, axis=1)
    return scores


def conformal_quantile(probs: Float64Array, labels: Int64Array, coverage: float = 0.95, method: str = "lac") -> float:
    """The score up to which a class belongs to the prediction set, from a validation split (split conformal).

    It is the ceil((N + 1) coverage)-th smallest score of the true classes; infinite, so that every class belongs to
    every set, where N is too small for the coverage asked. Near-duplicates weaken the promise, so the coverage observed
    on test must stand beside it.

    Raises:
        UsageError: coverage is not between 0 and 1, or the method is unknown.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"coverage: expected a number between 0 and 1, got {coverage}")
    scores = np.sort(conformal_scores(probs, method)[np.arange(len(labels)), labels])
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")


def conformal_sets(probs: Float64Array, quantile: float, method: str = "lac") -> BoolArray:
    """Whether each class belongs to the prediction set of each image (N, K)."""
    return np.asarray(conformal_scores(probs, method) <= quantile + 1e-12)


def estimate_coverage(
    sets: BoolArray, labels: Int64Array, groups: Sequence[str] | None = None
) -> dict[str, Estimate | float]:
    """Of prediction sets (N, K): the observed "coverage", the "mean_size", and the shares "single" and "empty"."""
    names = group_names(groups, len(labels))
    sizes = sets.sum(axis=1)
    return {
        "coverage": estimate_share(sets[np.arange(len(labels)), labels], names),
        "mean_size": float(sizes.mean()) if len(sizes) else 0.0,
        "single": estimate_share(sizes == 1, names),
        "empty": estimate_share(sizes == 0, names),
    }


def _weights(labels: Int64Array, classes: Sequence[str], mix: Mapping[str, float] | None) -> Float64Array:
    if mix is None:
        return np.ones(len(labels))
    wanted = np.array([mix.get(name, 0.0) for name in classes], dtype=np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.sum():
        raise UsageError("mix: expected shares of at least 0, not all of them 0")
    counts = np.bincount(labels, minlength=len(classes))
    if missing := [name for name, share_, n in zip(classes, wanted, counts, strict=True) if share_ and not n]:
        raise UsageError(f"mix: there is no image of {', '.join(missing)} to stand for its share")
    return (wanted / wanted.sum() / np.maximum(counts, 1))[labels] * len(labels)


def _false_calls(predicted: Int64Array, labels: Int64Array, k: int, clear: int) -> tuple[BoolArray, BoolArray]:
    """Which sheets (N,) may be falsely called class `k`, and which are called it; any class where k is -1."""
    if clear >= 0:
        return (labels == clear) & (k != clear), (predicted == k) if k >= 0 else (predicted >= 0) & (predicted != clear)
    return labels != k, (predicted == k) if k >= 0 else (predicted >= 0) & (predicted != labels)


def _cost_ends(paid: Float64Array, prices: set[float], names: StrArray) -> Float64Array:
    """How far the mean cost of sheets (N,) may lie below and above the observed one (2,); `prices`: all that occur."""
    if not len(paid):
        return np.zeros(2)
    ends = []
    for price in prices:
        share = estimate_share(paid == price, names)
        ends.append([price * ((share.value or 0.0) - share.low), price * (share.high - (share.value or 0.0))])
    return np.asarray(np.sqrt(np.square(ends).sum(axis=0)))


def _to_columns(estimates: Mapping[str, Estimate]) -> dict[str, float | int]:
    cells: dict[str, float | int] = {}
    for name, (value, low, high, n, _) in estimates.items():
        cells |= {name: np.nan if value is None else value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}
    return cells
