"""The plots of an audit, and pictures on which a place can be marked."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from steel_core.render.plots import BLUE, INK, ORANGE, Figure, empty_figure


def flip_rates(rates: Mapping[str, tuple[float, float, float]], of: int, marked: str) -> Figure:
    """How often each change turned the verdict (share, low, high of `of` images); the one that is tested is marked."""
    says = ", ".join(f"{name} {rate:.1%} ({low:.1%} to {high:.1%})" for name, (rate, low, high) in rates.items())
    figure = empty_figure(
        f"Share of {of} images whose verdict turned, with 95 % intervals: {says}.", "verdicts turned", ""
    )
    names = list(rates)[::-1]
    value, low, high = (np.array([rates[name][i] for name in names], dtype=float) for i in range(3))
    figure.add_scatter(
        x=value, y=[escape(name) for name in names], mode="markers",
        marker={"color": [ORANGE if name == marked else BLUE for name in names], "size": 12,
                "symbol": ["diamond" if name == marked else "circle" for name in names]},
        error_x={"array": high - value, "arrayminus": value - low, "color": INK},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(height=120 + 42 * len(names))
    return figure.update_xaxes(tickformat=".0%", rangemode="tozero").update_yaxes(automargin=True)


def doses(table: pd.DataFrame) -> Figure:
    """The excess of each stain of a family with its interval; columns words, excess, low, high, n, proved.

    Those that were put to the proof are marked.
    """
    table = table.dropna(subset="excess").sort_values("excess")
    worst = table.iloc[-1] if len(table) else None
    figure = empty_figure(
        f"Verdicts turned by each of {len(table)} stains beyond its strongest control, with 95 % intervals. "
        + ("No image could be tested." if worst is None else f"Most by {worst['words']}: {worst['excess']:+.1%}."),
        "verdicts turned beyond the strongest control",
        "",
    )
    figure.add_scatter(
        x=table["excess"], y=[escape(words) for words in table["words"]], mode="markers",
        marker={"color": [ORANGE if proved else BLUE for proved in table["proved"]], "size": 10,
                "symbol": ["diamond" if proved else "circle" for proved in table["proved"]]},
        error_x={"array": table["high"] - table["excess"], "arrayminus": table["excess"] - table["low"], "color": INK},
        customdata=table["n"], hovertemplate="%{y}: %{x:+.1%} of %{customdata} images<extra></extra>",
    )  # fmt: skip
    figure.update_layout(height=120 + 30 * len(table))
    return figure.update_xaxes(tickformat="+.0%").update_yaxes(automargin=True, tickfont={"size": 11})


def click_pad(picture: np.ndarray[Any, Any], places: int) -> Figure:
    """A picture (H, W) or (H, W, 3) with `places` by `places` points that can be clicked, in percent of its sides."""
    from PIL import Image  # noqa: PLC0415 - only this plot holds a picture

    figure = empty_figure("A picture to click on.", "", "")
    figure.add_layout_image(
        source=Image.fromarray(picture), x=0, y=0, sizex=100, sizey=100, xref="x", yref="y", sizing="stretch",
        layer="below",
    )  # fmt: skip
    at = np.linspace(0, 100, places)
    down, across = np.meshgrid(at, at, indexing="ij")
    figure.add_scatter(
        x=across.ravel(), y=down.ravel(), mode="markers", marker={"size": 14, "opacity": 0.01},
        selected={"marker": {"opacity": 0.6, "color": ORANGE}}, unselected={"marker": {"opacity": 0.01}},
        hovertemplate="%{y:.0f} % down, %{x:.0f} % across<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0}, height=320, clickmode="event+select", dragmode=False)
    figure.update_xaxes(range=[0, 100], visible=False)
    return figure.update_yaxes(range=[100, 0], visible=False)


def box_pad(picture: np.ndarray[Any, Any], box: tuple[float, float, float, float] | None = None) -> Figure:
    """A picture (H, W) or (H, W, 3) on which a box can be dragged: left, top, right, bottom in percent of its sides."""
    figure = click_pad(picture, 2)  # a plot without points would select nothing
    hidden = {"marker": {"opacity": 0.01}}
    figure.update_traces(hoverinfo="skip", hovertemplate=None, selected=hidden, unselected=hidden)
    figure.update_layout(dragmode="select", clickmode="none")
    if box:
        left, top, right, bottom = box
        figure.add_shape(x0=left, y0=top, x1=right, y1=bottom, line={"color": ORANGE, "width": 3})
    height, width = picture.shape[:2]
    figure.update_xaxes(constrain="domain")
    return figure.update_yaxes(scaleanchor="x", scaleratio=height / width, constrain="domain")
