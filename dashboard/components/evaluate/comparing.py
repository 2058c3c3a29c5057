"""Two models on the same images: is one better, by how much, and where do they disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import counted, plain
from dashboard.components.evaluate.compute import evaluated
from dashboard.components.evaluate.headline import countable
from dashboard.components.evaluate.pictures import plot, worst_images


@guarded()
def comparing(model: services.models.Predictor, data: str, found: services.evaluation.Evaluation) -> None:
    """Choose the other model; its evaluation is made here where it is missing."""
    if not countable(found):
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
    theirs = evaluated(other, data, found.part, "other")
    if theirs is not None:
        compared(model, data, found, theirs)


def _comparable(one: services.models.Card, other: services.models.Card) -> bool:
    return set(one.classes) == set(other.classes) and one.multi_label == other.multi_label


def compared(
    model: services.models.Predictor,
    data: str,
    found: services.evaluation.Evaluation,
    theirs: services.evaluation.Evaluation,
) -> None:
    """What tells two evaluations of the same images apart; maps are those of `model`, which made the first."""
    made = services.evaluation.comparison(found, theirs)
    st.markdown(f"**{plain(made.verdict)}**")
    which = "that neither has learnt from" if found.part == "held-out" else f"of the part “{found.part}”"
    worth = (
        f" Some are near-duplicates: for the intervals, all together are worth {made.effective:.0f} unrelated images."
        if round(made.effective) < made.n
        else ""
    )
    st.caption(f"{counted(made.n, 'image')} {which}.{worth}")
    for sentence in made.left_out:
        st.caption(f":material/info: {plain(sentence)}.")
    words = {"difference": "Difference", "low": "95 % from", "high": "to"}
    named = made.figures["figure"].map(lambda name: services.leaderboard.FIGURES.get(name, name.replace("_", " ")))
    st.dataframe(
        made.figures.assign(figure=named).rename(columns={"figure": "Figure", "a": made.a, "b": made.b, **words}),
        hide_index=True,
        column_config=dict.fromkeys((made.a, made.b, *words.values()), st.column_config.NumberColumn(format="%.3f")),
        alt="Figures of both models and their paired difference with its interval",
    )
    test = made.mcnemar
    st.markdown(
        f"Only **{plain(made.a)}** is right on {counted(test.only_a, 'image')}, only **{plain(made.b)}** on "
        f"{test.only_b}: McNemar p = {test.p:.3g}, by groups of near-duplicates {test.p_groups:.3g}."
    )
    label = st.selectbox("Curves of", found.classes, key="curves", bind="query-params", width=320)
    drawn = services.evaluation.overlaid(found, theirs, label)
    with st.grid(2, min_column_width=330):
        for heading, figure in drawn.items():
            with st.container():
                st.subheader(heading)
                plot(figure, f"{heading} of both")
    st.subheader(f"Where they disagree: {counted(len(made.disagreements), 'image')}")
    both = made.disagreements
    mine = found.labelled.table
    rows = mine.set_index("image_sha256", drop=False).loc[list(both["image_sha256"])] if len(both) else mine.head(0)
    said = dict(zip(both["image_sha256"], both["pred_b"], strict=True))

    def other_says(row: Mapping[Any, Any]) -> None:
        st.caption(f"{plain(made.b)} says {plain(said[row['image_sha256']])}")

    worst_images(
        model,
        data,
        rows[~rows.index.duplicated()].reset_index(drop=True),
        "differ-page",
        other_says,
    )
