"""Inspect: a verdict on each image that is given, and what influenced it."""

import streamlit as st

from dashboard import services
from dashboard.components.downloads import verdict_buttons
from dashboard.components.gallery import gallery
from dashboard.components.intake import intake
from dashboard.components.maps import heat_maps
from dashboard.components.summary import choose_one, look_at_all, refusals
from dashboard.components.text import plain
from dashboard.components.verdict import verdict_card

st.title("Inspect")
model = services.predictor(st.session_state["model"]) if st.session_state.get("model") else None
given = intake()
if model is None:
    st.info("No model is here yet, so nothing can be inspected. The Overview says how to get one.")
    st.stop()
if not given:
    st.subheader("Or try a sample")
    tried = services.samples(8)
    if tried:
        gallery([(path, source, plain(", ".join(source.labels))) for _, path, source in tried], tried[0][0])
    else:
        st.caption("No samples are shipped here.")
    st.stop()

looks = look_at_all(model, given)
refusals(looks)
if any(isinstance(seen, services.Look) for _, seen in looks):
    source, seen = choose_one(looks)
    with st.container(border=True):
        picture, words = st.columns([2, 3], gap="large")
        picture.image(seen.preview, width="stretch", alt=f"{source.name}, the picture as it came")
        with words:
            verdict_card(model, seen)
            if source.labels:
                st.caption(f"Labelled in its data set: {plain(', '.join(source.labels))}")
    heat_maps(model, source, seen)
if len(looks) > 1:
    st.subheader("All verdicts")
    verdict_buttons(model, looks)
