"""Plots as PNG without a browser: matplotlib draws what `plots` has described for Plotly.

Plotly's own export (kaleido) starts Chrome, which a plant's server need not have. Only what `plots` uses is known here.
"""

import html
import io
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, PercentFormatter

from steel_core.render import plots
from steel_core.render.fonts import find_font_files

_DASHES: dict[str | None, Any] = {
    "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3)), "longdashdot": (0, (8, 3, 2, 3)),
}  # fmt: skip
_MARKERS = {"diamond": "D", "line-ns-open": "|"}
_GREY = "#c9ced3"


def png(figure: plots.Figure, title: str = "") -> bytes:
    """A figure of `plots` on white, 1,500 pixels wide; its sentence for those who cannot see it lies in the file."""
    drawing = Figure(figsize=(10, max(5.0, (figure.layout.height or 420) / 84)), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    second = axes.twinx() if any(trace.yaxis == "y2" for trace in figure.data if trace.type == "scatter") else axes
    for trace in figure.data:
        {"scatter": _scatter, "bar": _bar, "heatmap": _heatmap}[trace.type](
            second if trace.type == "scatter" and trace.yaxis == "y2" else axes, trace
        )
    layout = figure.layout
    _axis(axes, "x", layout.xaxis)
    _axis(axes, "y", layout.yaxis)
    if second is not axes:
        _axis(second, "y", layout.yaxis2)
    for shape in layout.shapes:
        axes.axvline(shape.x0, color=plots.INK, linestyle=":")
    named = [
        pair for each in dict.fromkeys((axes, second)) for pair in zip(*each.get_legend_handles_labels(), strict=True)
    ]
    if len(named) > 1:
        drawing.legend(*zip(*named, strict=True), loc="outside lower center", ncols=3, frameon=False)
    if title:
        axes.set_title(title, loc="left")
    _set_fonts(drawing)
    sink = io.BytesIO()
    drawing.savefig(sink, format="png", dpi=150, metadata={"Title": title, "Description": plots.alternative(figure)})
    return sink.getvalue()


def pngs(figures: Mapping[str, plots.Figure]) -> dict[str, bytes]:
    """Each plot by its heading as a file: name and content."""
    return {f"{heading.lower().replace(' ', '-')}.png": png(figure, heading) for heading, figure in figures.items()}


def _set_fonts(drawing: Figure) -> None:
    families = _register_families()
    for text in drawing.findobj(Text):
        text.set_fontfamily(families)
    for axes in drawing.axes:
        axes.tick_params(labelfontfamily=families)


@cache
def _register_families() -> list[str]:
    for file in find_font_files():
        font_manager.fontManager.addfont(file)
    return [font_manager.FontProperties(fname=file).get_name() for file in find_font_files()]


def _scatter(axes: Axes, trace: Any) -> None:
    x, y, name = _values(trace.x), _values(trace.y), _text(trace.name)
    if trace.fill == "toself":
        axes.fill(x, y, color=trace.fillcolor, alpha=0.2, linewidth=0, label=name)
        return
    colour = trace.line.color or (trace.marker.color if isinstance(trace.marker.color, str) else plots.BLUE)
    if "lines" in trace.mode:
        axes.plot(x, y, color=colour, linestyle=_DASHES.get(trace.line.dash, "-"), label=name)
    for way, error in (("xerr", trace.error_x), ("yerr", trace.error_y)):
        if error.array is not None:
            ends: Any = {way: [error.arrayminus, error.array]}
            axes.errorbar(x, y, **ends, fmt="none", ecolor=error.color or colour, capsize=3)
    if "markers" in trace.mode and trace.marker.opacity != 0:
        label = None if "lines" in trace.mode else name
        colours, symbols = (_each(v, len(x)) for v in (trace.marker.color or colour, trace.marker.symbol))
        for i, (one, symbol) in enumerate(zip(colours, symbols, strict=True)):
            axes.scatter(x[i : i + 1], y[i : i + 1], color=one, marker=_MARKERS.get(symbol, "o"), zorder=3,
                         label=None if i else label)  # fmt: skip


def _bar(axes: Axes, trace: Any) -> None:
    axes.bar(_values(trace.x), _values(trace.y), width=trace.width, color=trace.marker.color,
             alpha=trace.marker.opacity, hatch=trace.marker.pattern.shape or None, label=_text(trace.name))  # fmt: skip


def _heatmap(axes: Axes, trace: Any) -> None:
    values = np.ma.masked_invalid(np.asarray(trace.z, dtype=float))
    scale = LinearSegmentedColormap.from_list("", [tuple(stop) for stop in trace.colorscale])
    colours = scale.with_extremes(bad=plots.FEW)
    axes.imshow(values, cmap=colours, vmin=trace.zmin, vmax=trace.zmax, aspect="auto")
    for y, x in np.ndindex(values.shape):
        dark = trace.zmin == 0 and values.filled(0)[y, x] > trace.zmax / 2  # a diverging scale has no dark end
        axes.text(x, y, _text(trace.text[y][x]), ha="center", va="center", fontsize=8,
                  color="white" if dark else "black")  # fmt: skip
    axes.set_xticks(range(values.shape[1]), [_text(name) for name in trace.x], rotation=30, ha="right")
    axes.set_yticks(range(values.shape[0]), [_text(name) for name in trace.y])


def _axis(axes: Axes, which: Literal["x", "y"], about: Any) -> None:
    axis = getattr(axes, f"{which}axis")
    axis.set_label_text(_text(about.title.text))
    if about.type == "log":
        getattr(axes, f"set_{which}scale")("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    elif about.tickformat and about.tickformat.endswith("%"):
        axis.set_major_formatter(PercentFormatter(1.0))
    if about.range is not None:
        ends = [10**end for end in about.range] if about.type == "log" else about.range
        getattr(axes, f"set_{which}lim")(*ends)
    elif about.rangemode == "tozero":
        getattr(axes, f"set_{which}lim")(**{"left" if which == "x" else "bottom": 0})
    if about.showgrid is not False:
        axes.grid(visible=True, axis=which, color=_GREY, linewidth=0.5)
        axes.set_axisbelow(True)


def _values(column: Any) -> Any:
    values = np.asarray(column)
    return [_text(v) for v in values] if values.dtype.kind in "UO" and isinstance(values.flat[0], str) else values


def _each(value: Any, n: int) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list, np.ndarray)) else [value] * n


def _text(text: str | None) -> str:
    return html.unescape((text or "").replace("<br>", "\n"))
