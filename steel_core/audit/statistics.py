"""Paired effects with intervals that know of near-duplicates, the decision they allow, and what they can miss.

Legend: N images, R resamples.
"""

from collections.abc import Collection, Sequence

import numpy as np
from pydantic import Field
from scipy.optimize import brentq
from scipy.stats import norm

from steel_core.metrics import group_weights, holm_correction
from steel_core.metrics.intervals import Interval
from steel_core.records import Record
from steel_core.types import AnyArray, Float64Array

FOR = "evidence for a shortcut"
AGAINST = "evidence against"
TOO_FEW = "not enough data"

ALPHA = 0.05
POWER = 0.8
LEAST = 20  # fewer independent images than this decide nothing

RESAMPLES = 1000


class Effect(Record):
    """How often a change turns the verdict, and how often its control does, on the same images at the same places."""

    n: int = 0
    groups: int = 0  # independent observations among them: groups of near-duplicates
    flip_rate: float | None = None  # share of the images that the change turns
    control_flip_rate: float | None = None  # share that the strongest control turns
    excess: float | None = None  # the first minus the second
    interval: Interval = (-1.0, 1.0)  # 95 % interval of the excess
    p: float = 1.0  # one-sided p value of an excess of 0 or less, over every control at once: the largest
    control: str = ""  # name of the strongest control: the one that turns the most
    controls: dict[str, float] = Field(default_factory=dict)  # share that each control turns
    # confidence in the clean verdict that the change costs, minus what the strongest control costs
    drop: float | None = None
    drop_interval: Interval = (-1.0, 1.0)  # its 95 % interval
    detectable: float = 1.0  # the smallest true excess that would have been found with a probability of 80 %


def estimate_effect(
    flips: AnyArray,
    controls: dict[str, AnyArray],
    groups: Sequence[str] | AnyArray,
    tolerated: float = 0.05,
    seed: int = 0,
    *,
    drops: dict[str, Float64Array] | None = None,
) -> Effect:
    """The effect of a change over its controls, on the same images (N,) at the same places.

    `flips` and `controls` tell whether each image was turned, or the share of tries that did; `drops` the confidence
    lost beyond what each control costs; `groups` the near-duplicates. Nobody minds an excess up to `tolerated`.
    """
    names = np.asarray(groups, dtype=object).astype(str)
    n, independent = len(flips), len(np.unique(names))
    if not n:
        return Effect()
    rates = {name: float(np.mean(turned)) for name, turned in controls.items()}
    strongest = max(rates, key=lambda name: rates[name])
    excess = {name: np.asarray(flips, np.float64) - np.asarray(turned, np.float64) for name, turned in controls.items()}
    weights = _draw_weights(names, seed)
    tests = {name: bootstrap_paired_interval(change, names, weights) for name, change in excess.items()}
    lost = drops[strongest] if drops else None
    return Effect(
        n=n,
        groups=independent,
        flip_rate=float(np.mean(flips)),
        control_flip_rate=rates[strongest],
        excess=float(excess[strongest].mean()),
        interval=tests[strongest][0],
        p=max(p for _, p in tests.values()),
        control=strongest,
        controls=rates,
        drop=None if lost is None else float(lost.mean()),
        drop_interval=(-1.0, 1.0) if lost is None else bootstrap_paired_interval(lost, names, weights)[0],
        detectable=compute_detectable(independent, tolerated),
    )


def bootstrap_paired_interval(
    change: Float64Array, groups: AnyArray, weights: Float64Array | None = None, seed: int = 0
) -> tuple[Interval, float]:
    """95 % interval of the mean of paired differences (N,) in -1 to 1, and the one-sided p value of a mean above 0.

    A percentile bootstrap over groups, with two imagined groups added that disagree wholly, +1 and -1: without them a
    sample in which few pairs or none differ has an interval that is far too narrow (Bonett and Price, Journal of
    Educational and Behavioral Statistics 37, 2012). `weights` (resamples, N + 2) are those of a former call.
    """
    weights = _draw_weights(groups, seed) if weights is None else weights
    sizes = np.unique(groups, return_counts=True)[1]
    typical = float(np.mean(sizes))  # an imagined group counts for as many images as the others do
    counted = np.r_[change, typical, -typical]
    worth = np.r_[np.ones(len(change)), typical, typical]
    means = (weights @ counted) / (weights @ worth)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    mean, spread = float(change.mean()), max(float(means.std()), 1e-9)
    p = float(norm.sf(float(counted.sum() / worth.sum()) / spread))
    return (max(-1.0, min(float(low), mean)), min(1.0, max(float(high), mean))), p


def decide_verdicts(effects: Sequence[Effect], tolerated: float) -> tuple[list[str], list[float]]:
    """What each of a family of effects allows to say, and its p value, corrected for their number (Holm).

    For a shortcut: the effect is above 0 beyond chance, over every control, and above what is tolerated. Against one:
    its interval ends below what is tolerated. Else, or with fewer than `LEAST` groups, there is not enough data.
    """
    corrected = holm_correction([effect.p for effect in effects]) if effects else []
    verdicts = []
    for effect, p in zip(effects, corrected, strict=True):
        if effect.groups < LEAST or effect.excess is None:
            verdicts.append(TOO_FEW)
        elif p < ALPHA / 2 and effect.excess > tolerated:
            verdicts.append(FOR)
        else:
            verdicts.append(AGAINST if effect.interval[1] < tolerated else TOO_FEW)
    return verdicts, corrected


def combine_verdicts(verdicts: Collection[str]) -> str:
    """One verdict of many: a shortcut if any found one; against one only if all that were asked say so."""
    if FOR in verdicts:
        return FOR
    return AGAINST if verdicts and set(verdicts) == {AGAINST} else TOO_FEW


def compute_detectable(n: int, tolerated: float) -> float:
    """The smallest true excess that `decide_verdicts` finds in `n` independent images with a power of 80 %; 1 if none.

    Where the control turns nothing: the normal approximation of the two conditions of `decide_verdicts`.
    """
    if n < LEAST:
        return 1.0
    sure, likely = float(norm.ppf(1 - ALPHA / 2)), float(norm.ppf(POWER))

    def lacking(excess: float) -> float:
        error = (max(excess * (1 - excess), 1 / n) / n) ** 0.5
        return excess - max((sure + likely) * error, tolerated + likely * error)

    return float(brentq(lacking, 0.0, 1.0)) if lacking(1.0) > 0 else 1.0


def _draw_weights(groups: AnyArray, seed: int) -> Float64Array:
    """(R, N + 2): of each image, and of the two imagined groups."""
    names = np.asarray(groups, dtype=object).astype(str)
    return group_weights(np.r_[np.char.add("g", names), ["+", "-"]], RESAMPLES, seed)
