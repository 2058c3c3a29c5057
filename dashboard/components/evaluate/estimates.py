"""Per-class estimates, most confused pairs, curves and histograms of scores; how far probabilities can be believed."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot, draw_table
from dashboard.components.common.text import plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.components.evaluate.summary import countable
from dashboard.services.evaluation import Estimate, Evaluation
from dashboard.services.models import Predictor

_OFFERED = 100  # images whose softmax and sigmoid can be looked at
_ESTIMATES = {"recall": "Recall", "precision": "Precision", "f1": "F1", "auc": "AUC",
            "average_precision": "Average precision"}  # fmt: skip


@st.fragment
@guarded()
def estimates(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Tables first, then the plots; a range of scores shows its images."""
    if not countable(evaluation):
        return
    st.subheader("Class by class")
    table = [
        {"Class": name} | {title: _cell(of[key]) for key, title in _ESTIMATES.items()}
        for name, of in services.evaluation.estimates(evaluation).per_class.items()
    ]
    words = "Recall, precision, F1, AUC and average precision of each class, with intervals"
    draw_table(table, words, {"Class": st.column_config.Column(pinned=True)})
    st.caption("In brackets: 95 % interval (Wilson, or bootstrap by group). n: the images the figure rests on.")
    st.subheader("Most confused")
    confused = services.evaluation.most_confused(services.evaluation.confusion_cells(evaluation, False))
    if confused.empty:
        st.markdown("No image is called by another class than its own.")
    for i, pair in enumerate(confused.head(6).to_dict("records")):
        if st.button(
            f"**{plain(pair['actual'])}** called **{plain(pair['predicted'])}**: {pair['n']} of {pair['of']} "
            f"({_percent(pair['share'])}; 95 %: {_percent(pair['low'])} to {_percent(pair['high'])})",
            type="tertiary",
            icon=":material/photo_library:",
            key=f"confused {i}",
            on_click=_show_cell,
            args=(pair["actual"], pair["predicted"]),
        ):
            st.rerun()  # the whole page, not this part alone
    drawn = services.evaluation.plots(evaluation)
    if "ROC curves" not in drawn:
        st.info("ROC and precision-recall curves need images of at least two classes.", icon=":material/show_chart:")
        return
    with st.grid(2, min_column_width=330):
        for heading in ("ROC curves", "Precision and recall"):
            with st.container():
                st.subheader(heading)
                brush(drawn[heading], heading, "score", lambda label: st.session_state.update(scores=label))
    st.subheader("Scores")
    labels = [name for name in evaluation.classes if f"Scores of {name}" in drawn]
    label = st.selectbox("Probability of", labels, key="scores", bind="query-params")
    brush(drawn[f"Scores of {label}"], f"Scores of {label}", "score")
    st.caption(
        "Drag over the bars, or over a curve above, to see the images behind them; double-click for all. By keyboard, "
        "type the range."
    )
    rows = within(evaluation.top_losses(), f"p.{label}", "Probability", "score")
    worst_images(model, data, rows, "score-page")


def _show_cell(actual: str, predicted: str) -> None:
    st.session_state.update(tab="Confusion", actual=actual, predicted=predicted)
    st.query_params.update(actual=actual, predicted=predicted)  # these choices are not on the page yet to write it


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"–, n {estimate.n}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}), n {estimate.n}"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


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
