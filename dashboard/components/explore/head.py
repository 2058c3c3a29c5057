"""What the data set is: title, licence, and what was left out of it."""

import streamlit as st

from dashboard.components.common.text import counted, plain
from dashboard.services.explore import Collection

_SHOWN = 50  # problems


def head(collection: Collection) -> None:
    """Title, number of images, licence, problems."""
    spec, problems = collection.index.spec, collection.index.problems
    st.markdown(f"**{plain(spec.title)}** · {counted(len(collection.index), 'image')}")
    st.caption(f"Licence: {plain(spec.licence)}" + (f"  \nSource: {plain(spec.citation)}" if spec.citation else ""))
    if problems:
        with st.expander(f"Left out or looking wrong: {len(problems):,}"):
            for problem in problems[:_SHOWN]:
                st.markdown(f"- {plain(problem)}")
