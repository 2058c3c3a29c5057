"""A long strip: the verdict on the whole, on each tile along it, and what influenced it; any part at full size."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.guard import guarded
from dashboard.components.maps import legends, opacity
from dashboard.components.progress import watched
from dashboard.components.text import plain
from dashboard.components.verdict import marked, words
from steel_core.render import percent
from steel_core.types import CLEAR, Attribution

_TILE, _TILES = "tile", "tiles"
_BREADTHS = (1, 2, 4, 8)  # tiles in view


def strip(
    model: services.models.Predictor, source: services.datasets.Source, judged: services.looks.Judged | None = None
) -> None:
    """The strip's verdict and viewer; or how far the worker is that judges its tiles, where they were not judged."""
    st.subheader("Tile by tile")
    if judged:
        _viewer(model, source, judged)
        return
    job = services.explore.judging(model, source)
    if job.at_work:
        watched(job, f"strip {source.key}")
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
def _viewer(model: services.models.Predictor, source: services.datasets.Source, found: services.looks.Judged) -> None:
    worst = found.predictions[found.worst]
    count = ", ".join(f"{n:,} {plain(outcome)}" for outcome, n in found.counts.items())
    st.markdown(f"## {marked(found.verdict)}")
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

    with st.grid(3, min_column_width=200):
        number = st.number_input("Tile", 1, len(found.tiles), key=_TILE) - 1
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
    stitched = _stitched(model, source, target) if with_map else None
    figure = services.explore.strip_figure(model, source, found, number, stitched, strength)
    st.plotly_chart(
        figure,
        theme=None,
        key="strip",
        on_select=from_plot,
        selection_mode="points",
        alt=services.evaluation.alternative(figure),
        config={"displaylogo": False, "scrollZoom": True},
    )
    said, shown = found.predictions[number], services.explore.window(found, number, breadth)
    st.markdown(f"**Tile {number + 1}:** {marked(said)} · {plain(said.pred)} {percent(said.confidence)}")
    place = f"columns {shown.xmin:,} to {shown.xmax:,}, rows {shown.ymin:,} to {shown.ymax:,}"
    st.image(
        services.explore.close_up(model, source, shown, None, strength),
        width="stretch",
        alt=f"{source.name}, {place}, as it came",
    )
    if stitched:
        st.image(
            services.explore.close_up(model, source, shown, stitched, strength),
            width="stretch",
            alt=f"{source.name}, {place}, Grad-CAM for {target}",
        )
        _explained(model, stitched)
    st.caption(f"In view: {place}.")
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


def _stitched(model: services.models.Predictor, source: services.datasets.Source, target: str) -> Attribution | None:
    """The map of the whole strip; or None, and how far the worker is that makes it."""
    job = services.explore.mapping(model, source, target)
    if job.at_work:
        watched(job, f"map {source.key}")
        return None
    if job.stopped:
        st.button(
            "Make the map",
            on_click=services.explore.map_again,
            args=(model, source, target),
            icon=":material/play_arrow:",
        )
        return None
    return job.made.result()


def _explained(model: services.models.Predictor, found: Attribution) -> None:
    """Legend, scale and origin of the map."""
    legends([found.method])
    scale, fixed = model.map_scale(found)
    of_what = "fixed on validation images" if fixed else "of this strip alone: not comparable with other images"
    st.caption(
        f"Grad-CAM for {plain(found.target)}, stitched from overlapping tiles · layer {plain(found.layer)} · full "
        f"colour at {scale:.2g}, {of_what} · {plain(model.card.title)} · {max(found.seconds, 0.1):.1f} s"
    )
    st.markdown(f":material/info: {services.maps.CAUTION}")
