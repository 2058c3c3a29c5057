"""Inspect: a verdict on each image that is given, and what influenced it."""

import streamlit as st

from dashboard import services
from dashboard.components.common.gallery import try_a_sample
from dashboard.components.common.intake import intake
from dashboard.components.common.strip import strip
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import verdict_card
from dashboard.components.inspect.heat_row import heat_row
from dashboard.components.inspect.summary import choose_one, look_at_all, refusals, verdict_buttons

st.title("Inspect")
model = services.models.predictor(st.session_state["model"]) if st.session_state.get("model") else None
sources = intake()
if model is None:
    st.info("No model is here yet, so nothing can be inspected. The Overview says how to get one.")
    st.stop()
if not sources:
    try_a_sample("inspect", model)
    st.stop()

looks = look_at_all(model, sources)
refusals(looks)
if any(isinstance(seen, services.images.FirstLook) for _, seen in looks):
    source, seen = choose_one(looks)
    with st.container(border=True):
        picture, words = st.columns([2, 3], gap="large")
        picture.image(
            services.files.inline(seen.preview), width="stretch", alt=f"{source.name}, the picture as it came"
        )
        with words:
            verdict_card(model, seen)
            if source.labels:
                st.caption(f"Labelled in its data set: {plain(', '.join(source.labels))}")
    if seen.in_tiles:
        strip(model, source, seen.tiled)
    else:
        heat_row(model, source, seen)
    st.page_link("app_pages/explain.py", label="More methods, classes and regions: Explain", icon=":material/layers:")
if len(looks) > 1:
    st.subheader("All verdicts")
    verdict_buttons(model, looks)
