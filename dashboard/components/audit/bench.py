"""The live bench: one sheet, a stain that the visitor places and sizes, verdict and map before and after, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from dashboard import services
from dashboard.components.audit.stain import choose, which_stain
from dashboard.components.common.guard import guarded
from dashboard.components.common.intake import intake, pick
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import marked, words
from steel_core.render import percent
from steel_core.types import CLEAR

_PAD = 21  # places a side that a click can choose


def live_bench(model: services.models.Predictor) -> None:
    """One sheet with and without the stain."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = _sheet()
        name = services.audits.demonstration(model)
        if name:
            # A link that stays on this page would not move the choice above it.
            st.button(
                f"See a model with a planted shortcut: {plain(name)}",
                key="planted",
                on_click=lambda: st.session_state.update(model=name),
                icon=":material/science:",
            )
    if source is None:
        return
    seen = services.images.look(model, source)
    if isinstance(seen, services.datasets.Refused):
        st.error(plain(seen.sentence), icon=":material/broken_image:")
        return
    _bench(model, source, seen)


def _sheet() -> services.datasets.Source | None:
    """The sheet: what was given or linked, else one of the data set's defective ones."""
    data = st.session_state.get("data")
    index = services.datasets.dataset(data) if data else None
    paths = services.audits.defective(index) if index else []
    given = bool(st.session_state.get("files") or st.query_params.get("image"))
    path = None
    if index and paths and not given:
        path = choose("Defective sheet", index, paths, f"sheet {data}")
    with st.popover("Another picture", icon=":material/upload:"):
        own = intake()
    if own:
        return pick(own)
    if index and path:
        return services.datasets.find(index, path)
    st.info("Here is no sheet with a defect to begin with. “Another picture” takes one of your own.")
    return None


@st.fragment
@guarded()
def _bench(model: services.models.Predictor, source: services.datasets.Source, seen: services.images.Look) -> None:
    headline = st.container()
    chosen = which_stain(model)
    if chosen is None:
        return
    asked = _stain(source, seen, chosen)
    watched = services.audits.watched_class(model, seen)
    rows = services.audits.stained(model, source, asked, watched)
    with headline.container(border=True):
        _headline(rows)
    _row(model, rows)
    with st.container(horizontal=True, vertical_alignment="center"):
        question = (model.hash, source.key, replace(asked, area=0.0))
        if st.button("Find the smallest stain that turns this sheet", icon=":material/search:"):
            st.session_state["smallest"] = question
        if st.session_state.get("smallest") == question:
            _smallest(model, source, asked)
    for name in services.audits.cured_models(model):
        cured = services.models.predictor(name)
        st.subheader(f"The same pictures, seen by {plain(name)}")
        again = services.audits.stained(cured, source, asked, watched)
        with st.container(border=True):
            _headline(again)
        _row(cured, again)
    _limits(model, source, asked)


def _stain(
    source: services.datasets.Source, seen: services.images.Look, chosen: services.audits.StainSettings
) -> services.audits.Stain:
    """The sliders, and what they say; a stain that was cut out keeps its own brightness and shape."""
    stain = services.audits.Stain(
        shape=chosen.shape,
        texture=chosen.texture,
        number=chosen.number,
        seed=chosen.seed,
        source=chosen.source,
        cut_from=chosen.cut_from,
    )
    with st.grid(3, min_column_width=150):
        area = st.slider(
            "Area of the stain", 0.5, 100 * services.audits.LARGEST_STAIN, 5.0, 0.1, format="%.1f %%", key="stain area"
        )
        if chosen.source is None:
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


def _pad(source: services.datasets.Source, seen: services.images.Look) -> None:
    """The sheet as a plot whose points can be clicked; the sliders do the same for the keyboard."""

    def take() -> None:
        points = st.session_state["stain pad"]["selection"]["points"]
        if points:
            st.session_state["stain row"] = round(points[0]["y"])
            st.session_state["stain column"] = round(points[0]["x"])

    picture = seen.picture().display()
    st.plotly_chart(
        services.audits.click_pad(picture, _PAD),
        key="stain pad",
        on_select=take,
        selection_mode="points",
        config={"displayModeBar": False},
        alt=f"{source.name}: a click puts the stain there. The sliders for row and column do the same.",
    )


def _headline(rows: Sequence[Any]) -> None:
    """What the stain does to this sheet, in one line and one sentence."""
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


def _row(model: services.models.Predictor, rows: Sequence[Any]) -> None:
    """Before and after large, the controls beside them in the same row."""
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


def _card(model: services.models.Predictor, row: Any, rows: Sequence[Any], *, large: bool) -> None:
    prediction, target = row.prediction, row.attribution.target
    probability = f"{plain(target)} {percent(prediction.probs[target])}"
    if large:
        st.markdown(f"**{plain(row.title)}**")
        st.markdown(f"### {marked(prediction)} :small[· {probability}]")
    else:
        st.markdown(f"**{plain(row.title)}**  \n{marked(prediction)}  \n{probability}")
    st.image(
        services.audits.bench_picture(row),
        width="stretch",
        output_format="PNG",
        alt=f"{prediction.name}, {row.title.lower()}: {words(prediction)}",
    )
    shown = services.audits.bench_map(model, row, rows)
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


def _smallest(model: services.models.Predictor, source: services.datasets.Source, asked: services.audits.Stain) -> None:
    with st.spinner("Trying sizes"):
        found = services.audits.smallest_stain(model, source, asked)
    if found is None:
        largest = percent(services.audits.LARGEST_STAIN)
        st.markdown(f":material/shield: No stain of this kind, up to {largest} of the sheet, turns it.")
        return

    def show() -> None:
        st.session_state["stain area"] = max(0.5, 100 * found.area)

    also = f"; {' and '.join(name.replace('-', ' ') for name in found.controls)} of that size as well" * bool(
        found.controls
    )
    hidden = "" if found.counts else " It touches the defect, so it proves nothing."
    st.markdown(
        f":material/straighten: A stain of **{percent(found.area)}** of the sheet turns it from {plain(found.before)} "
        f"to **{plain(found.after)}**{plain(also) or '; no control of that size does'}.{hidden}"
    )
    st.button("Show this stain", on_click=show, icon=":material/visibility:")


def _limits(model: services.models.Predictor, source: services.datasets.Source, asked: services.audits.Stain) -> None:
    where = (
        "The stain keeps off the defect on file."
        if services.audits.defect_known(model, source)
        else ("Nothing tells where the defect of this picture is: the stain keeps off where the model looks.")
    )
    if asked.centre:
        where = "The stain lies where you put it."
    chosen = ""
    if services.audits.shown_for_its_effect(source):
        chosen = ", and this one comes first because the stain shows its effect on it"
    st.caption(
        f":material/info: {where} One sheet proves nothing about a model{chosen}: how often a stain turns one, "
        "“Data set” tells. A map shows influence, not cause. Red: evidence for the class; all maps have the same scale."
    )
