"""A long strip: the verdict on the whole, on each tile along it, and what influenced it; any part at full size."""

import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.maps import legends, opacity
from dashboard.components.common.progress import result_of
from dashboard.components.common.text import capital, plain
from dashboard.components.common.verdict import marked, words
from dashboard.services.datasets import Source
from dashboard.services.models import Predictor
from dashboard.services.strips import TiledPrediction
from steel_core.render import percent, plots
from steel_core.types import CLEAR, UNFAMILIAR, Attribution, Prediction

_TALL, _WIDE = 720, 480  # pixels of an upright part on the page, at most
_BREADTHS = (1, 2, 4, 8)  # tiles in view


def strip(model: Predictor, source: Source, tiled: TiledPrediction | None = None) -> None:
    """The strip's verdict and viewer; or how far the worker is that judges its tiles, where they were not judged."""
    st.subheader("Tile by tile")
    if tiled is None:
        offer = functools.partial(_offer, "Judge this strip", services.strips.judge_again, model, source)
        tiled = result_of(services.strips.judge(model, source), f"strip {source.key}", offer)
    if tiled:
        _viewer(model, source, tiled)


def _offer(words: str, begin: Callable[..., None], *of: Any) -> None:
    st.button(words, on_click=begin, args=of, icon=":material/play_arrow:")


@st.fragment
@guarded()
def _viewer(model: Predictor, source: Source, tiled: TiledPrediction) -> None:
    worst = tiled.predictions[tiled.worst]
    count = ", ".join(f"{n:,} {plain(outcome)}" for outcome, n in tiled.counts.items())
    st.markdown(f"## {marked(tiled.verdict)}")
    st.markdown(f"{_why(tiled.worst + 1, worst)} **{len(tiled.tiles):,} tiles:** {count}.")
    st.caption(
        f":material/info: One look at {tiled.width:,} × {tiled.height:,} pixels would lose small defects, so the model "
        "looks at overlapping tiles, one by one. The more tiles, the likelier a false call."
        + (f" {capital(tiled.black_ends)}." if tiled.black_ends else "")
    )
    key = f"tile {source.key} {model.hash}"  # each strip begins with its own worst tile and that tile's class

    def from_plot() -> None:
        for point in st.session_state["strip"]["selection"]["points"][:1]:
            st.session_state[key] = int(point["customdata"])

    with st.grid(3, min_column_width=200):
        number = st.number_input("Tile", 1, len(tiled.tiles), tiled.worst + 1, key=key) - 1
        breadth = st.segmented_control(
            "Tiles in view", _BREADTHS, default=4, required=True, help="How much of the strip is shown at full size."
        )
        target = st.selectbox(
            "Class to explain",
            model.classes,
            index=model.classes.index(worst.pred),
            key=f"strip target {source.key} {model.hash}",
            help="One class for the whole strip, so that its tiles can be compared. The worst tile's comes first.",
        )
    with st.grid(3, min_column_width=200):
        strength = opacity()
        with_map = st.toggle("Show what influenced the model", value=True, key="strip map")
    stitched = None
    if with_map:
        offer = functools.partial(_offer, "Make the map", services.strips.explain_again, model, source, target)
        stitched = result_of(services.strips.explain(model, source, target), f"map {source.key}", offer)
    figure = services.strips.plot(model, source, tiled, number, stitched, strength)
    st.plotly_chart(
        figure,
        theme=None,
        key="strip",
        on_select=from_plot,
        selection_mode="points",
        alt=plots.alternative(figure),
        config={"displaylogo": False, "scrollZoom": True},
    )
    tile = tiled.predictions[number]
    st.markdown(f"**Tile {number + 1}:** {marked(tile)} · {plain(tile.pred)} {percent(tile.confidence)}")
    shown = services.strips.window(tiled, number, breadth)
    place = f"columns {shown.xmin:,} to {shown.xmax:,}, rows {shown.ymin:,} to {shown.ymax:,}"
    height, width = shown.ymax - shown.ymin, shown.xmax - shown.xmin
    with st.container(horizontal=height >= width):  # upright parts stand side by side, wide ones one below the other
        for attribution in [None, stitched] if stitched else [None]:
            st.image(
                services.strips.close_up(model, source, shown, attribution, strength),
                width="stretch" if width > height else min(_WIDE, round(_TALL * width / height)),
                alt=f"{source.name}, {place}, {f'Grad-CAM for {target}' if attribution else 'as it came'}",
            )
    if stitched:
        _explained(model, stitched, tiled)
    st.caption(f"In view: {place}.")
    with st.expander("All tiles as a table", expanded=False):
        _as_table(tiled, key)


def _as_table(tiled: TiledPrediction, key: str) -> None:
    def choose() -> None:
        for row in st.session_state["tiles"]["selection"]["rows"][:1]:
            st.session_state[key] = row + 1

    st.dataframe(
        pd.DataFrame(
            {
                "Tile": i,
                "From the left": box.xmin,
                "From the top": box.ymin,
                "Verdict": words(one),
                "Likeliest": one.pred,
                "Confidence": one.confidence,
                "Clear": one.outcome == CLEAR,
            }
            for i, (box, one) in enumerate(zip(tiled.tiles, tiled.predictions, strict=True), 1)
        ),
        hide_index=True,
        key="tiles",
        on_select=choose,
        selection_mode="single-row",
        column_config={"Confidence": st.column_config.NumberColumn(format="percent")},
        alt="Verdict of each tile",
    )


def _why(number: int, worst: Prediction) -> str:
    sure = percent(worst.confidence)
    if worst.outcome == CLEAR and worst.defects is None:
        return f"Every tile is clear; the least sure is number {number}, at {sure}."
    reason = f"most likely {plain(worst.pred)}, at {sure}"
    if not worst.judgeable:
        reason = "it cannot be judged"
    elif worst.outcome == UNFAMILIAR:
        reason = "it is unlike all that this model has learnt from"
    return f"The picture is as bad as its worst tile, number {number}: {reason}."


def _explained(model: Predictor, attribution: Attribution, of: TiledPrediction) -> None:
    scale, fixed = model.map_scale(attribution)
    st.markdown(
        f"Red: here the model saw signs of **{plain(attribution.target)}**; blue: signs against it; grey: none. "
        + ("The colours mean the same in every image." if fixed else "Other images' colours do not compare with these.")
    )
    legends([attribution.method])
    st.markdown(f":material/info: {services.maps.CAUTION}")
    facts = (
        f"The {services.maps.method(attribution.method).title} maps of {len(of.tiles):,} tiles, "
        "joined where they overlap",
        f"Model: {model.card.title}",
        f"Layer that it reads: {attribution.layer}",
        f"Full colour at evidence of {scale:.2g}{', fixed on validation images' if fixed else ''}",
        f"Made in {max(attribution.seconds, 0.1):.1f} s",
    )
    st.caption("How this map was made", help="  \n".join(plain(fact) for fact in facts))
