"""A long strip: the verdict on the whole, on each tile along it, and what influenced it; any part at full size."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.maps import legends, opacity
from dashboard.components.common.progress import watched
from dashboard.components.common.text import capital, plain
from dashboard.components.common.verdict import marked, words
from steel_core.render import percent
from steel_core.types import CLEAR, UNFAMILIAR, Attribution, Prediction

_TALL, _WIDE = 720, 480  # pixels of an upright part on the page, at most
_BREADTHS = (1, 2, 4, 8)  # tiles in view


def strip(
    model: services.models.Predictor, source: services.datasets.Source, judged: services.images.Judged | None = None
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
def _viewer(model: services.models.Predictor, source: services.datasets.Source, found: services.images.Judged) -> None:
    worst = found.predictions[found.worst]
    count = ", ".join(f"{n:,} {plain(outcome)}" for outcome, n in found.counts.items())
    st.markdown(f"## {marked(found.verdict)}")
    st.markdown(f"{_why(found.worst + 1, worst)} **{len(found.tiles):,} tiles:** {count}.")
    st.caption(
        f":material/info: One look at {found.width:,} × {found.height:,} pixels would lose small defects, so the model "
        "looks at overlapping tiles, one by one. The more tiles, the likelier a false call."
        + (f" {capital(found.black_ends)}." if found.black_ends else "")
    )
    of_this = f"{source.key} {model.hash}"  # each strip begins with its own worst tile and that tile's class

    def from_plot() -> None:
        for point in st.session_state["strip"]["selection"]["points"][:1]:
            st.session_state[f"tile {of_this}"] = int(point["customdata"])

    def from_table() -> None:
        for row in st.session_state["tiles"]["selection"]["rows"][:1]:
            st.session_state[f"tile {of_this}"] = row + 1

    with st.grid(3, min_column_width=200):
        number = st.number_input("Tile", 1, len(found.tiles), found.worst + 1, key=f"tile {of_this}") - 1
        breadth = st.segmented_control(
            "Tiles in view", _BREADTHS, default=4, required=True, help="How much of the strip is shown at full size."
        )
        target = st.selectbox(
            "Class to explain",
            model.classes,
            index=model.classes.index(worst.pred),
            key=f"strip target {of_this}",
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
    height, width = shown.ymax - shown.ymin, shown.xmax - shown.xmin
    with st.container(horizontal=height >= width):  # upright parts stand side by side, wide ones one below the other
        for made in [None, stitched] if stitched else [None]:
            st.image(
                services.explore.close_up(model, source, shown, made, strength),
                width="stretch" if width > height else min(_WIDE, round(_TALL * width / height)),
                alt=f"{source.name}, {place}, {f'Grad-CAM for {target}' if made else 'as it came'}",
            )
    if stitched:
        _explained(model, stitched, found)
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
            key="tiles",
            on_select=from_table,
            selection_mode="single-row",
            column_config={"Confidence": st.column_config.NumberColumn(format="percent")},
            alt="Verdict of each tile",
        )


def _why(number: int, worst: Prediction) -> str:
    """What stands behind the verdict on a strip: its worst tile."""
    sure = percent(worst.confidence)
    if worst.outcome == CLEAR and worst.defects is None:
        return f"Every tile is clear; the least sure is number {number}, at {sure}."
    told = f"most likely {plain(worst.pred)}, at {sure}"
    if not worst.judgeable:
        told = "it cannot be judged"
    elif worst.outcome == UNFAMILIAR:
        told = "it is unlike all that this model has learnt from"
    return f"The picture is as bad as its worst tile, number {number}: {told}."


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


def _explained(model: services.models.Predictor, made: Attribution, of: services.images.Judged) -> None:
    """What the colours say, what to beware of, and how the map was made."""
    scale, fixed = model.map_scale(made)
    st.markdown(
        f"Red: here the model saw signs of **{plain(made.target)}**; blue: signs against it; grey: none. "
        + ("The colours mean the same in every image." if fixed else "Other images' colours do not compare with these.")
    )
    legends([made.method])
    st.markdown(f":material/info: {services.maps.CAUTION}")
    facts = (
        f"The {services.maps.method(made.method).title} maps of {len(of.tiles):,} tiles, joined where they overlap",
        f"Model: {model.card.title}",
        f"Layer that it reads: {made.layer}",
        f"Full colour at evidence of {scale:.2g}{', fixed on validation images' if fixed else ''}",
        f"Made in {max(made.seconds, 0.1):.1f} s",
    )
    st.caption("How this map was made", help="  \n".join(plain(fact) for fact in facts))
