"""Paired effects with intervals that know of near-duplicates, the decision they allow, and what they could have missed.

Legend: N images, R resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

from steel_core.metrics import group_weights, holm

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

FOR = "evidence for a shortcut"
AGAINST = "evidence against"
TOO_FEW = "not enough data"

ALPHA = 0.05
POWER = 0.8
LEAST = 20
"""Fewer independent images than this decide nothing."""

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Effect:
    """How often a change turns the verdict, and how often its control does, on the same images at the same places.

    Attributes:
        n: images.
        groups: independent observations among them: groups of near-duplicates.
        flip_rate: share of the images that the change turns.
        control_flip_rate: share that the strongest control turns.
        excess: the first minus the second.
        interval: 95 % interval of the excess.
        p: one-sided p value of an excess of 0 or less, over every control at once: the largest.
        control: name of the strongest control: the one that turns the most.
        controls: share that each control turns.
        drop: confidence in the clean verdict that the change costs, minus what the strongest control costs.
        drop_interval: its 95 % interval.
        detectable: the smallest true excess that would have been found with a probability of 80 %.
    """

    n: int
    groups: int
    flip_rate: float | None
    control_flip_rate: float | None
    excess: float | None
    interval: Interval
    p: float
    control: str
    controls: dict[str, float]
    drop: float | None
    drop_interval: Interval
    detectable: float

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return {name: getattr(self, name) for name in self.__slots__}


def measure(
    flips: npt.NDArray[Any],
    controls: dict[str, npt.NDArray[Any]],
    groups: Sequence[str] | npt.NDArray[Any],
    *,
    drops: npt.NDArray[Any] | None = None,
    control_drops: dict[str, npt.NDArray[Any]] | None = None,
    tolerated: float = 0.05,
    seed: int = 0,
) -> Effect:
    """The effect of a change over its controls.

    Args:
        flips: (N,) whether the change turned each image; or the share of its tries that did.
        controls: the same (N,) for each control, at the same places.
        groups: (N,) the group of near-duplicates each image belongs to.
        drops: (N,) confidence lost by the change.
        control_drops: (N,) confidence lost by each control.
        tolerated: the excess up to which nobody minds; for `detectable`.
        seed: of the bootstrap.
    """
    names = np.asarray(groups, dtype=object).astype(str)
    n, independent = len(flips), len(np.unique(names))
    if not n:
        return Effect(0, 0, None, None, None, (-1.0, 1.0), 1.0, "", {}, None, (-1.0, 1.0), 1.0)
    rates = {name: float(np.mean(turned)) for name, turned in controls.items()}
    strongest = max(rates, key=lambda name: rates[name])
    excess = {name: np.asarray(flips, np.float64) - np.asarray(turned, np.float64) for name, turned in controls.items()}
    weights = _weights(names, seed)
    tests = {name: paired_interval(change, names, weights) for name, change in excess.items()}
    lost = None
    if drops is not None and control_drops is not None:
        lost = np.asarray(drops, np.float64) - control_drops[strongest]
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
        drop_interval=(-1.0, 1.0) if lost is None else paired_interval(lost, names, weights)[0],
        detectable=detectable(independent, tolerated),
    )


def paired_interval(
    change: Floats, groups: npt.NDArray[Any], weights: Floats | None = None, seed: int = 0
) -> tuple[Interval, float]:
    """95 % interval of the mean of paired differences (N,) in -1 to 1, and the one-sided p value of a mean above 0.

    A percentile bootstrap over groups, with two imagined groups added that disagree wholly, +1 and -1: without them a
    sample in which few pairs or none differ has an interval that is far too narrow.

    Source of the two: Bonett and Price, Journal of Educational and Behavioral Statistics 37, 2012.

    Args:
        change: (N,) difference of each pair.
        groups: (N,) names.
        weights: (R, N + 2) of the bootstrap, as made by a former call; drawn anew if None.
        seed: of the bootstrap.
    """
    weights = _weights(groups, seed) if weights is None else weights
    sizes = np.unique(groups, return_counts=True)[1]
    typical = float(np.mean(sizes))  # an imagined group counts for as many images as the others do
    counted = np.r_[change, typical, -typical]
    worth = np.r_[np.ones(len(change)), typical, typical]
    means = (weights @ counted) / (weights @ worth)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    mean, spread = float(change.mean()), max(float(means.std()), 1e-9)
    p = float(norm.sf(float(counted.sum() / worth.sum()) / spread))
    return (max(-1.0, min(float(low), mean)), min(1.0, max(float(high), mean))), p


def judged(effects: Sequence[Effect], tolerated: float) -> tuple[list[str], list[float]]:
    """What each of a family of effects allows to say, and its p value, corrected for their number (Holm).

    For a shortcut: the effect is above 0 beyond chance, over every control, and above what is tolerated. Against one:
    its interval ends below what is tolerated. Else, or with fewer than `LEAST` groups, there is not enough data.
    """
    corrected = holm([effect.p for effect in effects]) if effects else []
    said = []
    for effect, p in zip(effects, corrected, strict=True):
        if effect.groups < LEAST or effect.excess is None:
            said.append(TOO_FEW)
        elif p < ALPHA / 2 and effect.excess > tolerated:
            said.append(FOR)
        else:
            said.append(AGAINST if effect.interval[1] < tolerated else TOO_FEW)
    return said, corrected


def joint(verdicts: Collection[str]) -> str:
    """One verdict of many: a shortcut if any found one; against one only if all that were asked say so."""
    if FOR in verdicts:
        return FOR
    return AGAINST if verdicts and set(verdicts) == {AGAINST} else TOO_FEW


def detectable(n: int, tolerated: float, power: float = POWER) -> float:
    """The smallest true excess that `judged` finds in `n` independent images with this probability; 1 if none.

    Where the control turns nothing: the normal approximation of the two conditions of `judged`.
    """
    if n < LEAST:
        return 1.0
    sure, likely = float(norm.ppf(1 - ALPHA / 2)), float(norm.ppf(power))

    def lacking(excess: float) -> float:
        error = (max(excess * (1 - excess), 1 / n) / n) ** 0.5
        return excess - max((sure + likely) * error, tolerated + likely * error)

    return float(brentq(lacking, 0.0, 1.0)) if lacking(1.0) > 0 else 1.0


def _weights(groups: npt.NDArray[Any], seed: int) -> Floats:
    """(R, N + 2): of each image, and of the two imagined groups."""
    names = np.asarray(groups, dtype=object).astype(str)
    return group_weights(np.r_[np.char.add("g", names), ["+", "-"]], RESAMPLES, seed)
