"""Audit: is the model looking at the steel, or at a white stain? One image live, a whole data set, history, cure."""

import streamlit as st

from dashboard import services
from dashboard.components.audit.bench import live_bench
from dashboard.components.audit.cure import cure
from dashboard.components.audit.history import history
from dashboard.components.audit.run import whole_data_set
from dashboard.components.common.verdict import warnings

ONE, MANY, HISTORY, CURE = VIEWS = ("One image", "Data set", "History", "Cure")  # as the URL holds them

st.title("Does a white stain turn the verdict?")
st.markdown(
    "White stains are harmless. A model that has learnt “stained, so clear” lets bad sheets out, and still looks "
    "accurate."
)
if not st.session_state.get("model"):
    st.info("No model is here yet, so nothing can be audited. The Overview says how to get one.")
    st.stop()
model = services.models.predictor(st.session_state["model"])
warnings(model)
view = st.segmented_control(
    "What to look at", VIEWS, default=ONE, required=True, key="view", bind="query-params", label_visibility="collapsed"
)
if view == MANY:
    whole_data_set(model)
elif view == HISTORY:
    history()
elif view == CURE:
    cure(model)
else:
    live_bench(model)
