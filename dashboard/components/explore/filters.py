"""What the data set is, and which images of it are meant: choices in the URL, each with a chip that takes it back."""

import functools
import math
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard import services
from dashboard.components.common.text import capital, counted, plain
from dashboard.components.explore.long_work import offer_work
from dashboard.services.explore import Collection, Filter, Point, Range
from dashboard.services.models import Predictor

ALL, NONE = "all", "(none)"
_SHOWN = 50  # problems
CHOICES = {  # by the key in the URL: column of the facts, heading, word for one
    "label": ("labels", "Class", "class"),
    "split": ("split", "Split", "split"),
    "source": ("source", "Source", "source"),
    "pred": ("pred", "Prediction", "prediction"),
    "verdict": ("verdict", "Right or wrong", "verdict"),
}


def head(collection: Collection) -> None:
    spec, problems = collection.index.spec, collection.index.problems
    st.markdown(f"**{plain(spec.title)}** · {counted(len(collection.index), 'image')}")
    st.caption(f"Licence: {plain(spec.licence)}" + (f"  \nSource: {plain(spec.citation)}" if spec.citation else ""))
    if problems:
        with st.expander(f"Left out or looking wrong: {len(problems):,}"):
            for problem in problems[:_SHOWN]:
                st.markdown(f"- {plain(problem)}")


def filters(collection: Collection, model: Predictor | None) -> Filter:
    wanted = {key: st.query_params.get(key) for key in CHOICES}  # widgets drop what they do not know
    chosen: dict[str, str | None] = {}
    with st.grid(6, min_column_width=130):
        for key, (column, heading, _) in CHOICES.items():
            names = collection.names(column)
            if len(names) > 1 or key in ("label", "split"):
                options = [ALL, *(name or NONE for name in names[: services.explore.MANY])]
                name = st.selectbox(heading, options, key=key, bind="query-params", on_change=first_page)
                chosen[key] = {ALL: None, NONE: ""}.get(name, name)
        group = st.text_input(
            "Group", key="group", bind="query-params", on_change=first_page, placeholder="part of a name"
        )
    for key, (column, _, word) in CHOICES.items():
        value = wanted[key]
        if value and value not in (ALL, *(name or NONE for name in collection.names(column))):
            st.caption(f":material/info: There is no {word} “{plain(value[:80])}” here; showing all instead.")
    asked = Filter(**chosen, group=group, ranges=_ranges(collection), outline=_outline())
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Range of a number", icon=":material/tune:"):
            _add_range(collection, model)
        _chips(asked)
    return asked


def first_page() -> None:
    """After a change of filter, start at its first page."""
    st.session_state["page"] = 1


def clear() -> None:
    for key in CHOICES:
        if key in st.session_state:
            st.session_state[key] = ALL
    st.session_state.update(group="", page=1)
    for key in ("range", "around"):
        st.query_params.pop(key, None)


def set_range(name: str, low: float, high: float) -> None:
    """Ask for images whose number lies in a range, instead of an earlier one of that number."""
    _drop_range(name)
    st.query_params["range"] = [*st.query_params.get_all("range"), f"{name}:{low:.6g}:{high:.6g}"]


def set_outline(points: Sequence[Point]) -> None:
    st.query_params["around"] = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    first_page()


def _ranges(collection: Collection) -> tuple[Range, ...]:
    """What the URL says, as in range=brightness:0.2:0.5; a sentence for what is not known here."""
    ranges = []
    for text in st.query_params.get_all("range"):
        name, low, high = [*text.rsplit(":", 2), "", ""][:3]
        try:
            ends = float(low), float(high)
        except ValueError:
            ends = math.nan, math.nan
        if name in collection.numbers and not any(map(math.isnan, ends)):
            ranges.append(Range(name, *ends))
        else:
            st.caption(f":material/info: Here is no number “{plain(text[:80])}” to filter by; showing all instead.")
    return tuple(ranges)


def _outline() -> tuple[Point, ...]:
    try:
        points = [tuple(map(float, point.split(","))) for point in st.query_params.get("around", "").split()]
        return tuple((x, y) for x, y in points) if len(points) > 2 else ()
    except ValueError:
        return ()


def _add_range(collection: Collection, model: Predictor | None) -> None:
    """The same by keyboard as dragging over a plot."""
    if not any(name in collection.numbers for name in ("brightness", "height")):
        offer_work("properties", model, collection.name, "popover")
    if not collection.numbers:
        return
    name = st.selectbox("Number", collection.numbers, format_func=services.explore.title, key="range of")
    values = collection.facts[name]
    with st.form(f"range {name}", border=False):
        low = st.number_input("From", value=float(values.min()), format="%.4g", key=f"from {name}")
        high = st.number_input("To", value=float(values.max()), format="%.4g", key=f"to {name}")
        if st.form_submit_button("Show these", type="primary"):
            set_range(name, math.nextafter(low, -math.inf), high)
            st.rerun()


def _chips(asked: Filter) -> None:

    def chip(text: str, key: str, take_back: Callable[[], None]) -> None:
        st.button(
            text,
            key=f"chip {key}",
            on_click=take_back,
            icon=":material/close:",
            help="Take this filter back",
            type="tertiary",
        )

    for key, (_, heading, _) in CHOICES.items():
        value = getattr(asked, key)
        if value is not None:
            chip(f"{heading}: {plain(value or NONE)}", key, functools.partial(_back, key, ALL))
    if asked.group:
        chip(f"Group: {plain(asked.group)}", "group", functools.partial(_back, "group", ""))
    for one in asked.ranges:
        words = f"{capital(services.explore.title(one.name))}: {one.low:.3g} to {one.high:.3g}"
        chip(plain(words), one.name, functools.partial(_drop_range, one.name))
    if asked.outline:
        chip("Drawn on the map", "around", functools.partial(_drop, "around"))


def _back(key: str, value: str) -> None:
    st.session_state.update({key: value, "page": 1})


def _drop_range(name: str) -> None:
    st.query_params["range"] = [t for t in st.query_params.get_all("range") if t.rsplit(":", 2)[0] != name]
    first_page()


def _drop(key: str) -> None:
    st.query_params.pop(key, None)
    first_page()
