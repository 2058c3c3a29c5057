"""Train: from a data set to a model, in a process of its own that goes on when the page is left."""

import streamlit as st

from dashboard import services
from dashboard.components.common.chooser import say_no_data
from dashboard.components.common.label_clues import label_clues
from dashboard.components.train.form import form
from dashboard.components.train.watch import history, watched

st.title("Train")
services.training.RunQueue().wake()
if name := st.query_params.get("run"):
    st.query_params["run"] = name  # a link on this very page leads here, and leaves the address bar as it was
    watched(name)
    st.stop()
st.markdown("From labelled images to a model that stands in every chooser, with its card and honest figures.")
data = st.session_state.get("data")
if data:
    label_clues(data)
    st.subheader("A new model")
    form(data)
else:
    say_no_data()
history()
