"""Plots and tables, with their words for those who cannot see them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import pandas as pd
import streamlit as st

from steel_core.render.plots import Figure, alternative

SHARE = st.column_config.NumberColumn(format="percent")


def draw_table(
    rows: pd.DataFrame | Iterable[dict[str, Any]], words: str, columns: Mapping[str, Any] | None = None
) -> None:
    """A table, with `words` for those who cannot see it; `columns` say how to draw some of them, as `SHARE` does."""
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=columns, alt=words)


def draw_plot(
    figure: Figure, name: str, chosen: Callable[[], None] | None = None, by: Literal["box", "points"] = "box"
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
