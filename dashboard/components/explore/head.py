"""What the data set is: title, licence, and what was left out of it."""

from __future__ import annotations

import streamlit as st

from dashboard import services
from dashboard.components.common.text import counted, plain

_SHOWN = 50  # problems


def head(shown: services.explore.Collection) -> None:
    """Title, number of images, licence, problems."""
    spec, problems = shown.index.spec, shown.index.problems
    st.markdown(f"**{plain(spec.title)}** · {counted(len(shown.index), 'image')}")
    st.caption(f"Licence: {plain(spec.licence)}" + (f"  \nSource: {plain(spec.citation)}" if spec.citation else ""))
    if problems:
        with st.expander(f"Left out or looking wrong: {len(problems):,}"):
            for problem in problems[:_SHOWN]:
                st.markdown(f"- {plain(problem)}")
