"""Where an evaluation comes from: stored, or made by a worker that the page looks after."""

import streamlit as st

from dashboard import services
from dashboard.components.common.progress import duration, watch_job
from dashboard.components.common.text import plain
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor


def obtain_evaluation(model: Predictor, data: str, part: str = "all", key: str = "") -> Evaluation | None:
    """A part of an evaluation; None where it must be made first, which is then offered or under way."""
    evaluation = services.evaluation.find(model, data, part)
    if evaluation is None and (job := services.evaluation.running(model, data)):
        watch_job(job, f"evaluation {key}")
    elif evaluation is None:
        _offer(model, data, key)
    return evaluation


def _offer(model: Predictor, data: str, key: str) -> None:
    seconds = services.evaluation.seconds_to_evaluate(data)
    st.info(
        f"{plain(model.card.title)} has not looked at {plain(data)} yet. It does so once; from then on this page "
        "opens at once.",
        icon=":material/query_stats:",
    )
    st.button(
        f"Compute, {duration(seconds)}",
        on_click=services.evaluation.start,
        args=(model, data),
        type="primary",
        key=f"compute {key}",
    )
