"""95 % intervals that know of near-duplicates, and the correction for looking many times.

Legend: N samples, G groups of near-duplicates, R resamples, K classes, M tests.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from steel_core.types import AnyArray, Float64Array, StrArray

Interval = tuple[float, float]

RESAMPLES = 1000
FEW = 30
"""Below so many images a metric says little; pages grey it."""

_Z = float(norm.ppf(0.975))


class Estimate(NamedTuple):
    """A metric with its 95 % interval, 0 to 1 where `value` is None; n images hold `effective` observations (Kish)."""

    value: float | None
    low: float
    high: float
    n: int
    effective: float

    def __str__(self) -> str:
        """As in "0.981 (0.917 to 0.992), n = 1440"."""
        if self.value is None:
            return f"no such images, n = {self.n}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}), n = {self.n}"


def wilson_interval(share: float, n: float) -> Interval:
    """95 % Wilson score interval of a proportion from `n` independent observations (Wilson, JASA 22, 1927)."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(max(share * (1 - share), 0.0) / n + _Z**2 / (4 * n**2)))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def effective_observations(groups: AnyArray) -> float:
    """Kish's effective number of observations where those of one group tell the same (Survey Sampling, 1965)."""
    if not len(groups):
        return 0.0
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def estimate_share(hits: AnyArray, groups: AnyArray | None = None) -> Estimate:
    """The share of True in `hits` (N,) with its Wilson interval; `groups` (N,) as in `effective_observations`."""
    n = len(hits)
    effective = float(n) if groups is None else effective_observations(groups)
    if not n:
        return Estimate(None, 0.0, 1.0, 0, 0.0)
    value = float(np.mean(hits))
    return Estimate(value, *wilson_interval(value, effective), n, effective)


def group_names(groups: Sequence[str] | AnyArray | None, n: int) -> StrArray:
    """(N,) names of groups as an array; each sample is a group of its own if None."""
    return np.arange(n).astype(str) if groups is None else np.asarray(groups, dtype=object).astype(str)


def group_weights(groups: Sequence[str] | AnyArray, resamples: int = RESAMPLES, seed: int = 0) -> Float64Array:
    """Bootstrap weights (R, N): groups are drawn with replacement, and their samples come along."""
    _, place = np.unique(group_names(groups, len(groups)), return_inverse=True)
    count = int(place.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, place].astype(np.float64)


def mover_interval(shares: Sequence[float | None], bounds: Sequence[Interval | None]) -> Interval:
    """Interval of a mean of independent proportions other than None (Zou and Donner, Statist. Med. 27, 2008)."""
    present = [(s, b) for s, b in zip(shares, bounds, strict=True) if s is not None and b is not None]
    mean = sum(s for s, _ in present) / len(present)
    down = sum((s - b[0]) ** 2 for s, b in present) ** 0.5 / len(present)
    up = sum((b[1] - s) ** 2 for s, b in present) ** 0.5 / len(present)
    return max(0.0, mean - down), min(1.0, mean + up)


def basic_interval(value: float, resampled: Float64Array, effective: float) -> Interval:
    """Basic bootstrap interval of a value in 0 to 1, which it holds; Wilson's where no resample differs."""
    low, high = np.nanquantile(resampled, [0.025, 0.975]) if np.isfinite(resampled).any() else (value, value)
    if high - low < 1e-9:
        return wilson_interval(value, effective)
    return max(0.0, min(2 * value - float(high), value)), min(1.0, max(2 * value - float(low), value))


def bootstrap_estimate(value: float, resampled: Float64Array, n: int, effective: float) -> Estimate:
    """The metric of `n` images with its `basic_interval`; nothing can be said where the value is NaN."""
    if np.isnan(value):
        return Estimate(None, 0.0, 1.0, n, effective)
    return Estimate(value, *basic_interval(value, resampled, effective), n, effective)


def mean_of_known(values: Float64Array) -> Float64Array:
    """Mean (R,) of values (K, R) that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """The p values (M,) corrected for M looks, dependent or not (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
