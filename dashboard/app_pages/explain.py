"""Explain: one image, many methods, any class, side by side with another image or another model."""

import streamlit as st

from dashboard import services
from dashboard.components.common.gallery import try_a_sample
from dashboard.components.common.intake import intake, pick
from dashboard.components.common.text import plain
from dashboard.components.explain.grid import draw_explanations
from dashboard.components.explain.question import question

st.title("Explain")
model = services.models.predictor(st.session_state["model"]) if st.session_state.get("model") else None
sources = intake()
if model is None:
    st.info("No model is here yet, so nothing can be explained. The Overview says how to get one.")
    st.stop()
if not sources:
    try_a_sample("explain", model)
    st.stop()
source = pick(sources)
seen = services.images.first_look(model, source)
if isinstance(seen, services.datasets.Refused):
    st.error(plain(seen.sentence), icon=":material/broken_image:")
    st.stop()
draw_explanations(question(model, source, seen, sources))
