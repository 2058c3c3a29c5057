"""From a stretch of a curve, or some bars of a histogram, to the images behind them; the fields serve the keyboard."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from dashboard.components.common.plot import draw_plot

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STEPS = 1000  # fields show three decimals; a range is widened to them, so that what is read is what counts


def brush(figure: go.Figure, name: str, key: str, choose: Callable[[str], None] | None = None) -> None:
    """A plot to drag over; the range behind the chosen points, which hold it, goes into the fields of `within`.

    `key` is that of `within`; `choose` is told the class whose curve or bars were chosen.
    """

    def take() -> None:
        points, boxes = (st.session_state[f"plot {name}"]["selection"][what] for what in ("points", "box"))
        ranges = [point["customdata"][:2] for point in points if point.get("customdata")]
        if figure.data[0].type == "bar":  # its axis is what is asked for, also where no bar stands
            ranges = [box["x"] for box in boxes] or ranges
        ends = sorted(end for ends in ranges for end in ends)
        if boxes and not ends:
            return  # a box beside the curve
        st.session_state[f"{key} from"] = max(0, math.floor(ends[0] * _STEPS)) / _STEPS if ends else None
        st.session_state[f"{key} to"] = math.ceil(ends[-1] * _STEPS) / _STEPS if ends else None
        if f"{key}-page" in st.session_state:
            st.session_state[f"{key}-page"] = 1
        if points and choose and (label := figure.data[points[0]["curve_number"]].meta):
            choose(html.unescape(label))

    draw_plot(figure, name, take)


def within(rows: pd.DataFrame, column: str, what: str, key: str, at_first: bool = True) -> pd.DataFrame:
    """The rows whose value lies between two fields, which a brush fills, too; an empty field is no limit.

    `what` says the column in words; without `at_first`, no rows are shown as long as there is no limit.
    """
    with st.grid(2, min_column_width=150, width=480):
        low, high = (
            st.number_input(f"{what}, {end}", 0.0, value=None, step=0.01, format="%.3f", key=f"{key} {end}",
                            placeholder="no limit")
            for end in ("from", "to")
        )  # fmt: skip
    if low is None and high is None:
        return rows if at_first else rows.head(0)
    return rows[rows[column].between(-math.inf if low is None else low, math.inf if high is None else high)]
