"""The heat-map row: the picture beside one map a method, each shown as soon as it is ready."""

from __future__ import annotations

import functools

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import services
from dashboard.components.downloads import report_buttons
from dashboard.components.guard import guarded
from dashboard.components.text import plain
from steel_core import render
from steel_core.types import Attribution


@st.fragment
@guarded()
def heat_maps(model: services.Predictor, source: services.Source, seen: services.Look) -> None:
    """Maps of one image, with the choice of class and opacity. Opacity draws the cached raw maps anew."""
    st.subheader("What influenced the model")
    st.markdown(f":material/info: {services.CAUTION}")
    target, opacity = _controls(model, seen)
    cells = _row(1 + len(services.MAPS), upright=seen.width <= 3 * seen.height)
    with cells[0]:
        st.markdown("**Picture as it came**")
        st.image(seen.preview, width="stretch", alt=f"{source.name}, the picture as it came")
    slots = [_waiting(cell, name) for cell, name in zip(cells[1:], services.MAPS, strict=True)]
    _legends()
    read = functools.cache(source.read)  # decoded once for all methods, and only if a map is missing
    found = []
    for slot, name in zip(slots, services.MAPS, strict=True):
        with slot.container(), guarded():
            made = services.explain(model, seen, read, name, target)
            _show(model, seen, made, opacity)
            found.append(made)
    report_buttons(model, source, seen, found, opacity)


def _controls(model: services.Predictor, seen: services.Look) -> tuple[str, float]:
    with st.grid(2, min_column_width=240):
        target = st.selectbox(
            "Class to explain",
            model.classes,
            index=model.classes.index(seen.prediction.pred),
            format_func=lambda name: f"{name} (predicted)" if name == seen.prediction.pred else name,
            key=f"target {seen.prediction.image_sha256} {model.hash}",
            help="The maps show what speaks for this class. The predicted class comes first.",
        )
        opacity = st.slider("Opacity of the maps", 0.0, 1.0, 0.6, 0.05, key="opacity", persist_state="session")
    return target or seen.prediction.pred, opacity


def _row(count: int, upright: bool) -> list[DeltaGenerator]:
    """Identical columns; long strips go one below the other."""
    return list(st.columns(count)) if upright else [st.container() for _ in range(count)]


def _waiting(cell: DeltaGenerator, name: str) -> DeltaGenerator:
    """Title of a method, and a place for its map that says how long it will take."""
    info = services.method(name)
    with cell:
        st.markdown(f"**{info.title}**", help=f"{info.plain} Source: {info.source}")
        slot = st.empty()
    with slot.container():
        st.skeleton(height=220)
        st.caption(f":material/hourglass_top: Computing, about {max(1, round(services.expected_seconds(name)))} s")
    return slot


def _show(model: services.Predictor, seen: services.Look, made: Attribution, opacity: float) -> None:
    drawn = services.panel(model, seen, made, opacity)
    st.image(
        drawn.picture,
        width="stretch",
        output_format="JPEG",
        alt=f"{drawn.title} map of {seen.prediction.name}. {drawn.caption}",
    )
    st.markdown(plain(drawn.caption))
    facts = (f"layer {made.layer}" if made.layer else "", f"against {made.baseline}" if made.baseline else "")
    st.caption(
        plain(
            " · ".join(
                fact for fact in (drawn.title, *facts, model.card.title, f"{max(made.seconds, 0.1):.1f} s") if fact
            )
        )
    )


def _legends() -> None:
    """The colours in words, once for each kind of map."""
    dark = st.context.theme.type == "dark"
    with st.container(horizontal=True, gap="large"):
        for signed in (True, False):
            titles = [services.method(name).title for name in services.MAPS if services.method(name).signed == signed]
            if not titles:
                continue
            words = "blue: against the class, grey: no evidence, red: for the class"
            if not signed:
                words = "grey: no evidence, red: for the class"
            with st.container(width=340, gap="xsmall"):
                st.caption(f"Colours of {' and '.join(titles)}")
                bar = np.asarray(render.legend(640, 88, dark=dark, signed=signed))
                st.image(bar, width=320, output_format="PNG", alt=f"Colour scale: {words}.")
