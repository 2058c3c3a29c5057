"""Plots, with their words for those who cannot see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import streamlit as st

from steel_core.render.plots import alternative

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_plot(
    figure: go.Figure, name: str, chosen: Callable[[], None] | None = None, by: Literal["box", "points"] = "box"
) -> None:
    """A figure with its words for those who cannot see it; its toolbar saves it as PNG.

    `chosen` is called when points were boxed or clicked, which `plot NAME` of the session holds; Streamlit allows one.
    """
    shown = figure.to_dict()
    if chosen:
        shown["layout"] |= {"dragmode": "select" if by == "box" else False, "selectdirection": "h"}
    st.plotly_chart(
        shown,
        theme=None,
        key=f"plot {name}",
        on_select=chosen or "ignore",
        selection_mode=by,
        alt=alternative(figure),
        config={
            "displaylogo": False,
            "toImageButtonOptions": {"format": "png", "scale": 2, "filename": name.lower().replace(" ", "-")},
        },
    )
