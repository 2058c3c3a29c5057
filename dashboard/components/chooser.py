"""The slim row above every page that chooses model and data set, and keeps both in the URL."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import services
from dashboard.components.text import plain


def chooser() -> None:
    """Draw the row. The choices lie in `st.session_state.model` and `.data`; None where there is nothing to choose."""
    with st.grid(2, min_column_width=130, width=640):
        _choose("Model", "model", list(services.models.available()))
        _choose("Data set", "data", list(services.datasets.available()))


def _choose(label: str, key: str, names: Sequence[str]) -> None:
    wanted = st.query_params.get(key)  # read first: the widget drops a name that it does not know
    with st.container(gap="xsmall"):
        st.selectbox(label, names, key=key, bind="query-params", placeholder="none here", disabled=not names)
        if wanted and wanted not in names:
            instead = f"showing {plain(names[0])} instead" if names else "none is here"
            st.caption(f":material/info: There is no {label.lower()} “{plain(wanted[:80])}”; {instead}.")
