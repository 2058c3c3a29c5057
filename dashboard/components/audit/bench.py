"""The live bench: one sheet, a stain that the visitor places and sizes, verdict and map before and after, controls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from dashboard import services
from dashboard.components.audit.stain import choose_image, which_stain
from dashboard.components.common.guard import guarded
from dashboard.components.common.intake import intake, pick
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import marked, words
from dashboard.services.bench import Stain, StainSettings
from dashboard.services.datasets import Refused, Source
from dashboard.services.images import FirstLook
from dashboard.services.models import Predictor
from steel_core.render import audit_plots, percent, thumbnail
from steel_core.types import CLEAR

_PAD = 21  # places a side that a click can choose


def live_bench(model: Predictor) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = _sheet()
        if name := services.bench.demonstration(model):
            label, choice = f"See a model with a planted shortcut: {plain(name)}", {"model": name}
            # A link that stays on this page would not move the choice above it.
            st.button(label, key="planted", on_click=st.session_state.update, args=(choice,), icon=":material/science:")
    if source is None:
        return
    seen = services.images.first_look(model, source)
    if isinstance(seen, Refused):
        st.error(plain(seen.sentence), icon=":material/broken_image:")
        return
    _bench(model, source, seen)


def _sheet() -> Source | None:
    brought = st.session_state.get("files") or st.query_params.get("image")
    offered = None if brought else choose_image("Defective sheet", services.bench.defective_sheets, "sheet")
    with st.popover("Another picture", icon=":material/upload:"):
        own = intake()
    if own:
        return pick(own)
    if offered is None:
        st.info("Here is no sheet with a defect to begin with. “Another picture” takes one of your own.")
    return offered


@st.fragment
@guarded()
def _bench(model: Predictor, source: Source, seen: FirstLook) -> None:
    headline = st.container()
    chosen = which_stain(model)
    if chosen is None:
        return
    asked = _stain(source, seen, chosen)
    watched = CLEAR if CLEAR in model.classes else seen.prediction.pred
    rows = services.bench.rows(model, source, asked, watched)
    with headline.container(border=True):
        _headline(rows)
    _row(model, rows)
    with st.container(horizontal=True, vertical_alignment="center"):
        question = (model.hash, source.key, asked.key)
        if st.button("Find the smallest stain that turns this sheet", icon=":material/search:"):
            st.session_state["smallest"] = question
        if st.session_state.get("smallest") == question:
            _smallest(model, source, asked)
    for name in services.models.cured_from(model):
        cured = services.models.predictor(name)
        st.subheader(f"The same pictures, seen by {plain(name)}")
        again = services.bench.rows(cured, source, asked, watched)
        with st.container(border=True):
            _headline(again)
        _row(cured, again)
    _limits(model, source, asked)


def _stain(source: Source, seen: FirstLook, chosen: StainSettings) -> Stain:
    """The sliders, and what they say; a stain that was cut out keeps its own brightness and shape."""
    stain = Stain(chosen)
    with st.grid(3, min_column_width=150):
        area = st.slider(
            "Area of the stain", 0.5, 100 * services.bench.LARGEST_AREA, 5.0, 0.1, format="%.1f %%", key="stain area"
        )
        if not chosen.cut_stain:
            brightness = st.slider("Brightness", 0.3, 1.0, 0.92, 0.01, key="stain brightness", help="1 is white.")
            stain = replace(stain, brightness=brightness)
        by_hand = st.toggle("Place it myself", key="stain by hand", help="Else it lies beside the defect.")
    centre = None
    if by_hand:
        with st.grid(3, min_column_width=220):
            row = st.slider("From the top", 0, 100, 20, format="%d %%", key="stain row")
            column = st.slider("From the left", 0, 100, 20, format="%d %%", key="stain column")
            with st.popover("Or click on the sheet", icon=":material/ads_click:", width="stretch"):
                _pad(source, seen)
        centre = (row / 100, column / 100)
    return replace(stain, area=area / 100, centre=centre)


def _pad(source: Source, seen: FirstLook) -> None:
    """The sheet as a plot whose points can be clicked; the sliders do the same for the keyboard."""

    def take() -> None:
        points = st.session_state["stain pad"]["selection"]["points"]
        if points:
            st.session_state["stain row"] = round(points[0]["y"])
            st.session_state["stain column"] = round(points[0]["x"])

    st.plotly_chart(
        audit_plots.click_pad(seen.picture().display(), _PAD),
        key="stain pad",
        on_select=take,
        selection_mode="points",
        config={"displayModeBar": False},
        alt=f"{source.name}: a click puts the stain there. The sliders for row and column do the same.",
    )


def _headline(rows: Sequence[Any]) -> None:
    before, after, controls = rows[0], rows[1], rows[2:]
    target = before.attribution.target
    p = [percent(row.prediction.probs[target]) for row in (before, after)]
    turned = before.prediction.pred != after.prediction.pred
    also = [row.title.lower() for row in controls if row.prediction.pred == after.prediction.pred] if turned else []
    arrow = f"{marked(before.prediction)} :material/arrow_forward: {marked(after.prediction)}"
    if before.prediction.outcome == after.prediction.outcome:
        arrow = f"{marked(before.prediction)}, with and without the stain"
    st.markdown(f"## {arrow}")
    gained = f"The probability of **{plain(target)}** goes from **{p[0]}** to **{p[1]}**."
    if not turned:
        st.markdown(f"The likeliest class stays {plain(before.prediction.pred)}. {gained}")
    elif not (before.counts and after.counts):
        st.markdown(gained)
    elif also:
        st.markdown(
            f"{gained} But {plain(' and '.join(also))} at the same place "
            f"{'does' if len(also) == 1 else 'do'} the same, so here the verdict does not turn on what the stain shows."
        )
    else:
        danger = " **A stain like this lets a bad sheet out.**" if after.prediction.outcome == CLEAR else ""
        st.markdown(
            f"{gained} None of the {len(controls)} controls of the same outline at the same place turns it: "
            f"it is what the stain shows, and not the covering, that does.{danger}"
        )
    if not (before.counts and after.counts):
        st.markdown(
            ":orange[:material/warning: This stain touches the defect. It may hide it, so a changed verdict proves "
            "nothing here.]"
        )


def _row(model: Predictor, rows: Sequence[Any]) -> None:
    pair, controls = st.columns(2, gap="medium")
    with pair, st.grid(2, min_column_width=150):
        for row in rows[:2]:
            with st.container():
                _card(model, row, rows, large=True)
    with controls:
        st.markdown("**Controls**: the same outline at the same place, filled with something else")
        with st.grid(len(rows) - 2, min_column_width=120):
            for row in rows[2:]:
                with st.container():
                    _card(model, row, rows, large=False)


def _card(model: Predictor, row: Any, rows: Sequence[Any], *, large: bool) -> None:
    prediction, target = row.prediction, row.attribution.target
    probability = f"{plain(target)} {percent(prediction.probs[target])}"
    if large:
        st.markdown(f"**{plain(row.title)}**")
        st.markdown(f"### {marked(prediction)} :small[· {probability}]")
    else:
        st.markdown(f"**{plain(row.title)}**  \n{marked(prediction)}  \n{probability}")
    st.image(
        thumbnail(row.image, services.images.PREVIEW),
        width="stretch",
        output_format="PNG",
        alt=f"{prediction.name}, {row.title.lower()}: {words(prediction)}",
    )
    shown = services.bench.draw_map(model, row, rows)
    st.image(
        shown.picture,
        width="stretch",
        output_format="JPEG",
        alt=f"Grad-CAM for {target}, {row.title.lower()}. {shown.caption}",
    )
    if row.inside is None:
        st.caption(f"No evidence for {plain(target)}.")
        return
    where = "where the stain will lie" if row.name == "as it is" else "inside the patch"
    area = percent(float(np.mean(row.mask)))
    st.caption(f"{percent(row.inside)} of the evidence for {plain(target)} {where} ({area} of the area)")


def _smallest(model: Predictor, source: Source, asked: Stain) -> None:
    with st.spinner("Trying sizes"):
        flip = services.bench.smallest_stain(model, source, asked)
    if flip is None:
        largest = percent(services.bench.LARGEST_AREA)
        st.markdown(f":material/shield: No stain of this kind, up to {largest} of the sheet, turns it.")
        return

    also = f"; {' and '.join(name.replace('-', ' ') for name in flip.controls)} of that size as well" * bool(
        flip.controls
    )
    hidden = "" if flip.counts else " It touches the defect, so it proves nothing."
    st.markdown(
        f":material/straighten: A stain of **{percent(flip.area)}** of the sheet turns it from {plain(flip.before)} "
        f"to **{plain(flip.after)}**{plain(also) or '; no control of that size does'}.{hidden}"
    )
    shown = {"stain area": max(0.5, 100 * flip.area)}
    st.button("Show this stain", on_click=st.session_state.update, args=(shown,), icon=":material/visibility:")


def _limits(model: Predictor, source: Source, asked: Stain) -> None:
    where = (
        "The stain keeps off the defect on file."
        if services.bench.defect_mask(model, source) is not None
        else ("Nothing tells where the defect of this picture is: the stain keeps off where the model looks.")
    )
    if asked.centre:
        where = "The stain lies where you put it."
    chosen = ""
    if services.bench.is_shown_for_its_effect(source):
        chosen = ", and this one comes first because the stain shows its effect on it"
    st.caption(
        f":material/info: {where} One sheet proves nothing about a model{chosen}: how often a stain turns one, "
        "“Data set” tells. A map shows influence, not cause. Red: evidence for the class; all maps have the same scale."
    )
