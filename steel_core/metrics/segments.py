"""Where a model is weak: ranges and groups of images in which it errs more often than elsewhere.

Legend: N samples, P properties.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from steel_core.metrics.intervals import Estimate, estimate_share, group_names, holm_correction
from steel_core.types import BoolArray, Float64Array

LEAST = 10
"""Segments with fewer images are not looked at: nothing could be said of them."""

_OWN = ("group", "source")  # a segment is the whole of what is asked about (one coil, one camera): images count singly
_RANGES = 4  # of a number

_COLUMNS = ["property", "segment", "start", "end", "n", "wrong", "error", "low", "high", "elsewhere", "p", "p_holm",
            "weak"]  # fmt: skip


def weak_segments(
    wrong: BoolArray,
    properties: pd.DataFrame,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The error rate in every segment against the rate elsewhere, the most suspicious first.

    A number is cut at its quantiles into ranges of about equally many images, any other property by its values. p is
    Fisher's exact test, one-sided, on counts brought down to the effective observations (and rounded so that p grows),
    because near-duplicates err together; it is corrected by Holm for all the segments looked at. Nothing here is proven
    by p alone: a weak segment is where to collect images next.

    Returns:
        Columns property, segment (in words), start and end of a range (NaN for others), n, wrong, error with low and
        high, elsewhere (the error rate outside), p, p_holm and weak (p_holm below 0.05). `len` is the number of looks.
    """
    names = group_names(groups, len(wrong))
    rows: list[dict[str, Any]] = []
    for name in properties:
        values = properties[name]
        known = values.notna().to_numpy() & (values.astype(str) != "").to_numpy()
        for words, start, end, mine in _cuts(values, known):
            rest = known & ~mine
            if min(int(mine.sum()), int(rest.sum())) < LEAST:
                continue
            inside = estimate_share(wrong[mine], None if name in _OWN else names[mine])
            outside = estimate_share(wrong[rest], names[rest])
            rows.append({
                "property": name, "segment": words, "start": start, "end": end, "n": inside.n,
                "wrong": int(wrong[mine].sum()), "error": inside.value, "low": inside.low, "high": inside.high,
                "elsewhere": outside.value, "p": _fisher(inside, outside),
            })  # fmt: skip
    corrected = holm_correction([row["p"] for row in rows])
    rows = [row | {"p_holm": p, "weak": p < 0.05} for row, p in zip(rows, corrected, strict=True)]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.sort_values(["p", "error"], ascending=[True, False], kind="stable").reset_index(drop=True)


def _cuts(values: pd.Series[Any], known: BoolArray) -> Iterator[tuple[str, float, float, BoolArray]]:
    """Words, start, end and members (N,) of every segment."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        texts = values.astype(str).to_numpy()
        for value in np.unique(texts[known]):
            yield str(value), np.nan, np.nan, known & (texts == value)
        return
    numbers: Float64Array = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if not known.any():
        return
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _RANGES + 1)))
    for start, end in itertools.pairwise(edges):
        inside = (numbers >= start) & ((numbers < end) | (end == edges[-1]) & (numbers == end))
        yield f"{start:.3g} to {end:.3g}", float(start), float(end), known & inside


def _fisher(inside: Estimate, outside: Estimate) -> float:
    """One-sided p that errors are as rare inside as outside, on effective counts rounded against a finding."""
    n, others = max(1, int(inside.effective)), max(1, int(outside.effective))
    hits = int(np.floor((inside.value or 0.0) * n + 1e-9))
    elsewhere = int(np.ceil((outside.value or 0.0) * others - 1e-9))
    return float(hypergeom.sf(hits - 1, n + others, hits + elsewhere, n))
