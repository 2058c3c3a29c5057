"""Paired effects with intervals that know of near-duplicates, the decision they allow, and what they can miss.

A piece of steel counts once: what is estimated is the mean over groups of near-duplicates of the means within them, so
that the number of groups is the effective number of observations. Derivations: docs/statistics.md.

Legend: N images, G groups, C controls, R draws.
"""

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
from pydantic import Field
from scipy.stats import norm

from steel_core.metrics import holm_correction
from steel_core.metrics.intervals import Interval
from steel_core.records import Record
from steel_core.types import AnyArray, BoolArray, Float64Array

FOR = "evidence for a shortcut"
AGAINST = "evidence against"
TOO_FEW = "not enough data"
NOTHING = "nothing to test"  # no suspect was there to be put to the test: it stands in nobody's way

ALPHA = 0.05
POWER = 0.8
LEAST = 20  # fewer independent images than this decide nothing
PROVED = 3  # doses of a family that are put to the proof

_DRAWS = 2000
_NARROWED = 1.0  # standard errors; see `_compare`


class Effect(Record):
    """How often a change turns the verdict, and how often its controls do, on the same images at the same places.

    Shares are of pieces of steel: images of one group count as one.
    """

    n: int = 0
    groups: int = 0  # independent observations among them: groups of near-duplicates
    flip_rate: float | None = None  # share that the change turns
    control_flip_rate: float | None = None  # share that the strongest control turns, the luck of being strongest off
    excess: float | None = None  # the first minus the second
    interval: Interval = (-1.0, 1.0)  # 95 % interval of the excess, over every control at once
    p: float = 1.0  # one-sided p value of an excess of at most what is tolerated over some control
    control: str = ""  # name of the control that turned the most
    controls: dict[str, float] = Field(default_factory=dict)  # share that each control turns
    # confidence in the clean verdict that the change costs, minus what the strongest control costs
    drop: float | None = None
    drop_interval: Interval = (-1.0, 1.0)  # its 95 % interval
    # The smallest true excess that would have been found with a probability of 80 %; None where it was not asked for.
    detectable: float | None = None


def estimate_effect(
    flips: AnyArray,
    controls: dict[str, AnyArray],
    groups: Sequence[str] | AnyArray,
    tolerated: float = 0.05,
    seed: int = 0,
    *,
    drops: dict[str, Float64Array] | None = None,
    power: bool = False,
) -> Effect:
    """The effect of a change over all of its controls, on the same images (N,) at the same places.

    `flips` and `controls` tell whether each image was turned, or the share of tries that did; `drops` the confidence
    lost beyond what each control costs; `groups` the near-duplicates. Nobody minds an excess up to `tolerated`.
    `power`: whether to say what could have been found, which takes some hundredths of a second.
    """
    if not len(flips):
        return Effect()
    turned = np.column_stack([flips, *controls.values()]).astype(np.float64)
    means, squares = _average_groups(turned[:, :1] - turned[:, 1:], groups)
    excess, interval, p = _compare(means, squares, tolerated, seed)
    pieces, _ = _average_groups(turned, groups)
    rates = dict(zip(controls, pieces[:, 1:].mean(axis=0).tolist(), strict=True))
    strongest = max(rates, key=lambda name: rates[name])
    flip_rate = float(pieces[:, 0].mean())
    lost = {} if drops is None else {"drop": drops[strongest]}
    return Effect(
        n=len(flips),
        groups=len(pieces),
        flip_rate=flip_rate,
        control_flip_rate=flip_rate - excess,
        excess=excess,
        interval=interval,
        p=p,
        control=strongest,
        controls=rates,
        drop=float(_average_groups(lost["drop"][:, None], groups)[0].mean()) if lost else None,
        drop_interval=estimate_difference(lost["drop"], groups, seed=seed)[0] if lost else (-1.0, 1.0),
        detectable=find_detectable(pieces[:, 1:], tolerated, seed) if power else None,
    )


def estimate_difference(
    change: Float64Array, groups: Sequence[str] | AnyArray, tolerated: float = 0.0, seed: int = 0
) -> tuple[Interval, float]:
    """95 % interval of the mean of paired differences (N,) in -1 to 1, and the one-sided p value of one above that."""
    means, squares = _average_groups(np.asarray(change, np.float64)[:, None], groups)
    _, interval, p = _compare(means, squares, tolerated, seed)
    return interval, p


def decide_verdicts(
    effects: Sequence[Effect], tolerated: float, *, least: int = LEAST
) -> tuple[list[str], list[float]]:
    """What each of a family of effects allows to say, and its p value, corrected for their number (Holm).

    For a shortcut: the effect is above what is tolerated beyond chance, over every control. Against one: its interval
    ends below what is tolerated (equivalence). Else, or with fewer than `least` groups, there is not enough data; half
    as many will do for what is proved after it was chosen on the other half.
    """
    corrected = holm_correction([effect.p for effect in effects]) if effects else []
    verdicts = []
    for effect, p in zip(effects, corrected, strict=True):
        if effect.groups < least or effect.excess is None:
            verdicts.append(TOO_FEW)
        elif p < ALPHA / 2 and effect.excess > tolerated:
            verdicts.append(FOR)
        else:
            verdicts.append(AGAINST if effect.interval[1] < tolerated else TOO_FEW)
    return verdicts, corrected


def split_halves(groups: Sequence[str] | AnyArray, seed: int = 0) -> BoolArray:
    """(N,) whether an image is in the half that is searched; the other half proves. No group is in both."""
    names, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    searched = np.zeros(len(names), bool)
    searched[np.random.default_rng([seed, 11]).permutation(len(names))[: len(names) // 2]] = True
    return np.asarray(searched[member], bool)


def choose_worst(searched: Sequence[Effect]) -> list[int]:
    """Numbers of the doses that are worth a proof, by what they do to the half that was searched, the worst first."""
    lows = {d: effect.interval[0] for d, effect in enumerate(searched) if (effect.excess or 0.0) > 0}
    return sorted(lows, key=lambda d: (-lows[d], d))[:PROVED]


def is_harmless(whole: Sequence[Effect], tolerated: float) -> bool:
    """Whether every dose of a family is equivalent to its controls, on all images.

    All must be, so that nothing needs correction for their number (intersection-union test, Berger 1982).
    """
    return bool(whole) and all(effect.groups >= LEAST and effect.interval[1] < tolerated for effect in whole)


def combine_verdicts(verdicts: Collection[str]) -> str:
    """One verdict of many: a shortcut if any found one; against one only if all that had something to test say so."""
    tested = set(verdicts) - {NOTHING}
    if FOR in tested:
        return FOR
    return AGAINST if tested == {AGAINST} else NOTHING if verdicts and not tested else TOO_FEW


def find_detectable(controls: Float64Array, tolerated: float, seed: int = 0) -> float:
    """The smallest true excess that `decide_verdicts` finds with a power of 80 %, by simulation; 1 if none.

    `controls` (G, C) are the shares that the controls turned in each group: groups are drawn from them again, and the
    change turns a group by chance, as often as the strongest control and the excess say, whatever the controls do.
    """
    pieces, strongest = len(controls), float(controls.mean(axis=0).max())
    if pieces < LEAST:
        return 1.0
    rng = np.random.default_rng([seed, 13])
    drawn = controls[rng.integers(pieces, size=(200, pieces))]
    luck = rng.random((200, pieces, 1))

    def is_found(excess: float) -> bool:
        change = (luck < strongest + excess) - drawn
        middle, error = _pad(change.mean(axis=1), change.var(axis=1), pieces, 1.0)
        passed = ((middle - tolerated) / error).min(axis=1) > norm.ppf(1 - ALPHA / 2)
        return bool(passed.mean() >= POWER)

    low, high = tolerated, 1 - strongest
    if high <= low or not is_found(high):
        return 1.0
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


def _average_groups(values: Float64Array, groups: Sequence[str] | AnyArray) -> tuple[Float64Array, Float64Array]:
    """Means of each group (G, C) of values (N, C), and of their squares."""
    member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    counts = np.bincount(member)[:, None]

    def average(these: Float64Array) -> Float64Array:
        summed = np.zeros((len(counts), these.shape[1]))
        np.add.at(summed, member, these)
        return np.asarray(summed / counts)

    return average(values), average(values**2)


def _pad(
    mean: Float64Array, variance: Float64Array, pieces: int, worth: Float64Array | float
) -> tuple[AnyArray, AnyArray]:
    """Means and their standard errors with two imagined groups added that differ by `worth` and by minus that.

    Without them a sample in which few pairs or none differ has an interval that is far too narrow (Bonett and Price,
    Journal of Educational and Behavioral Statistics 37, 2012).
    """
    more = pieces + 2
    shrunk = mean * pieces / more
    spread = (pieces * (variance + mean**2) + 2 * worth**2) / more - shrunk**2
    return shrunk, np.sqrt(spread / more)


def _compare(means: Float64Array, squares: Float64Array, tolerated: float, seed: int) -> tuple[float, Interval, float]:
    """The smallest of the differences (G, C) to several controls, its 95 % interval, and p of one above `tolerated`.

    The observed minimum is too small, the more the more controls are near it (Chernozhukov, Lee and Rosen, Intersection
    Bounds, Econometrica 81, 2013). Its law is drawn from the normal one of the means: for estimate and upper end with
    the gaps between controls narrowed, for the lower end with the gaps widened, so that either errs to its safe side.
    """
    pieces, count = means.shape
    # An imagined group is worth as much as one of the real ones, in which observations may cancel.
    own, within = means.var(axis=0), squares.mean(axis=0)
    ratio = np.divide(own, within, out=np.ones(count), where=within > 0)
    worth = np.sqrt(np.where(own > 0, np.clip(ratio, 1 / 20, 1), 1))
    middle, error = _pad(means.mean(axis=0), own, pieces, worth)
    p = float(norm.sf(((middle - tolerated) / error).min()))
    padded = np.vstack([means, worth, -worth])
    covariance = np.cov(padded.T, ddof=0).reshape(count, count) / len(padded)
    noise = _draw_normal(count, seed) @ np.linalg.cholesky(covariance + 1e-12 * np.eye(count)).T
    least = int(middle.argmin())
    gap = middle - middle[least]
    unsure = np.sqrt(np.maximum(np.diag(covariance) + covariance[least, least] - 2 * covariance[:, least], 0))
    near = (np.maximum(gap - _NARROWED * unsure, 0) + noise).min(axis=1)
    far = (gap + unsure + noise).min(axis=1)
    low, high = middle[least] - np.quantile(far, 1 - ALPHA / 2), middle[least] - np.quantile(near, ALPHA / 2)
    # Rounded, as equal controls differ by what the drawing rounds.
    best = round(float(np.clip((middle[least] - np.median(near)) * (pieces + 2) / pieces, -1, 1)), 5)
    return best, (max(-1.0, min(float(low), best)), min(1.0, max(float(high), best))), p


@cache
def _draw_normal(count: int, seed: int) -> Float64Array:
    """(R, C) standard normal numbers, each with its opposite."""
    half = np.random.default_rng([seed, 17]).standard_normal((_DRAWS // 2, count))
    return np.concatenate([half, -half])
