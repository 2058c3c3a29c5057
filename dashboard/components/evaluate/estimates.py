"""Per-class estimates, curves, histograms of scores and the most confused pairs."""

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.components.evaluate.headline import countable
from dashboard.services.evaluation import Estimate, Evaluation
from dashboard.services.models import Predictor

_ESTIMATES = {"recall": "Recall", "precision": "Precision", "f1": "F1", "auc": "AUC",
            "average_precision": "Average precision"}  # fmt: skip


@st.fragment
@guarded()
def estimates(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Tables first, then the plots; a range of scores shows its images."""
    if not countable(evaluation):
        return
    st.subheader("Class by class")
    st.dataframe(
        pd.DataFrame(
            [
                {"Class": name} | {title: cell(of[key]) for key, title in _ESTIMATES.items()}
                for name, of in services.evaluation.estimates(evaluation).per_class.items()
            ]
        ),
        hide_index=True,
        column_config={"Class": st.column_config.Column(pinned=True)},
        alt="Recall, precision, F1, AUC and average precision of each class, with intervals",
    )
    st.caption("In brackets: 95 % interval (Wilson, or bootstrap by group). n: the images the figure rests on.")
    st.subheader("Most confused")
    confused = services.evaluation.most_confused_pairs(evaluation)
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
                brush(drawn[heading], heading, "score", _choose)
    _scores(model, data, evaluation)


def _show_cell(actual: str, predicted: str) -> None:
    st.session_state.update(tab="Confusion", actual=actual, predicted=predicted)
    st.query_params.update(actual=actual, predicted=predicted)  # these choices are not on the page yet to write it


def _scores(model: Predictor, data: str, evaluation: Evaluation) -> None:
    st.subheader("Scores")
    drawn = services.evaluation.plots(evaluation)
    labels = [name for name in evaluation.classes if f"Scores of {name}" in drawn]
    label = st.selectbox("Probability of", labels, key="scores", bind="query-params")
    brush(drawn[f"Scores of {label}"], f"Scores of {label}", "score")
    st.caption(
        "Drag over the bars, or over a curve above, to see the images behind them; double-click for all. By keyboard, "
        "type the range."
    )
    rows = within(evaluation.top_losses(), f"p.{label}", "Probability", "score")
    worst_images(model, data, rows, "score-page")


def _choose(label: str) -> None:
    st.session_state["scores"] = label


def cell(estimate: Estimate) -> str:
    """An estimate, its interval and n, for a table."""
    if estimate.value is None:
        return f"–, n {estimate.n}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}), n {estimate.n}"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")
