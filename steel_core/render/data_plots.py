"""The plots of a data set: counts, distributions by class, places of defects, the map of features, a strip's tiles.

They need a summary, never a row an image, so that a million draw fast. The map alone has up to `DRAWN` points.

Legend: N images, M images drawn.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from steel_core.metrics import wilson_interval
from steel_core.render.plots import BLUE, DASHES, FEW, INK, ORANGE, SERIES, Figure, empty_figure
from steel_core.types import CLEAR, REFER, UNFAMILIAR, AnyArray, BoolArray, Box, Float64Array, UInt8Array

DRAWN = 20_000  # points of a map: as many as a browser moves without stumbling

CLASSES = 8  # classes that one plot tells apart

MARKS = tuple(zip(SERIES, "●■◆✚✖▲★⬢", strict=False))
"""Colour and sign of each class in a plot of distributions, in the order in which they are given."""

_BINS = (8, 40)  # of a distribution: fewest, most; about the root of the images of a class
_CELLS = 20  # a side of the plot of places
_PLAIN = 5_000  # points up to which a browser needs no WebGL
_LONG = 2  # a picture whose sides differ more is drawn as a strip, stretched across; others are true to scale
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
_OUTCOMES = {CLEAR: ("#009e73", "/"), REFER: ("#e69f00", "?"), UNFAMILIAR: ("#e69f00", "?")}


def class_counts(counts: Mapping[str, int], of: int) -> Figure:
    """How many images each class ("" for unlabelled ones) has, as bars with the 95 % interval (Wilson) of its share."""
    names = [name or "unlabelled" for name in counts]
    n = np.array(list(counts.values()))
    ends = np.array([wilson_interval(k / of, of) for k in n]).reshape(-1, 2) * of
    figure = empty_figure(
        f"Images of each class, of {of:,}: " + ", ".join(f"{a} {b:,}" for a, b in zip(names, n, strict=True)),
        "images (95 % interval)",
        "",
    )
    figure.add_bar(
        x=n, y=[escape(name) for name in names], orientation="h", marker={"color": BLUE}, text=[f"{k:,}" for k in n],
        textposition="inside", insidetextanchor="start", insidetextfont={"color": "#ffffff"},
        customdata=list(counts),
        error_x={"array": ends[:, 1] - n, "arrayminus": n - ends[:, 0], "color": INK},
        hovertemplate="%{y}: %{x:,}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure.update_layout(height=110 + 30 * len(names), clickmode="event+select", dragmode=False)


def clue_strengths(
    names: Sequence[str], strengths: Float64Array, intervals: Float64Array, alarming: BoolArray, alarm: float
) -> Figure:
    """How well each clue (N,) alone tells a class, with 95 % intervals (N, 2); orange with a sign where it alarms."""
    said = "; ".join(f"{name} {value:.2f}" for name, value in zip(names, strengths, strict=True))
    figure = empty_figure(
        f"How well each alone tells a class, from 0 (not at all) to 1 (every image), alarm above {alarm:.2f}: {said}.",
        "strength (95 %)",
        "",
    )
    signed = [f"{escape(name)}{' ⚠' if loud else ''}" for name, loud in zip(names, alarming, strict=True)]
    shown = np.clip(strengths, 0, 1)
    figure.add_bar(
        x=shown, y=signed, orientation="h", marker={"color": np.where(alarming, ORANGE, FEW).tolist(), "opacity": 0.7},
        width=0.6,
        error_x={
            "array": np.maximum(np.clip(intervals[:, 1], 0, 1) - shown, 0),
            "arrayminus": np.maximum(shown - np.clip(intervals[:, 0], 0, 1), 0), "color": INK,
        },
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=alarm, line={"color": INK, "dash": "dot", "width": 1})
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(range=[0, 1], fixedrange=True, title_font_size=13)
    return figure.update_layout(height=80 + 30 * len(names), margin={"t": 5, "b": 45, "l": 10}, dragmode=False)


def distributions(values: Mapping[str, Float64Array], name: str, title: str) -> Figure:
    """The share of each class's images over the range of a number. `MARKS` tell the classes apart.

    `values` are of at most `CLASSES` classes, without missing ones; the figure holds `name` as its `meta["name"]`.
    """
    medians = [f"{c or 'unlabelled'} {np.median(v):.3g} (n = {len(v):,})" for c, v in values.items() if len(v)]
    figure = empty_figure(f"Distribution of {title} by class. Medians: {', '.join(medians)}.", "", "share of the class")
    figure.layout.meta["name"] = name
    everything = np.concatenate([np.zeros(0), *values.values()])
    low, high = (float(everything.min()), float(everything.max())) if len(everything) else (0.0, 1.0)
    bins = int(np.clip(np.sqrt(len(everything) / max(len(values), 1)), *_BINS))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for i, (label, numbers) in enumerate(values.items()):
        share = np.histogram(numbers, edges)[0] / max(len(numbers), 1)
        figure.add_scatter(
            x=(edges[:-1] + edges[1:]) / 2, y=share, mode="lines+markers", showlegend=False,
            marker={"size": np.where(share > 0, 7, 0), "symbol": _SYMBOLS[i]},
            line={"color": SERIES[i], "dash": DASHES[i % len(DASHES)], "shape": "hvh", "width": 2},
            hovertemplate="%{x:.3g}: %{y:.1%}<extra>" + (escape(label) or "unlabelled") + "</extra>",
        )  # fmt: skip
    figure.update_layout(height=260, margin={"t": 10, "b": 40})
    return figure.update_yaxes(tickformat=".0%", rangemode="tozero")


def defect_places(rows: Float64Array, columns: Float64Array) -> Figure:
    """Where the centres of defects lie (N,), in shares of the picture's sides from top and left, counted in cells."""
    finite = np.isfinite(rows) & np.isfinite(columns)
    edges = np.linspace(0, 1, _CELLS + 1)
    counts = np.histogram2d(rows[finite], columns[finite], (edges, edges))[0]
    inner = slice(_CELLS // 4, -_CELLS // 4)
    share = counts[inner, inner].sum() / max(finite.sum(), 1)
    figure = empty_figure(
        f"Where the centres of {int(finite.sum()):,} defects lie: {share:.0%} in the middle quarter of the picture.",
        "from the left",
        "from the top",
    )
    middle = (edges[:-1] + edges[1:]) / 2
    figure.add_heatmap(
        z=counts, x=middle, y=middle, colorscale=[[0, "rgba(0,114,178,0)"], [1, BLUE]], zmin=0,
        colorbar={"title": "images"}, hoverinfo="skip",
    )  # fmt: skip
    down, across = np.meshgrid(middle, middle, indexing="ij")
    figure.add_scatter(
        x=across.ravel(), y=down.ravel(), mode="markers", marker={"size": 8, "opacity": 0.01, "color": INK},
        selected={"marker": {"opacity": 0.7, "color": ORANGE}}, unselected={"marker": {"opacity": 0.01}},
        text=[f"{int(n)} images" for n in counts.ravel()], hovertemplate="%{text}<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(range=[0, 1], tickformat=".0%", showgrid=False, constrain="domain")
    figure.update_yaxes(range=[1, 0], tickformat=".0%", showgrid=False, scaleanchor="x", constrain="domain")
    return figure.update_layout(height=360)


def feature_map(places: AnyArray, names: Sequence[str], by: pd.Series, title: str) -> Figure:
    """Places (M, 2) of images on the map of a model's features, coloured by a category or a number (M,)."""
    figure = empty_figure(f"Map of {len(names):,} images: those that the model sees alike lie together.", "", "")
    add = figure.add_scatter if len(names) <= _PLAIN else figure.add_scattergl
    text = np.array([escape(name) for name in names], object)
    if isinstance(by.dtype, pd.CategoricalDtype):
        kinds = list(by.value_counts().index[:CLASSES])
        rest = ~by.isin(kinds).to_numpy()
        groups = [(str(kind).replace("|", ", ") or "none", (by == kind).to_numpy()) for kind in kinds]
        groups += [("others", rest)] if rest.any() else []
        for i, (kind, mine) in enumerate(groups):
            if mine.any():
                add(
                    x=places[mine, 0], y=places[mine, 1], mode="markers", name=f"{escape(kind)} ({int(mine.sum()):,})",
                    text=text[mine], hovertemplate="%{text}<extra>" + escape(kind) + "</extra>",
                    marker={"size": 7, "color": SERIES[i % len(SERIES)] if kind != "others" else INK,
                            "symbol": _SYMBOLS[i % len(_SYMBOLS)], "opacity": 0.8},
                )  # fmt: skip
    else:
        shown = by.to_numpy(float)
        low, high = np.nanpercentile(shown, [2, 98]) if np.isfinite(shown).any() else (0.0, 1.0)
        add(
            x=places[:, 0], y=places[:, 1], mode="markers", text=text, customdata=shown,
            hovertemplate="%{text}: %{customdata:.3g}<extra></extra>",
            marker={"size": 7, "opacity": 0.85, "color": shown, "colorscale": "Cividis", "cmin": low, "cmax": high,
                    "colorbar": {"title": escape(title)}, "showscale": True},
        )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(height=560, dragmode="lasso", margin={"l": 0, "r": 0, "t": 10, "b": 10})


def strip_tiles(
    picture: UInt8Array, size: tuple[int, int], tiles: Sequence[Box], outcomes: Sequence[str], chosen: int
) -> Figure:
    """A strip with its tiles marked by their verdicts, to scroll and zoom in. An upright one is turned onto its side.

    The picture (H', W', 3) is shrunk; `size` (height, width) and `tiles` are in pixels of the strip as it came. The
    tile of index `chosen` is outlined; on the plot the first tile is number 1.
    """
    from PIL import Image  # noqa: PLC0415 - only this plot holds a picture

    height, width = size
    bad = sum(outcome != CLEAR for outcome in outcomes)
    sentence = f"A strip of {width:,} x {height:,} pixels in {len(tiles):,} tiles, {bad:,} of them not clear."
    along, is_long = "pixels from the left", max(size) > _LONG * min(size)
    if is_long and height > width:
        picture, along = np.rot90(picture), "pixels from the top, which is at the left"
        tiles = [Box("", box.ymin, width - box.xmax, box.ymax, width - box.xmin) for box in tiles]
        height, width = width, height
    figure = empty_figure(sentence, along, "")
    figure.add_layout_image(
        source=Image.fromarray(picture), x=0, y=0, sizex=width, sizey=height, xref="x", yref="y", sizing="stretch",
        layer="below",
    )  # fmt: skip
    for outcome in dict.fromkeys(outcomes):
        mine = [i for i, one in enumerate(outcomes) if one == outcome]
        colour, sign = _OUTCOMES.get(outcome, (ORANGE, "!"))
        figure.add_scatter(
            x=[(tiles[i].xmin + tiles[i].xmax) / 2 for i in mine],
            y=[(tiles[i].ymin + tiles[i].ymax) / 2 for i in mine],
            mode="markers+text", text=sign if outcome != CLEAR else "", name=f"{escape(outcome)} ({len(mine):,})",
            textfont={"color": "#000000", "size": 13}, customdata=[i + 1 for i in mine],
            marker={"size": 18, "color": colour, "opacity": 0.75, "symbol": "square" if outcome != CLEAR else "circle",
                    "line": {"color": "#000000", "width": 1}},
            hovertemplate=f"tile %{{customdata}}: {escape(outcome)}<extra></extra>",
        )  # fmt: skip
    box = tiles[chosen]
    figure.add_shape(
        type="rect", x0=box.xmin, x1=box.xmax, y0=box.ymin, y1=box.ymax, line={"color": ORANGE, "width": 3}
    )  # fmt: skip
    span = min(width, 8 * height) if width > height else width
    left = min(max((box.xmin + box.xmax) / 2 - span / 2, 0), width - span)
    figure.update_xaxes(
        range=[left, left + span], showgrid=False, rangeslider={"visible": width > span, "thickness": 0.12}
    )
    figure.update_yaxes(range=[height, 0], visible=False, fixedrange=is_long)
    if not is_long:
        figure.update_yaxes(scaleanchor="x", constrain="domain")
        figure.update_xaxes(constrain="domain")
    return figure.update_layout(height=420 if is_long else 800, dragmode="pan", clickmode="event+select")
