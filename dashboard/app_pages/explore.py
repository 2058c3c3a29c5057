"""Explore: what a data set holds, before a model is believed: what predicts the label, gallery, numbers, each image."""

import streamlit as st

from dashboard import services
from dashboard.components.common.chooser import say_no_data
from dashboard.components.common.label_clues import label_clues
from dashboard.components.explore.filters import filters, head
from dashboard.components.explore.findings import findings
from dashboard.components.explore.image import image_page
from dashboard.components.explore.pictures import commons, pictures
from dashboard.components.explore.plots import distributions, feature_map

st.title("Explore")
data, name = st.session_state.get("data"), st.session_state.get("model")
if not data:
    say_no_data()
    st.stop()
model = services.models.predictor(name) if name else None
collection = services.explore.open_collection(data, model)
if path := st.query_params.get("image"):
    image_page(collection, model, path)
    st.stop()
head(collection)
label_clues(data)
asked = filters(collection, model)
tabs = {
    "Gallery": lambda: commons(collection, asked),
    "Distributions": lambda: distributions(collection, asked, model),
    "Map": lambda: feature_map(collection, asked, model),
    "Findings": lambda: findings(collection, model),
}
for tab, (title, draw) in zip(st.tabs(list(tabs), key="tab", bind="query-params"), tabs.items(), strict=True):
    if tab.open:  # the others are not even run
        with tab:
            draw()
            if title != "Findings":
                pictures(collection, asked)
