"""A long strip: the verdict on the whole, on each tile along it, and one tile at full size."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.explore.long_work import watched
from dashboard.components.guard import guarded
from dashboard.components.text import plain
from dashboard.components.verdict import marked, words
from steel_core.render import percent
from steel_core.types import CLEAR

_POLL = 1.0  # seconds
_TILE, _TILES = "tile", "tiles"


def strip(model: services.models.Predictor, source: services.datasets.Source) -> None:
    """The strip's verdict and viewer; or how far the worker is that judges its tiles."""
    st.subheader("Tile by tile")
    job = services.explore.judging(model, source)
    if not job.made.done():
        st.fragment(run_every=_POLL)(watched)(job, f"strip {source.key}")
        return
    if job.stopped:
        st.button(
            "Judge this strip",
            on_click=services.explore.judge_again,
            args=(model, source),
            icon=":material/play_arrow:",
        )
        return
    _viewer(model, source, job.made.result())


@st.fragment
@guarded()
def _viewer(model: services.models.Predictor, source: services.datasets.Source, found: services.explore.Strip) -> None:
    worst = found.predictions[found.worst]
    count = ", ".join(f"{n:,} {plain(outcome)}" for outcome, n in found.counts.items())
    st.markdown(f"## {marked(worst)}")
    st.markdown(
        f"The strip is as bad as its worst tile, number {found.worst + 1}: {plain(words(worst))} "
        f"({plain(worst.pred)} at {percent(worst.confidence)}). **{len(found.tiles):,} tiles:** {count}."
    )
    st.caption(
        f":material/info: {found.width:,} × {found.height:,} pixels, too long to be judged at one look. Each tile is "
        "judged on its own, neighbours overlap by a quarter, and false calls add up along the strip."
    )
    if _TILE not in st.session_state or st.session_state[_TILE] > len(found.tiles):
        st.session_state[_TILE] = found.worst + 1

    def from_plot() -> None:
        for point in st.session_state["strip"]["selection"]["points"][:1]:
            st.session_state[_TILE] = int(point["customdata"]) + 1

    def from_table() -> None:
        for row in st.session_state[_TILES]["selection"]["rows"][:1]:
            st.session_state[_TILE] = row + 1

    number = st.number_input("Tile", 1, len(found.tiles), key=_TILE, width=160) - 1
    figure = services.explore.strip_figure(source, found, number)
    st.plotly_chart(
        figure,
        theme=None,
        key="strip",
        on_select=from_plot,
        selection_mode="points",
        alt=services.evaluation.alternative(figure),
        config={"displaylogo": False, "scrollZoom": True},
    )
    said = found.predictions[number]
    st.markdown(f"**Tile {number + 1}:** {marked(said)} · {plain(said.pred)} {percent(said.confidence)}")
    picture, overlay = services.explore.tile(model, source, found, number)
    with st.grid(2, min_column_width=200, width=820):
        st.image(picture, width="stretch", alt=f"Tile {number + 1} of {source.name}")
        st.image(overlay, width="stretch", alt=f"Grad-CAM of tile {number + 1} for {said.pred}")
    st.caption(f"Right: Grad-CAM for {plain(said.pred)}. {services.maps.CAUTION}")
    with st.expander("All tiles as a table", expanded=False):
        st.dataframe(
            pd.DataFrame(
                {
                    "Tile": i + 1,
                    "From the left": box.xmin,
                    "From the top": box.ymin,
                    "Verdict": words(one),
                    "Likeliest": one.pred,
                    "Confidence": one.confidence,
                    "Clear": one.outcome == CLEAR,
                }
                for i, (box, one) in enumerate(zip(found.tiles, found.predictions, strict=True))
            ),
            hide_index=True,
            key=_TILES,
            on_select=from_table,
            selection_mode="single-row",
            column_config={"Confidence": st.column_config.NumberColumn(format="percent")},
            alt="Verdict of each tile",
        )
