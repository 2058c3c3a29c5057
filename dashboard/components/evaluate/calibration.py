"""How far the probabilities can be believed, before and after temperature; softmax beside sigmoid."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.text import plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.components.evaluate.headline import countable
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor

_OFFERED = 100


@st.fragment
@guarded()
def calibration(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Reliability diagram and the images behind its points, then one image through both heads."""
    if countable(evaluation):
        drawn = services.evaluation.plots(evaluation)["Calibration"]
        if evaluation.multi_label:  # its points are answers about a class each, not images
            draw_plot(drawn, "Calibration")
        else:
            brush(drawn, "Calibration", "sure")
        error, (low, high), n = services.evaluation.main_estimates(evaluation)["ece"]
        st.markdown(
            f"Logits are divided by the temperature **{evaluation.temperature:.3f}**, found on validation images. "
            f"Expected calibration error afterwards: **{error:.3f}** (95 %: {low:.3f} to {high:.3f}, "
            f"n = {n:,}). Points above the diagonal: more often right than sure; below: too sure."
        )
        if not evaluation.multi_label:
            st.caption(
                "Drag over points after temperature to see the images behind them, or type how sure the model was."
            )
            rows = within(evaluation.top_losses(), "confidence", "Confidence", "sure", at_first=False)
            if len(rows):
                worst_images(model, data, rows, "sure-page")
    if not len(evaluation):
        return
    st.subheader("The best guess is not necessarily a good guess")
    st.markdown(
        "Softmax must name a winner, even for a picture of nothing. The sigmoid of each logit alone may find no class "
        "likely; for a model trained with softmax it is not calibrated: it shows how little backs the winner."
    )
    offered = evaluation.table.sort_values("confidence", kind="stable")["file"].head(_OFFERED)
    file = st.selectbox("Image, the least sure first", list(offered), key="image-heads")
    table = services.evaluation.both_heads(evaluation, file)
    picture, right = st.columns([1, 3])
    source = services.datasets.find(services.datasets.dataset(data), file)
    small = services.datasets.thumbnail(source)
    if isinstance(small, bytes):
        picture.image(small, width="stretch", alt=f"{source.name}, the picture as it came")
    right.dataframe(
        table.rename(columns={"label": "Class", "softmax": "Softmax", "sigmoid": "Sigmoid"}),
        hide_index=True,
        column_config=dict.fromkeys(
            ("Softmax", "Sigmoid"), st.column_config.ProgressColumn(format="%.3f", min_value=0, max_value=1)
        ),
        alt="Softmax and sigmoid of each class for the chosen image",
    )
    right.caption(plain(f"{file}, with the model's temperature"))
