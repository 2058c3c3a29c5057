"""Which samples of a data set are meant: by label, split, prediction, range of any number, or a line drawn on a map.

No step loops over samples, so that a million rows answer at once. Legend: N samples, M matching ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from skimage.measure import points_in_poly

from steel_core.data.index import DatasetIndex
from steel_core.types import BoolArray, Float32Array, IndexArray

Point = tuple[float, float]

NAMED = ("labels", "split", "source", "group", "pred", "verdict")
"""Columns with names; of an evaluation pred, the likeliest class, and verdict: right, wrong or "" (unknown truth)."""

PLACES = ("map_x", "map_y")
"""Columns of `collect_facts` that hold a sample's place on the map of the model's features."""


def collect_facts(
    index: DatasetIndex,
    evaluated: pd.DataFrame | None = None,
    measured: pd.DataFrame | None = None,
    places: Float32Array | None = None,
) -> pd.DataFrame:
    """What is known of each sample (N rows): categories of `NAMED` that are known, and numbers.

    `evaluated`: row (in the index; some may lack), and any of pred, verdict and numbers. `places`: (N, 2) of the map.
    """
    parts = [index.table[[name for name in NAMED if name in index.table]].astype("category")]
    if evaluated is not None:
        answers = evaluated.set_index("row").reindex(range(len(index)))
        names = [name for name in NAMED if name in answers]
        parts += [answers[names].fillna("").astype("category"), answers.drop(columns=names)]
    if measured is not None:
        parts.append(measured)
    if places is not None:
        parts.append(pd.DataFrame(places, columns=list(PLACES)))
    return pd.concat(parts, axis=1)


def number_columns(table: pd.DataFrame) -> list[str]:
    """The columns of `collect_facts` that hold numbers, where any is known."""
    return [str(name) for name in table if name not in NAMED and table[name].notna().any()]


@dataclass(frozen=True, slots=True)
class Range:
    """A number from `low` to `high`, both included; a sample that has no such number is outside."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a sample must meet, all of them; those that are None or empty ask nothing.

    Attributes:
        label: a class that is among its labels; "" for unlabelled samples.
        split: "train", "val", "test", or "" for none.
        group: a part of its group's name.
        verdict: "right" or "wrong".
        outline: corners of a line around places on the map.
    """

    label: str | None = None
    split: str | None = None
    source: str | None = None
    group: str = ""
    pred: str | None = None
    verdict: str | None = None
    ranges: tuple[Range, ...] = ()
    outline: tuple[Point, ...] = ()

    def rows(self, table: pd.DataFrame, sort: str = "", falling: bool = False) -> IndexArray:
        """(M,) row numbers of the samples in `collect_facts` that match.

        A condition on what the table does not hold matches nothing. Samples without the number to sort by come last.
        """
        keep = np.ones(len(table), bool)
        if self.label is not None:
            keep &= _match_names(table, "labels", lambda cell: self.label in (cell.split("|") if cell else [""]))
        for name in ("split", "source", "pred", "verdict"):
            if (wanted := getattr(self, name)) is not None:
                keep &= _match_names(table, name, wanted.__eq__)
        if self.group:
            keep &= _match_names(table, "group", lambda cell: self.group in cell)
        for one in self.ranges:
            keep &= table[one.name].between(one.low, one.high).to_numpy() if one.name in table else False
        if self.outline:
            keep &= _inside_outline(table, self.outline)
        rows = np.flatnonzero(keep)
        if sort in table:
            values = table[sort].to_numpy(float)[rows]
            rows = rows[np.argsort(-values if falling else values, kind="stable")]
        return rows


def _match_names(table: pd.DataFrame, name: str, matches: Callable[[str], bool]) -> BoolArray:
    """(N,) whether the name in a column matches, asked once for each name that occurs."""
    if name not in table:
        return np.zeros(len(table), bool)
    column = table[name].cat
    wanted = np.array([matches(cell) for cell in column.categories] + [False])
    return wanted[column.codes.to_numpy()]


def _inside_outline(table: pd.DataFrame, outline: tuple[Point, ...]) -> BoolArray:
    if not set(PLACES) <= set(table.columns):
        return np.zeros(len(table), bool)
    places, corners = table[list(PLACES)].to_numpy(float), np.asarray(outline)
    inside = ((places >= corners.min(axis=0)) & (places <= corners.max(axis=0))).all(axis=1)  # False for NaN, too
    inside[inside] = points_in_poly(places[inside], corners)
    return inside
