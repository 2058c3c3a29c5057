"""Top losses: where the model is most wrong, and what a person finds about each image."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import counted, plain
from dashboard.components.common.worst_images import is_right, worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.services.evaluation import Evaluation, Triage
from dashboard.services.models import Predictor

_UNCOUNTED = "not counted"
_KINDS = ("all", "wrong", "right", "open", "triaged", _UNCOUNTED)
_UNSURE = "not known"


@st.fragment
@guarded()
def losses(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """The gallery by falling loss with filters and triage; without labels, by rising confidence."""
    latest = services.evaluation.latest_triage()
    with st.grid(4, min_column_width=150):
        kind = st.selectbox("Images", _KINDS, key="images", bind="query-params")
        actual = st.selectbox(
            "Actually", [services.evaluation.ANY, *evaluation.verdicts], key="of", bind="query-params"
        )
        predicted = st.selectbox(
            "Called", [services.evaluation.ANY, *evaluation.verdicts], key="as", bind="query-params"
        )
        who = st.text_input(
            "Your name, to triage",
            key="who",
            persist_state="session",
            help="Kept with each finding. Findings are only ever added; the last one of an image counts.",
        )
    if len(evaluation.labelled) and kind != _UNCOUNTED:
        brush(services.evaluation.plots(evaluation)["Losses"], "Losses", "loss")
        st.caption("Drag over bars to see their images; double-click for all. By keyboard, type the range.")
        cell = services.evaluation.in_cell(evaluation, actual, predicted)
        rows = _matching(within(cell, "loss", "Loss", "loss"), kind, set(latest))
        if others := len(evaluation.table) - len(evaluation.labelled):
            st.caption(f"{counted(others, 'image')} without a label that the model knows: choose “{_UNCOUNTED}” above.")
    else:
        st.caption(
            "No label that the model knows, so no losses: the images that the model is least sure of come first."
        )
        rows = _matching(services.evaluation.uncounted(evaluation, predicted), kind, set(latest))

    def below(row: Mapping[Any, Any]) -> None:
        _triage(evaluation, row, who, latest.get(row["image_sha256"]))

    worst_images(model, data, rows, "loss-page", below)
    listed = sum(each.finding != "model wrong" for each in latest.values())
    st.download_button(
        f"Relabelling list (CSV), {listed} images",
        services.evaluation.relabelling_csv,
        "relabelling.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
        disabled=not listed,
        help="Images of any data set whose label was found wrong or ambiguous, with who and when.",
    )


def _matching(rows: pd.DataFrame, kind: str, triaged: set[str]) -> pd.DataFrame:
    right = pd.Series([is_right(row) for row in rows.to_dict("records")], rows.index, dtype=bool)
    seen = rows["image_sha256"].isin(triaged)
    return rows[{"wrong": ~right, "right": right, "open": ~seen, "triaged": seen}.get(kind, right | True)]


def _triage(evaluation: Evaluation, row: Mapping[Any, Any], who: str, last: Triage | None) -> None:
    key = f"triage {row['image_sha256']}"
    finding = last.finding if last else None

    def keep() -> None:
        with guarded():
            services.evaluation.triage(evaluation, row, st.session_state[key] or "open", who)

    if key not in st.session_state or st.session_state.get(f"{key} said") != finding:
        st.session_state[key] = st.session_state[f"{key} said"] = finding  # another session may have changed it
    st.pills(
        "Which is wrong?",
        services.evaluation.TRIAGE,
        key=key,
        on_change=keep,
        disabled=not who.strip(),
        help=None if who.strip() else "Type your name above first.",
    )
    if last and last.finding == "label wrong":
        label = f"should be {row['image_sha256']}"
        options = [_UNSURE, *evaluation.classes]

        def relabel() -> None:
            should_be = st.session_state[label]
            with guarded():
                services.evaluation.triage(
                    evaluation, row, "label wrong", who, "" if should_be == _UNSURE else should_be
                )

        st.selectbox(
            "Should be",
            options,
            index=options.index(last.should_be) if last.should_be in options else 0,
            key=label,
            on_change=relabel,
            disabled=not who.strip(),
        )
    if last:
        st.caption(f"{plain(last.who)}, {plain(last.at[:16].replace('T', ' '))} UTC")
