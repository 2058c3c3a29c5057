"""Two models on the same images: is one better, by how much, and where do they disagree."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.plot import draw_plot, draw_table
from dashboard.components.common.text import counted, plain
from dashboard.components.common.worst_images import worst_images
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor


def show_comparison(model: Predictor, data: str, evaluation: Evaluation, theirs: Evaluation) -> None:
    """What tells two evaluations of the same images apart; maps are those of `model`, which made the first."""
    comparison = services.evaluation.comparison(evaluation, theirs)
    st.markdown(f"**{plain(comparison.verdict)}**")
    which = "that neither has learnt from" if evaluation.part == "held-out" else f"of the part “{evaluation.part}”"
    worth = (
        " Some are near-duplicates: for the intervals, all together are worth "
        f"{comparison.effective:.0f} unrelated images."
        if round(comparison.effective) < comparison.n
        else ""
    )
    st.caption(f"{counted(comparison.n, 'image')} {which}.{worth}")
    for sentence in comparison.left_out:
        st.caption(f":material/info: {plain(sentence)}.")
    words = {"difference": "Difference", "low": "95 % from", "high": "to"}
    named = comparison.estimates["figure"].map(
        lambda name: services.leaderboard.ESTIMATES.get(name, name.replace("_", " "))
    )
    heads = {"figure": "Figure", "a": comparison.a, "b": comparison.b, **words}
    numbers = dict.fromkeys([*heads.values()][1:], st.column_config.NumberColumn(format="%.3f"))
    alt = "Figures of both models and their paired difference with its interval"
    draw_table(comparison.estimates.assign(figure=named).rename(columns=heads), alt, numbers)
    test = comparison.mcnemar
    st.markdown(
        f"Only **{plain(comparison.a)}** is right on {counted(test.only_a, 'image')}, only **{plain(comparison.b)}** "
        f"on {test.only_b}: McNemar p = {test.p:.3g}, by groups of near-duplicates {test.p_groups:.3g}."
    )
    label = st.selectbox("Curves of", evaluation.classes, key="curves", bind="query-params", width=320)
    drawn = services.evaluation.overlaid_curves(evaluation, theirs, label)
    with st.grid(2, min_column_width=330):
        for heading, figure in drawn.items():
            with st.container():
                st.subheader(heading)
                draw_plot(figure, f"{heading} of both")
    st.subheader(f"Where they disagree: {counted(len(comparison.disagreements), 'image')}")
    both = comparison.disagreements
    mine = evaluation.labelled.table
    rows = mine.set_index("image_sha256", drop=False).loc[list(both["image_sha256"])] if len(both) else mine.head(0)
    predictions = dict(zip(both["image_sha256"], both["pred_b"], strict=True))

    def other_says(row: Mapping[Any, Any]) -> None:
        st.caption(f"{plain(comparison.b)} says {plain(predictions[row['image_sha256']])}")

    worst_images(model, data, rows[~rows.index.duplicated()].reset_index(drop=True), "differ-page", other_says)
