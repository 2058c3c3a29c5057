"""Audit: is the model looking at the steel, or at a white stain? One image live, a whole data set, history, cure."""

import streamlit as st

from dashboard import services
from dashboard.components.audit.bench import live_bench
from dashboard.components.audit.cure import cure
from dashboard.components.audit.run import history, whole_data_set
from dashboard.components.common.label_clues import label_clues
from dashboard.components.common.verdict import warnings

ONE = "One image"
VIEWS = {ONE: live_bench, "Data set": whole_data_set, "History": lambda _: history(), "Cure": cure}  # as in the URL

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
if (data := st.session_state.get("data")) and not st.query_params.get("run"):
    label_clues(data, audited=model)
view = st.segmented_control(
    "What to look at", VIEWS, default=ONE, required=True, key="view", bind="query-params", label_visibility="collapsed"
)
VIEWS[view](model)
