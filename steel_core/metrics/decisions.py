"""Where to draw the line: thresholds from what errors cost, escapes and false calls, conformal prediction sets.

Everything here is chosen on one set of images (validation) and must be reported on another (test).

Legend: N samples, K classes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core.errors import UsageError
from steel_core.metrics.intervals import Bools, Figure, Floats, Ints, group_names, share
from steel_core.types import CLEAR, REFER

UNKNOWN_THRESHOLD = 0.99
"""Threshold of a class about whose predictions the validation split says nothing."""


@dataclass(frozen=True)
class Costs:
    """What one sheet costs, in any one currency.

    Attributes:
        escape: a sheet of this class that is let pass as what it is not: a defect called clear or, by a model without
            "clear", called another defect.
        false_call: a sheet called this class that is not: a clear sheet held back or, by a model without "clear",
            another defect.
        refer: a person looks at a sheet.

    A class that is not named costs 1 when it escapes or is falsely called.
    """

    escape: Mapping[str, float] = field(default_factory=dict)
    false_call: Mapping[str, float] = field(default_factory=dict)
    refer: float = 0.1

    def __post_init__(self) -> None:
        given = [*self.escape.values(), *self.false_call.values(), self.refer]
        if not all(np.isfinite(cost) and cost >= 0 for cost in given):
            raise UsageError("costs: expected numbers of at least 0")

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The cost of each error in each class, also where nobody named it, and of a person's look."""
        defects = [name for name in classes if name != CLEAR]
        return {
            "escape": {name: self.escape.get(name, 1.0) for name in defects},
            "false_call": {name: self.false_call.get(name, 1.0) for name in defects},
            "refer": self.refer,
        }

    def in_words(self, classes: Sequence[str]) -> str:
        """The same for people: one number where all classes cost alike."""
        told = self.to_json(classes)
        words = []
        for error, of in (("escape", told["escape"]), ("false call", told["false_call"])):
            each = ", ".join(f"{name} {cost:g}" for name, cost in of.items())
            words.append(f"{error} {next(iter(of.values())):g}" if len(set(of.values())) == 1 else f"{error} ({each})")
        return f"{', '.join(words)}, a person's look {self.refer:g}"

    def matrix(self, classes: Sequence[str]) -> Floats:
        """What it costs to call a sheet of the row's class by the column's (K, K).

        To call a defect "clear" is an escape of that defect, to call a clear sheet a defect is a false call of that
        defect; with a class "clear", to mix two defects up costs nothing, as the sheet is held back all the same.
        Without one, each mistake is both an escape and a false call.
        """
        escape, false_call = ([given.get(name, 1.0) for name in classes] for given in (self.escape, self.false_call))
        cost = np.add.outer(escape, false_call)
        if CLEAR in classes:
            clear = list(classes).index(CLEAR)
            cost = np.zeros_like(cost)
            cost[:, clear], cost[clear, :] = escape, false_call
        np.fill_diagonal(cost, 0.0)
        return cost


def decide(probs: Floats, classes: Sequence[str], thresholds: Mapping[str, float]) -> npt.NDArray[np.object_]:
    """Outcome (N,) of probabilities (N, K): the likeliest class, or "refer" below its threshold (one half if unset)."""
    pred = probs.argmax(axis=1)
    lines = np.array([thresholds.get(name, 0.5) for name in classes])
    return np.where(probs.max(axis=1) >= lines[pred], np.asarray(classes, dtype=object)[pred], REFER)


def choose_thresholds(
    probs: Floats, labels: Ints, classes: Sequence[str], costs: Costs, mix: Mapping[str, float] | None = None
) -> dict[str, float]:
    """For each class the threshold at which these images would have cost least.

    A threshold touches only the images whose likeliest class is its own, so each is found by itself, exactly: every
    score is tried. Of equally cheap thresholds the one that refers most, so what is less sure than all that were seen
    is referred. A class that is never the likeliest gets `UNKNOWN_THRESHOLD`: nothing is known of it.

    Args:
        probs: calibrated probabilities (N, K) of a validation split.
        labels: index of the true class (N,).
        classes: names of the K classes.
        costs: of errors and of a person's look.
        mix: the share of each class in production; as in these images if None.
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


def plant_figures(
    outcomes: Sequence[str] | npt.NDArray[np.object_],
    labels: Ints,
    classes: Sequence[str],
    costs: Costs | None = None,
    mix: Mapping[str, float] | None = None,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Escapes, false calls, referrals and costs, one row a class and one for all.

    Args:
        outcomes: what was said of each sheet (N,): a class, or anything else ("refer", "unfamiliar") for a person.
        labels: index of the true class (N,).
        classes: names of the K classes.
        costs: as the plant states them.
        mix: the share of each class in production; as in these images if None.
        groups: as in `per_class`.

    Returns:
        Columns label ("all" last), n, and for each of escape, false_call and referred the rate with _low, _high and
        _n, the images it is a share of: escape and referred of the sheets of the class (with "clear" among the
        classes, "all" counts defective sheets as candidates to escape), false_call of the sheets that are not of the
        class (of the clear ones, where there is "clear"). cost_per_1000: by true class, so that the classes sum to
        "all"; cost_low and cost_high: its 95 % interval, from those of the shares of sheets that cost the same (MOVER,
        see `intervals.mover`).
    """
    said = np.asarray(outcomes, dtype=object)
    names = group_names(groups, len(labels))
    price = (costs or Costs()).matrix(classes)
    weights = _weights(labels, classes, mix)
    place = {name: k for k, name in enumerate(classes)}
    called = np.array([place.get(outcome, -1) for outcome in said], dtype=np.int64)
    refer = (costs or Costs()).refer
    paid = np.where(called >= 0, price[labels, called], refer)
    clear = place.get(CLEAR, -1)
    wrong = (called >= 0) & (called != labels)
    escaped = wrong & (called == clear) if clear >= 0 else wrong
    per_1000 = 1000 * weights / max(weights.sum(), 1e-12)
    ends = np.zeros((len(classes), 2))
    for c in range(len(classes)):
        mine = labels == c
        ends[c] = per_1000[mine].sum() * _cost_ends(paid[mine], {*price[c].tolist(), refer}, names[mine])
    rows = []
    for name in [*classes, "all"]:
        k = place.get(name, -1)
        mine = (labels == k) | (k < 0)
        may_escape = mine & (labels != clear)
        may_be_called, is_called = _false_calls(called, labels, k, clear)
        figures = {
            "escape": share(escaped[may_escape], names[may_escape]),
            "false_call": share(is_called[may_be_called], names[may_be_called]),
            "referred": share(called[mine] < 0, names[mine]),
        }
        cost = float((paid * per_1000)[mine].sum()) if len(labels) else np.nan
        down, up = np.sqrt(np.square(ends if k < 0 else ends[[k]]).sum(axis=0)).tolist()
        rows.append({"label": name, "n": int(mine.sum())} | _spread(figures)
                    | {"cost_per_1000": cost, "cost_low": max(0.0, cost - down), "cost_high": cost + up})  # fmt: skip
    return pd.DataFrame(rows)


def threshold_curve(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    label: str,
    costs: Costs,
    thresholds: Mapping[str, float],
    mix: Mapping[str, float] | None = None,
    points: int = 101,
) -> pd.DataFrame:
    """What happens as the threshold of one class moves and the others stay.

    Returns:
        Columns threshold, escape (sheets let pass as what they are not), false_call (of `label`), referred, each a
        share of all N images in the stated mix, and cost_per_1000.
    """
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


def conformal_scores(probs: Floats, method: str = "lac") -> Floats:
    """How badly each class fits each image (N, K): its place on the scale that a conformal quantile cuts.

    Args:
        probs: probabilities (N, K).
        method: "lac", 1 - p: the smallest sets (Sadinle, Lei and Wasserman, JASA 114, 2019); or "aps", the probability
            of all classes at least as likely: sets that adapt to hard images (Romano, Sesia and Candes, NeurIPS 2020;
            without their random part, so coverage is at least what is stated).
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


def conformal_quantile(probs: Floats, labels: Ints, coverage: float = 0.95, method: str = "lac") -> float:
    """The score up to which a class belongs to the prediction set, from a validation split (split conformal).

    It is the ceil((N + 1) coverage)-th smallest score of the true classes; infinite, so that every class belongs to
    every set, where N is too small for the coverage asked. The promise holds for images that are exchangeable with the
    validation images; near-duplicates among these weaken it, so the coverage found on test must stand beside it.

    Raises:
        UsageError: coverage is not between 0 and 1, or the method is unknown.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"coverage: expected a number between 0 and 1, got {coverage}")
    scores = np.sort(conformal_scores(probs, method)[np.arange(len(labels)), labels])
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")


def conformal_sets(probs: Floats, quantile: float, method: str = "lac") -> Bools:
    """Whether each class belongs to the prediction set of each image (N, K)."""
    return np.asarray(conformal_scores(probs, method) <= quantile + 1e-12)


def coverage_found(sets: Bools, labels: Ints, groups: Sequence[str] | None = None) -> dict[str, Figure | float]:
    """Of prediction sets (N, K): the "coverage" found, the "mean_size", and the shares "single" and "empty"."""
    names = group_names(groups, len(labels))
    sizes = sets.sum(axis=1)
    return {
        "coverage": share(sets[np.arange(len(labels)), labels], names),
        "mean_size": float(sizes.mean()) if len(sizes) else 0.0,
        "single": share(sizes == 1, names),
        "empty": share(sizes == 0, names),
    }


def _weights(labels: Ints, classes: Sequence[str], mix: Mapping[str, float] | None) -> Floats:
    """Weight of each sample (N,) so that the classes weigh what they do in production."""
    if mix is None:
        return np.ones(len(labels))
    wanted = np.array([mix.get(name, 0.0) for name in classes], dtype=np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.sum():
        raise UsageError("mix: expected shares of at least 0, not all of them 0")
    counts = np.bincount(labels, minlength=len(classes))
    if missing := [name for name, share_, n in zip(classes, wanted, counts, strict=True) if share_ and not n]:
        raise UsageError(f"mix: there is no image of {', '.join(missing)} to stand for its share")
    return (wanted / wanted.sum() / np.maximum(counts, 1))[labels] * len(labels)


def _false_calls(called: Ints, labels: Ints, k: int, clear: int) -> tuple[Bools, Bools]:
    """Which sheets (N,) may be falsely called class `k`, and which are called it; any class where k is -1."""
    if clear >= 0:
        return (labels == clear) & (k != clear), (called == k) if k >= 0 else (called >= 0) & (called != clear)
    return labels != k, (called == k) if k >= 0 else (called >= 0) & (called != labels)


def _cost_ends(paid: Floats, prices: set[float], names: npt.NDArray[np.str_]) -> Floats:
    """How far the mean cost of sheets (N,) may lie below and above what was found (2,); `prices` are all there are."""
    if not len(paid):
        return np.zeros(2)
    ends = []
    for price in prices:
        found = share(paid == price, names)
        ends.append([price * ((found.value or 0.0) - found.low), price * (found.high - (found.value or 0.0))])
    return np.asarray(np.sqrt(np.square(ends).sum(axis=0)))


def _spread(figures: Mapping[str, Figure]) -> dict[str, float | int]:
    cells: dict[str, float | int] = {}
    for name, figure in figures.items():
        value = np.nan if figure.value is None else figure.value
        cells |= {name: value, f"{name}_low": figure.low, f"{name}_high": figure.high, f"{name}_n": figure.n}
    return cells
