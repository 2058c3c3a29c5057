"""What all plots share: Plotly figures for pages and reports, legible on light and dark.

Grounds are transparent and inks mid-grey, so a figure needs no theme. Colours are told apart by colour-blind people
(Okabe and Ito, Color Universal Design, 2008), and no meaning hangs on colour alone. Every figure carries a sentence
for those who cannot see it: `alternative(figure)`. Text from data is escaped, because Plotly reads tags in labels.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import plotly.graph_objects as go

Figure: TypeAlias = "go.Figure"  # a name for those who only pass figures on: Plotly loads slowly

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, GRID = "#7a7f87", "rgba(128,128,128,0.25)"
FEW, ON_FEW = "#c9ced3", "#10202c"  # cells with too few images to count on, and what is written on them
SERIES = (BLUE, ORANGE, GREEN, PURPLE, "#e69f00", "#56b4e9", "#999999", "#b3a100")
"""Colours of the lines or signs of one plot, in the order in which they are used."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")  # their dashes, so that nobody needs the colour


def alternative(figure: go.Figure) -> str:
    """What a figure shows, in one or two sentences, for those who cannot see it."""
    return str(figure.layout.meta["alternative"])


def empty_figure(alternative: str, x: str, y: str) -> go.Figure:
    """A figure to draw on, legible on any ground; `alternative` says what it will show to those who cannot see it."""
    import plotly.graph_objects as go  # noqa: PLC0415 - loads slowly, and only those who draw need it

    return go.Figure(layout={
        "meta": {"alternative": alternative}, "template": "none", "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "size": 13},
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, "height": 420,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": BLUE},
        "xaxis": {"title": escape(x), "gridcolor": GRID, "zeroline": False, "automargin": True},
        "yaxis": {"title": escape(y), "gridcolor": GRID, "zeroline": False, "automargin": True},
    })  # fmt: skip
