"""The plots of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steel_core.render.plots import DASHES, INK, SERIES, empty_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FEW_EPOCHS = 10  # each has a tick of its own


def training_curves(history: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Loss on training and validation images, and the skill on the latter, epoch by epoch.

    Rows of the history have epoch, train_loss, val_loss, and val_macro_recall or val_auc.
    """
    table = pd.DataFrame([dict(row) for row in history])
    skill = next((name for name in ("val_macro_recall", "val_auc") if name in table), None)
    last = table.iloc[-1]
    words = {"val_macro_recall": "macro recall", "val_auc": "AUC"}
    figure = empty_figure(
        f"Course of {len(table)} epochs: the validation loss is {last['val_loss']:.3f} at the last one"
        + (f", the {words[skill]} on the validation images {last[skill]:.3f}." if skill else "."),
        "epoch",
        "loss",
    )
    for i, (name, title) in enumerate((("train_loss", "loss, training"), ("val_loss", "loss, validation"))):
        figure.add_scatter(x=table["epoch"], y=table[name], name=title, mode="lines+markers",
                           line={"color": SERIES[i], "dash": DASHES[i]})  # fmt: skip
    if skill:
        figure.add_scatter(x=table["epoch"], y=table[skill], name=f"{words[skill]}, validation", yaxis="y2",
                           mode="lines+markers", line={"color": SERIES[2], "dash": DASHES[2]})  # fmt: skip
    whole = 1 if len(table) <= _FEW_EPOCHS else None  # no tick between two epochs
    figure.update_xaxes(tickformat="d", rangemode="tozero", dtick=whole).update_yaxes(rangemode="tozero")
    return figure.update_layout(
        yaxis2={"overlaying": "y", "side": "right", "title": words.get(skill or "", ""), "range": [0, 1.02],
                "dtick": 0.2, "showgrid": False, "automargin": True}
    )  # fmt: skip


def learning_rate_curve(curves: Sequence[Sequence[Sequence[float]]], chosen: float) -> go.Figure:
    """Pairs of learning rate and loss of each run of the search, with the rate that was chosen."""
    figure = empty_figure(
        f"Search for the learning rate in {len(curves)} runs in which it grows until the loss breaks away; "
        f"{chosen:.1e} was chosen.",
        "learning rate",
        "loss",
    )
    for i, curve in enumerate(curves):
        figure.add_scatter(x=[rate for rate, _ in curve], y=[loss for _, loss in curve], name=f"run {i + 1}",
                           mode="lines", line={"color": SERIES[i], "dash": DASHES[i]})  # fmt: skip
    figure.add_vline(x=chosen, line={"color": INK, "dash": "dot"})
    figure.add_annotation(x=np.log10(chosen), y=1.03, yref="paper", text="chosen", showarrow=False)
    return figure.update_xaxes(type="log", tickformat=".0e", dtick=1)
