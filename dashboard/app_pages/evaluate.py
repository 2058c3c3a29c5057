"""Evaluate: where the model is wrong, how sure it is, and where the line should be drawn."""

import streamlit as st

from dashboard import services
from dashboard.components.common.verdict import warnings
from dashboard.components.evaluate.estimates import calibration, estimates
from dashboard.components.evaluate.matrix import matrix
from dashboard.components.evaluate.summary import comparing, headline, obtain_evaluation, takeaway
from dashboard.components.evaluate.thresholds import thresholds
from dashboard.components.evaluate.weak_spots import losses, weak

st.title("Evaluate")
name, data = st.session_state.get("model"), st.session_state.get("data")
if not name or not data:
    missing = "model" if not name else "data set"
    st.info(f"No {missing} is here yet, so nothing can be evaluated.", icon=":material/deployed_code:")
    st.stop()
model = services.models.predictor(name)
warnings(model)
part = st.segmented_control(
    "Images",
    services.evaluation.PARTS,
    default="held-out",
    required=True,
    key="part",
    bind="query-params",
    help="held-out: all images that served neither to train this model nor to choose anything about it, known by "
    "their content, whatever folder they lie in. train, val, test: the model's own division; of images that it has "
    "never met, the data set's. all: every image.",
)
evaluation = obtain_evaluation(model, data, part)
whole = services.evaluation.find(model, data)
if evaluation is None or whole is None:
    st.stop()
headline(evaluation, data)
if not len(evaluation):
    st.info("This part holds no image. Choose another one above.", icon=":material/image_not_supported:")
    st.stop()
tabs = {
    "Confusion": lambda: matrix(model, data, evaluation),
    "Worst images": lambda: losses(model, data, evaluation),
    "Figures": lambda: estimates(model, data, evaluation),
    "Calibration": lambda: calibration(model, data, evaluation),
    "Thresholds": lambda: thresholds(model, data, whole, evaluation),
    "Weak spots": lambda: weak(model, data, evaluation),
    "Compare": lambda: comparing(model, data, evaluation),
    "Take away": lambda: takeaway(model, data, evaluation),
}
for tab, draw in zip(st.tabs(list(tabs), key="tab", bind="query-params"), tabs.values(), strict=True):
    if tab.open:  # the others are not even run
        with tab:
            draw()
