"""How good the methods are: the table with intervals, the plots, and the images behind an estimate."""

import itertools
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.gallery import gallery
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.text import capital, plain
from dashboard.services.models import QualityEstimate, QualityTable
from steel_core.render.plots import SERIES, Figure, empty_figure

_FIRST = ("dice", "pointing-game", "energy-pointing-game", "road", "noise-change", "randomised-model")
_SMALL = 50  # images: below it the page warns
_SHOWN = 6  # images at each end
_MARKS = {True: "yes", False: "no, it survives", None: "not clear"}


def headline(model: str, quality: QualityTable) -> None:
    """The finding in one sentence, and on what it rests."""
    dice = {name: of["dice"] for name, of in quality.methods.items() if "dice" in of}
    if dice:
        best = max((name for name in dice if not _is_control(name)), key=lambda n: dice[n].value or 0)
        controls = " and ".join(
            f"{_in_words(dice[name])} for {_title(name).removeprefix('Control: ')}"
            for name in dice
            if _is_control(name)
        )
        yardstick = f", against {controls}, which know nothing of the model" if controls else ""
        rivals = [dice[name].high for name in dice if _is_control(name)]
        low = dice[best].low
        if low is None or any(high is None or high >= low for high in rivals):
            yardstick += "; the intervals overlap, so that it beats both controls is not shown"
        kept = quality.methods[best].get("randomised-model")  # a picture of edges keeps all when the model forgets
        survival = (
            f" Its likeness to the map of a model that has forgotten all it learnt is {_in_words(kept, of=0)}: "
            "0 shows the model alone, 1 the picture alone."
            if kept and kept.value is not None
            else ""
        )
        st.markdown(
            f"**{plain(_title(best))}** reaches the highest Dice, {_in_words(dice[best])}{yardstick}.{survival}"
        )
    truth = f" with {quality.evidence}" if quality.evidence else ""
    on = f"{quality.images:,} images of {plain(quality.data)}{truth}"
    st.caption(
        f"Measured on {on}, {plain(quality.date[:10])}. In brackets: 95 % confidence interval. "
        "n: images counted, where they are fewer, as for costly methods."
    )
    if sizes := services.quality.stand_in(model, quality.data):
        st.caption(
            f":material/info: These are {quality.images:,} of the {sizes[1]:,} images that the model was made with. "
            f"{capital(plain(quality.data))} as it lies here is another set, of {sizes[0]:,} images, on which the "
            "figures do not rest."
        )
    if quality.images < _SMALL:
        st.caption(f":material/info: {quality.images} images are a small sample: read the intervals, not the figures.")


def agreement(quality: QualityTable) -> None:
    """Which methods tell the same about an image: where two do not, at most one of them can be right."""
    pairs = pd.DataFrame(quality.agreement)
    if pairs.empty:
        return
    st.subheader("Do the methods agree?")
    names = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    titles = [_title(name) for name in names]
    grid = pd.DataFrame(math.nan, index=names, columns=names)
    words = pd.DataFrame("", index=names, columns=names)
    for pair in pairs.to_dict("records"):
        cell = (
            f"{pair['spearman']:.2f} ({pair['spearman_low']:.2f} to {pair['spearman_high']:.2f}), "
            f"strongest tenths: IoU {pair['top_iou']:.2f}, n {pair['n']:.0f}"
        )
        for row, column in ((pair["a"], pair["b"]), (pair["b"], pair["a"])):
            grid.loc[row, column], words.loc[row, column] = pair["spearman"], cell
    asking = [not _is_control(a) and not _is_control(b) for a, b in pairs[["a", "b"]].to_numpy()]
    least = (pairs[asking] if any(asking) else pairs).sort_values("spearman").to_dict("records")[0]
    lowest = f"{_title(least['a'])} and {_title(least['b'])}"
    figure = empty_figure(f"Rank correlation of each two methods; the lowest: {lowest}", "", "")
    figure.add_heatmap(
        z=grid,
        x=titles,
        y=titles,
        zmin=-1,
        zmax=1,
        colorscale="RdBu_r",
        texttemplate="%{z:.2f}",
        customdata=words,
        hovertemplate="%{y} and %{x}: %{customdata}<extra></extra>",
        colorbar={"title": "Rank<br>correlation"},
    )
    figure.update_layout(height=180 + 34 * len(names), margin={"l": 10, "r": 10, "t": 10, "b": 10})
    figure.update_xaxes(tickangle=-40)
    figure.update_yaxes(autorange="reversed")
    draw_plot(figure, "agreement")
    st.caption(
        f"Mean rank correlation of two methods' maps of the same image, n {pairs['n'].max():.0f}; intervals and the "
        f"overlap of the strongest tenths on hover. Farthest apart: {lowest}, {least['spearman']:.2f}."
    )


def table(quality: QualityTable) -> tuple[str, str] | None:
    """All methods and metrics; the method and metric of the chosen cell, or None."""
    all_of_them = st.toggle("All metrics", key="all metrics", help="Otherwise one or two of each family.")
    shown = [name for name in services.quality.metrics(quality) if all_of_them or name in _FIRST]
    methods = sorted(quality.methods, key=lambda name: (_is_control(name), -_value(quality, name, "dice")))
    rows = []
    for name in methods:
        of = quality.methods[name]
        cells = {_head(m): _in_words(of[m], of=quality.images) if m in of else "–" for m in shown}
        rate = quality.seconds.get(name)
        speed = {"Images a second": f"{1 / rate:.3g}" if rate else "–"}
        likeness = of.get("randomised-model")
        proven = services.quality.explains_model(likeness.low, likeness.high) if likeness else None
        rows.append({"Method": _title(name), "Explains this model": _MARKS[proven]} | cells | speed)
    event = st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        key="quality",
        on_select="rerun",
        selection_mode="single-cell",
        height=40 + 35 * len(rows),
        column_config={"Method": st.column_config.Column(pinned=True)},
        alt="Quality of each method by each metric, with intervals",
    )
    st.caption(
        "↑ more is better, ↓ less is better. **Explains this model**: after the model has forgotten what it learnt, "
        "the map must change; a map that stays shows the picture and not the model. "
        "Choose a cell to see the images behind."
    )
    by_head = {_head(m): m for m in shown}
    for row, head in event["selection"]["cells"][:1]:
        if head in by_head and by_head[head] in quality.methods[methods[row]]:
            return methods[row], by_head[head]
    return None


def plots(quality: QualityTable, rows: pd.DataFrame) -> None:
    """One metric of all methods with intervals, and class by class."""
    metrics = services.quality.metrics(quality)
    metric = st.selectbox(
        "Metric",
        metrics,
        index=metrics.index("dice") if "dice" in metrics else 0,
        format_func=_head,
        key="metric",
        bind="query-params",
    )
    about = services.quality.METRICS[metric]
    st.caption(f"{about.family.capitalize()}. Source: {plain(about.source)}")
    methods = [name for name in quality.methods if metric in quality.methods[name]]
    methods.sort(key=lambda name: _value(quality, name, metric))
    left, right = st.columns(2)
    measured = {name: quality.methods[name][metric] for name in methods}
    with left:
        values = pd.DataFrame.from_dict({name: vars(one) for name, one in measured.items()}, orient="index")
        in_words = "; ".join(f"{_title(name)} {_in_words(one)}" for name, one in reversed(measured.items()))
        what = f"{_head(metric)}, all classes (diamonds: controls)"
        draw_plot(
            _dots({"": values[["value", "low", "high", "n"]].astype(float)}, methods, what, in_words), "by method"
        )
    of_metric = rows[rows["metric"] == metric]
    with right:
        if of_metric.empty:
            st.info(
                "The values of each image are not stored here, so there are no figures by class. "
                "`python -m steel_core quality … --store` keeps them.",
                icon=":material/folder_off:",
            )
        else:
            table = services.quality.summarise_rows(of_metric, by_class=True).set_index("method")
            classes = {f"{name} (n {int(one['n'].max())})": one for name, one in table.groupby("class", sort=True)}
            in_words = f"{_head(metric)} of each method, by class, with intervals"
            draw_plot(_dots(classes, methods, f"{_head(metric)}, by class", in_words), "by class")


def behind(model: str, quality: QualityTable, rows: pd.DataFrame, method: str, metric: str) -> None:
    """The images with the best and the worst values of one figure, each leading to its map."""
    some = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    higher = services.quality.METRICS[metric].higher
    st.subheader(f"Behind {_head(metric)} of {_title(method)}")
    if some.empty:
        st.info("The values of each image are not stored with this model.", icon=":material/folder_off:")
        return
    some = some.sort_values("value", ascending=not higher, kind="stable")
    ends = (("Best", some.head(_SHOWN)), ("Worst", some.iloc[_SHOWN:].tail(_SHOWN).iloc[::-1]))
    for number, (title, part) in enumerate(ends):
        there = services.quality.images_behind(model, quality.data, list(part["file"]))
        values = dict(zip(part["file"], part["value"], strict=True))
        if not part.empty:
            st.markdown(f"**{title}**")
        if not there and not part.empty:
            st.caption(", ".join(f"{plain(name)} {value:.2f}" for name, value in values.items()))
            st.caption(f"The measured images of {plain(quality.data)} are not here, so they cannot be shown.")
        gallery(
            [(path, source, f"{values[source.name]:.2f}") for path, source in there],
            quality.data,
            columns=_SHOWN,
            page="explain",
            name=f"{number}-",
            also={"methods" if services.maps.is_quick(method) else "slow": _title(method)},
        )


def _dots(series: Mapping[str, pd.DataFrame], methods: Sequence[str], what: str, alternative: str) -> Figure:
    """Values by method (index; columns value, low, high, n) with intervals, the first of the methods at the bottom."""
    figure = empty_figure(alternative, what, "")
    for (name, values), colour in zip(series.items(), itertools.cycle(SERIES)):
        shown = values.reindex(list(methods)).dropna(subset=["value"])
        figure.add_scatter(
            x=shown["value"],
            y=[_title(method) for method in shown.index],
            error_x={
                "array": shown["high"] - shown["value"],
                "arrayminus": shown["value"] - shown["low"],
                "thickness": 1,
            },
            mode="markers",
            name=name,
            marker={
                "size": 10,
                "symbol": ["diamond-open" if _is_control(method) else "circle" for method in shown.index],
                "color": colour,
            },
            customdata=shown["n"],
            hovertemplate="%{y}: %{x:.3f}, n %{customdata}",
        )
    figure.update_yaxes(categoryorder="array", categoryarray=[_title(method) for method in methods])
    return figure.update_layout(height=150 + 34 * len(methods), scattermode="group", showlegend=len(series) > 1)


def _title(method: str) -> str:
    return services.maps.method(method).title


def _is_control(method: str) -> bool:
    return services.maps.method(method).control


def _head(metric: str) -> str:
    about = services.quality.METRICS[metric]
    return f"{about.title} {'↑' if about.higher else '↓'}"


def _value(quality: QualityTable, method: str, metric: str) -> float:
    estimate = quality.methods[method].get(metric)
    return -math.inf if estimate is None or estimate.value is None else estimate.value


def _in_words(estimate: QualityEstimate, of: int | None = None) -> str:
    if estimate.value is None:
        return "–"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{interval}" + (f" n {estimate.n}" if of not in (None, estimate.n) else "")
