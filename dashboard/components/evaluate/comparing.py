"""Two models on the same images: is one better, by how much, and where do they disagree."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.paired import show_comparison
from dashboard.components.common.text import plain
from dashboard.components.evaluate.compute import obtain_evaluation
from dashboard.components.evaluate.headline import countable
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Card, Predictor


@guarded()
def comparing(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Choose the other model; its evaluation is made here where it is missing."""
    if not countable(evaluation):
        return
    cards = {name: services.models.card(name) for name in services.models.available()}
    others = [
        name
        for name, card in cards.items()
        if card and name != st.session_state["model"] and _comparable(card, model.card)
    ]
    if not others:
        st.info(
            f"No other model here knows the same classes ({plain(', '.join(model.classes))}), and only such ones "
            "compare. The Train page makes one; or put one where `STEEL_MODELS` points to.",
            icon=":material/balance:",
        )
        return
    name = st.selectbox("Compare with", others, key="other", bind="query-params", width=320)
    other = services.models.predictor(name)
    theirs = obtain_evaluation(other, data, evaluation.part, "other")
    if theirs is not None:
        show_comparison(model, data, evaluation, theirs)


def _comparable(one: Card, other: Card) -> bool:
    return set(one.classes) == set(other.classes) and one.multi_label == other.multi_label
