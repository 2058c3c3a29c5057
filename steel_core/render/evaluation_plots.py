"""The plots of a training, of an evaluation and of a comparison.

Points that stand for images carry the ends of a range in their `customdata` (of probability, confidence or loss), and a
trace of one class its name in its `meta`, escaped: so a page can lead from part of a plot to the images behind it.
"""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from steel_core.render.plots import BLUE, DASHES, FEW, INK, ON_FEW, ORANGE, SERIES, Figure, empty_figure

_FEW_EPOCHS = 10  # each has a tick of its own
_POINTS = 1000  # of a curve: as many as a screen can tell apart
_STEADY = 0.1  # coverage from which an interval decides how high a plot is; before, it spans nearly everything


def confusion_matrix(cells: pd.DataFrame) -> Figure:
    """The cells of `metrics.confusion_table`: each share with its interval; cells of few images are grey."""
    rows, columns = list(dict.fromkeys(cells["actual"])), list(dict.fromkeys(cells["predicted"]))
    shape = (len(rows), len(columns))
    value = cells["share"].to_numpy(float).reshape(shape)
    colour = np.where(cells["few"].to_numpy().reshape(shape), np.nan, value)
    texts = np.array([_cell_text(cell) for cell in cells.to_dict("records")], dtype=object).reshape(shape)
    right = cells[cells["actual"] == cells["predicted"]].to_dict("records")
    figure = empty_figure(
        f"Confusion matrix of {int(cells['n'].sum())} images, {len(rows)} actual classes by {len(columns)} answers. "
        + " ".join(f"{cell['actual']}: {cell['n']} of {cell['of']} named rightly." for cell in right),
        "predicted",
        "actual",
    )
    figure.add_heatmap(
        z=colour, x=[escape(name) for name in columns], y=[escape(name) for name in rows], text=texts,
        texttemplate="%{text}", hoverinfo="text",
        colorscale=[[0, "#eef3f8"], [1, BLUE]], zmin=0, zmax=1, xgap=2, ygap=2,
        colorbar={"title": "share of row", "tickformat": ".0%"},
    )  # fmt: skip
    for y, x in zip(*np.nonzero(np.isnan(colour)), strict=True):  # Plotly draws no text where there is no colour
        figure.add_annotation(x=int(x), y=int(y), text=texts[y, x], showarrow=False, font={"color": ON_FEW})
    figure.update_layout(plot_bgcolor=FEW)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure.update_xaxes(showgrid=False, side="top")


def reliability(tables: Mapping[str, pd.DataFrame], errors: Mapping[str, float]) -> Figure:
    """Reliability diagrams, by name ("before", "after"): accuracy against confidence, with intervals.

    The last of the tables (`metrics.curves.reliability_bins`) is that of the probabilities in force; `errors` are ECEs.
    """
    named = {name: f"{name} (ECE {errors[name]:.3f})" for name in tables}
    in_force = list(tables)[-1:]
    figure = empty_figure(
        "Reliability diagram: how often the model is right against how sure it is. "
        + " ".join(f"{named[name]}: {int(table['n'].sum())} images." for name, table in tables.items()),
        "mean confidence",
        "share that is right",
    )
    _diagonal(figure, "perfectly calibrated")
    for i, (name, table) in enumerate(tables.items()):
        figure.add_scatter(
            x=table["confidence"], y=table["accuracy"], name=escape(named[name]), mode="lines+markers",
            line={"color": SERIES[i], "dash": DASHES[i]},
            error_y={"array": table["high"] - table["accuracy"], "arrayminus": table["accuracy"] - table["low"]},
            customdata=table[["start", "end"]].to_numpy().tolist() if name in in_force else None,
            text=table["n"], hovertemplate="sure %{x:.1%}, right %{y:.1%}, n = %{text}<extra></extra>",
        )  # fmt: skip
    return _unit(figure)


def roc(curves: Mapping[str, pd.DataFrame], areas: Mapping[str, float | None] | None = None) -> Figure:
    """ROC curves by name of class (or of checkpoint), of `metrics.curves.roc_points`; a single one gets its band."""
    figure = _curves(curves, areas, "false_positive_rate", "true_positive_rate", "area", "ROC curves")
    _diagonal(figure, "chance")
    return _unit(figure)


def precision_recall(curves: Mapping[str, pd.DataFrame], areas: Mapping[str, float | None] | None = None) -> Figure:
    """Precision against recall by name, of `metrics.curves.precision_recall_points`; a single one gets its band."""
    return _unit(_curves(curves, areas, "recall", "precision", "average precision", "Precision against recall"))


def score_histogram(table: pd.DataFrame, label: str) -> Figure:
    """The probabilities of one class among images that are of it and that are not, of `curves.score_histogram`."""
    figure = empty_figure(
        f"Histogram of the probability of {label}: {int(table['positive'].sum())} images are of this class, "
        f"{int(table['negative'].sum())} are not.",
        f"probability of {label}",
        "images",
    )
    sides = {"positive": f"is {escape(label)}", "negative": f"is not {escape(label)}"}
    return _histogram(figure, table, sides, escape(label)).update_xaxes(range=[0, 1])


def loss_histogram(table: pd.DataFrame) -> Figure:
    """The losses of images that are named rightly and wrongly, of `curves.loss_histogram`."""
    n, wrong = int(table["right"].sum() + table["wrong"].sum()), int(table["wrong"].sum())
    figure = empty_figure(f"Histogram of the loss of {n} images, of which {wrong} are named wrongly.", "loss", "images")
    return _histogram(figure, table, {"right": "named rightly", "wrong": "named wrongly"}).update_xaxes(
        rangemode="tozero"
    )


def risk_coverage(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The share of wrong verdicts against the share of images that get one, of `metrics.curves.risk_coverage`."""
    ends = [f"{name}: {t['risk'].iloc[-1]:.1%} wrong where all are decided." for name, t in tables.items() if len(t)]
    figure = empty_figure(
        "Risk against coverage: the fewer images are decided, the fewer verdicts are wrong. " + " ".join(ends),
        "share of images decided",
        "share of verdicts that are wrong",
    )
    for i, (name, table) in enumerate(tables.items()):
        _line(figure, table, "coverage", "risk", escape(name), i, band=len(tables) == 1)
    figure.update_xaxes(range=[0, 1.01], tickformat=".0%").update_yaxes(rangemode="tozero", tickformat=".1~%")
    decided = [t.loc[t["coverage"] >= _STEADY, "high"].max() for t in tables.values()]
    return figure.update_yaxes(range=[0, 1.05 * max(decided)]) if decided and not np.isnan(decided).any() else figure


def threshold_costs(table: pd.DataFrame, label: str, threshold: float) -> Figure:
    """Cost per 1,000 sheets, escapes, false calls and referrals by threshold (`metrics.decisions.threshold_curve`)."""
    cheapest = table.iloc[int(table["cost_per_1000"].to_numpy().argmin())]
    figure = empty_figure(
        f"Cost per 1,000 sheets against the threshold of {label}: least, {cheapest['cost_per_1000']:.1f}, "
        f"at {cheapest['threshold']:.2f}.",
        f"threshold of {label}",
        "cost per 1,000 sheets",
    )
    _line(figure, table, "threshold", "cost_per_1000", "cost", 0)
    for i, name in enumerate(("escape", "false_call", "referred"), start=1):
        figure.add_scatter(x=table["threshold"], y=table[name], name=name.replace("_", " "), yaxis="y2", mode="lines",
                           line={"color": SERIES[i], "dash": DASHES[i]})  # fmt: skip
    figure.add_vline(x=threshold, line={"color": INK, "dash": "dot"}, annotation_text="chosen",
                     annotation_position="top left")  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return figure.update_layout(
        yaxis2={"overlaying": "y", "side": "right", "title": "share of sheets", "tickformat": ".0%", "showgrid": False,
                "rangemode": "tozero", "automargin": True}
    )  # fmt: skip


def segments(table: pd.DataFrame, most: int = 12) -> Figure:
    """Error rates of the most suspicious segments with their intervals, of `metrics.segments.weak_segments`."""

    def in_words(row: dict[Any, Any]) -> str:
        return f"{row['property'].replace('_', ' ')}: {row['segment']}"

    shown = table.head(most).iloc[::-1]
    weak = table[table["weak"].astype(bool)]
    says = "; ".join(f"{in_words(row)}: {row['error']:.1%}" for row in weak.to_dict("records"))
    figure = empty_figure(
        f"Error rates of {len(shown)} of {len(table)} segments looked at. "
        + (f"Weak after correction for looking so often: {says}." if says else "None is weak after correction."),
        "error rate",
        "",
    )
    names = [escape(f"{in_words(row)} (n = {row['n']})") for row in shown.to_dict("records")]
    figure.add_scatter(
        x=shown["error"], y=names, mode="markers", name="error rate",
        marker={"color": [ORANGE if weak else BLUE for weak in shown["weak"]], "size": 10,
                "symbol": ["diamond" if weak else "circle" for weak in shown["weak"]]},
        error_x={"array": shown["high"] - shown["error"], "arrayminus": shown["error"] - shown["low"], "color": INK,
                 "thickness": 1.5},
        customdata=shown[["property", "segment"]].map(escape).to_numpy().tolist(),
        hovertemplate="%{y}: %{x:.1%} wrong<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(x=shown["elsewhere"], y=names, mode="markers", name="elsewhere",
                       marker={"color": INK, "symbol": "line-ns-open", "size": 12})  # fmt: skip
    return figure.update_xaxes(tickformat=".1~%", rangemode="tozero").update_yaxes(automargin=True)


def dots(figures: Mapping[str, tuple[float, float, float]], what: str, aside: Collection[str] = ()) -> Figure:
    """A figure of several models (value, low, high of its 95 % interval) in the order given; `aside`: yardsticks."""
    says = "; ".join(f"{name} {value:.3f} ({low:.3f} to {high:.3f})" for name, (value, low, high) in figures.items())
    figure = empty_figure(f"{what}, with 95 % intervals: {says}.", what, "")
    names = list(figures)[::-1]
    value, low, high = (np.array([figures[name][i] for name in names], dtype=float) for i in range(3))
    figure.add_scatter(
        x=value, y=[escape(name) for name in names], mode="markers",
        marker={"color": [INK if name in aside else BLUE for name in names], "size": 11,
                "symbol": ["diamond-open" if name in aside else "circle" for name in names]},
        error_x={"array": high - value, "arrayminus": value - low, "color": INK},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    return figure.update_layout(height=120 + 32 * len(names)).update_yaxes(automargin=True)


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
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


def learning_rate_curve(curves: Sequence[Sequence[Sequence[float]]], chosen: float) -> Figure:
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


def _line(figure: Figure, table: pd.DataFrame, x: str, y: str, name: str, i: int, *, band: bool = False,
          label: str = "") -> None:  # fmt: skip
    """A curve whose points hold their threshold, for brushing; where it has many, some of them, evenly spread."""
    colour, dash = SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]
    shown = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(len(table), _POINTS)).astype(int))]
    if band and len(shown):
        back = shown.iloc[::-1]
        figure.add_scatter(
            x=np.r_[shown[x], back[x]], y=np.r_[shown["high"], back["low"]], fill="toself", fillcolor=colour,
            opacity=0.2, line={"width": 0}, hoverinfo="skip", name="95 % interval",
        )  # fmt: skip
    threshold = shown["threshold"].clip(0, 1).to_numpy()
    figure.add_scatter(
        x=shown[x].to_numpy(), y=shown[y].to_numpy(), name=name, mode="lines+markers", meta=escape(label),
        line={"color": colour, "dash": dash}, customdata=np.stack([threshold, threshold], axis=1).tolist(),
        marker={"size": 6, "opacity": 0}, selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 0}},
    )  # fmt: skip


def _histogram(figure: Figure, table: pd.DataFrame, sides: Mapping[str, str], label: str = "") -> Figure:
    """Two bars a bin, side by side; on a log scale, for the few images that matter stand beside the many easy ones."""
    width = (table["end"] - table["start"]) / 2
    for i, (kind, colour, pattern) in enumerate(zip(sides, (BLUE, ORANGE), ("", "/"), strict=True)):
        figure.add_bar(
            x=table["start"] + (i + 0.5) * width, y=table[kind], width=width, name=sides[kind],
            marker={"color": colour, "opacity": 0.75, "pattern": {"shape": pattern}},
            meta=label, customdata=table[["start", "end"]].to_numpy().tolist(),
            hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f}: %{y}<extra></extra>",
        )  # fmt: skip
    most = float(table[list(sides)].to_numpy().max(initial=2))
    figure.update_layout(barmode="overlay")
    return figure.update_yaxes(type="log", range=[-0.3, np.log10(most) + 0.1], dtick=1, tickformat=",d")


def _curves(
    curves: Mapping[str, pd.DataFrame], areas: Mapping[str, float | None] | None, x: str, y: str, area: str, what: str
) -> Figure:
    numbers = {name: value for name, value in (areas or {}).items() if value is not None}
    figure = empty_figure(
        f"{what} of {', '.join(curves)}. "
        + " ".join(f"{name}: {area} {value:.3f}." for name, value in numbers.items()),
        x.replace("_", " "),
        y.replace("_", " "),
    )
    for i, (name, table) in enumerate(curves.items()):
        shown = f"{name} ({numbers[name]:.3f})" if name in numbers else name
        _line(figure, table, x, y, escape(shown), i, band=len(curves) == 1, label=name)
    return figure


def _diagonal(figure: Figure, name: str) -> None:
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name=name, line={"color": INK, "dash": "dot", "width": 1},
                       hoverinfo="skip")  # fmt: skip


def _unit(figure: Figure) -> Figure:
    return figure.update_xaxes(range=[-0.01, 1.01]).update_yaxes(range=[-0.01, 1.02])


def _cell_text(cell: Mapping[Any, Any]) -> str:
    return f"{cell['share']:.1%}<br>{cell['low']:.0%} to {cell['high']:.0%}" if cell["of"] else "no images"
