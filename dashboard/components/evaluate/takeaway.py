"""What is carried away from an evaluation."""

import functools

import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.text import plain
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor


def takeaway(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Predictions as a table, the report as one page. Each is made when it is asked for."""
    stem = f"{model.card.name}-{data}-{evaluation.part}"
    with st.container(horizontal=True):
        offer("Predictions (CSV)", functools.partial(services.evaluation.csv, evaluation), f"{stem}.csv")
        if len(evaluation.labelled):
            offer("Plots (PNG)", functools.partial(services.evaluation.plots_zip, evaluation), f"{stem}-plots.zip")
        offer(
            "Report (HTML)", functools.partial(services.evaluation.report_html, evaluation, model, data), f"{stem}.html"
        )
    spec = services.datasets.dataset(data).spec
    held = "holds the worst images with their maps" if spec.redistributable else "names the worst images only"
    st.caption(
        f"The report is one file that loads nothing; it {held}. Licence of the images: {plain(spec.licence)} "
        "The camera in a plot's toolbar saves that plot alone as PNG."
    )
    st.markdown("The same without this page:")
    st.code(
        f"python -m steel_core evaluate --checkpoint {model.card.name} --data FOLDER --part {evaluation.part} "
        "--csv predictions.csv --plots plots --report report.html",
        "bash",
    )
