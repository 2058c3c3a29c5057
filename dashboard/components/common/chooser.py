"""The slim row above every page that chooses model and data set, and keeps both in the URL."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard import services
from dashboard.components.common.text import plain


def chooser() -> None:
    """Draw the row. The choices lie in `st.session_state.model` and `.data`; None where there is nothing to choose."""
    offered = {"model": list(services.models.available()), "data": list(services.datasets.available())}
    wanted = {key: st.query_params.get(key, "") for key in offered}
    _begin(offered)
    with st.grid(2, min_column_width=130, width=640):
        for key, label in (("model", "Model"), ("data", "Data set")):
            with st.container(gap="xsmall"):
                _choose(label, key, offered[key], wanted[key])
    if place := services.datasets.nothing_of_yours():
        st.caption(
            f":material/info: No data set of a known layout was found in {plain(place)}, where `STEEL_DATA` points to. "
            f"`python -m steel_core data describe {plain(place)}` lists the layouts; images without labels need a "
            "manifest.csv with the column path."
        )


def drop_from_address(key: str) -> None:
    st.query_params.pop(key, None)


def say_no_data() -> None:
    st.info(
        "No data set is here. Point `STEEL_DATA` to one, or to a folder of them, and start again.",
        icon=":material/folder_off:",
    )


def _begin(offered: Mapping[str, Sequence[str]]) -> None:
    """A visit that names no model, or no data set, begins with two that belong together; the address tells which."""
    named = {
        key: next((name for name in (st.session_state.get(key), st.query_params.get(key)) if name in names), None)
        for key, names in offered.items()
    }
    if not all(named.values()):
        begun = services.datasets.begin_with(**named) or [next(iter(names), None) for names in offered.values()]
        for (key, name), start in zip(named.items(), begun, strict=True):
            if start and not name:
                st.session_state[key] = start
                with suppress(StreamlitAPIException):  # a run that was broken off may have bound it to the box already
                    st.query_params[key] = start


def _choose(label: str, key: str, names: Sequence[str], wanted: str) -> None:
    # Without a default of its own the address always holds the choice.
    st.selectbox(label, names, None, key=key, bind="query-params", placeholder="none here", disabled=not names)
    if wanted and wanted not in names:
        instead = f"showing {plain(st.session_state[key])} instead" if names else "none is here"
        st.caption(f":material/info: There is no {label.lower()} “{plain(wanted[:80])}”; {instead}.")
