"""One heat map on a page: shown as soon as it is there, refined while the visitor looks."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import plain
from dashboard.components.common.trust import trust_badges
from dashboard.services.images import FirstLook
from dashboard.services.jobs import RefinementState
from dashboard.services.maps import Read, Style, WantedMap
from dashboard.services.models import Predictor
from steel_core import render
from steel_core.errors import SteelError
from steel_core.types import Attribution

_PATIENCE = 0.8  # seconds that a page may wait for first steps, all its maps together
_POLL = 1.0  # seconds


@dataclass(frozen=True)
class Cell:
    """The place of one map: `asked` says which, `read` gives the decoded image."""

    model: Predictor
    seen: FirstLook
    read: Read
    asked: WantedMap
    slot: DeltaGenerator


def waiting(model: Predictor, name: str) -> DeltaGenerator:
    """Title of a method, and a place for its map that says how long it will take."""
    info = services.maps.method(name)
    st.markdown(f"**{info.title}**", help=f"{info.plain} Source: {info.source}")
    if not services.maps.is_quick(name):  # a fragment fills its place: what lies there already would stay below it
        return st.container()
    slot = st.empty()
    with slot.container():
        _computing(model, name)
    return slot


def show_maps(cells: Iterable[Cell], style: Style) -> list[Attribution | None]:
    """Draw the maps and return the finished ones, else None; those of one method and model share a scale."""
    cells = list(cells)
    until = time.monotonic() + _PATIENCE
    maps = [_ask(cell, max(0.0, until - time.monotonic())) for cell in cells]
    attributions = [one.latest if isinstance(one, RefinementState) and one.done else None for one in maps]
    for cell, one, raw in zip(cells, maps, attributions, strict=True):
        with cell.slot.container(), guarded():  # once: a second container would lie below the first
            if isinstance(one, SteelError):
                raise one
            if raw is None:
                st.fragment(run_every=_POLL)(_unfinished)(cell, style)
                continue
            owner = (cell.model.hash, cell.asked.method)
            alike = [
                other
                for at, other in zip(cells, attributions, strict=True)
                if other and (at.model.hash, at.asked.method) == owner
            ]
            _draw(cell, raw, style, services.maps.scale_of(cell.model, alike)[0])
            trust_badges(cell.model, cell.read, raw)
    return attributions


def _ask(cell: Cell, patience: float) -> RefinementState[Attribution] | SteelError:
    try:
        return services.maps.explain(cell.model, cell.seen, cell.read, cell.asked, patience)
    except SteelError as error:  # shown in its own place, when all others are known
        return error


@guarded()
def _unfinished(cell: Cell, style: Style) -> None:
    """What there is so far. It runs once a second; when the map is finished, the page is drawn anew, and last."""
    refined = services.maps.explain(cell.model, cell.seen, cell.read, cell.asked)
    if refined.done:
        st.rerun()
    if refined.latest is None:
        _computing(cell.model, cell.asked.method, refined.waiting)
        return
    _draw(cell, refined.latest, style, services.maps.scale_of(cell.model, [refined.latest])[0], refining=True)


def _computing(model: Predictor, name: str, queued: bool = False) -> None:
    about = f"about {max(1, round(services.maps.expected_seconds(model, name)))} s"
    st.skeleton(height=220)
    st.caption(f":material/hourglass_top: {'Waiting for other maps, then' if queued else 'Computing,'} {about}")


def _draw(cell: Cell, attribution: Attribution, style: Style, scale: float, refining: bool = False) -> None:
    drawn = services.maps.panel(cell.model, cell.seen, attribution, style, scale)
    st.image(
        services.files.inline(services.files.jpeg(drawn.picture)),  # a rough map is replaced while a browser fetches it
        width="stretch",
        alt=f"{drawn.title} map of {cell.seen.prediction.name}. {drawn.caption}",
    )
    if refining:
        st.caption(f":material/hourglass_top: Rough so far, being refined{_noise(attribution)}")
    st.markdown(plain(drawn.caption))
    facts = (
        f"Model: {cell.model.card.title}",
        f"Layer that it reads: {attribution.layer}" if attribution.layer else "",
        f"Compared with: {attribution.baseline}" if attribution.baseline else "",
        f"Full colour at evidence of {scale:.2g}",
        f"Made in {max(attribution.seconds, 0.1):.1f} s",
    )
    st.caption(
        f"How this map was made{'' if refining else _noise(attribution)}",
        help="  \n".join(plain(fact) for fact in facts if fact),
    )


def _noise(attribution: Attribution) -> str:
    return "" if attribution.noise is None else f"; its noise: {attribution.noise:.0%}".replace("%", " %")


def legends(methods: Iterable[str]) -> None:
    """The colours in words, once for each kind of map."""
    dark = st.context.theme.type == "dark"
    methods = list(methods)
    with st.container(horizontal=True, gap="large"):
        for signed in (True, False):
            titles = [
                services.maps.method(name).title for name in methods if services.maps.method(name).signed == signed
            ]
            if not titles:
                continue
            words = "blue: against the class, grey: no evidence, red: for the class"
            if not signed:
                words = "grey: no evidence, red: for the class"
            with st.container(width=340, gap="xsmall"):
                st.caption(f"Colours of {', '.join(titles[:-1])}{' and ' if titles[1:] else ''}{titles[-1]}")
                bar = np.asarray(render.legend(640, 88, dark=dark, signed=signed))
                st.image(bar, width=320, output_format="PNG", alt=f"Colour scale: {words}.")


def opacity() -> float:
    return st.slider("Opacity of the maps", 0.0, 1.0, 0.6, 0.05, key="opacity", persist_state="session")
