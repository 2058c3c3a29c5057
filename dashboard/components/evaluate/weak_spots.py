"""Where the model is most wrong: image by image, with what a person finds; segments; what it does not know at all."""

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import SHARE, draw_plot, draw_table
from dashboard.components.common.text import counted, plain
from dashboard.components.common.worst_images import is_right, worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.components.evaluate.summary import countable
from dashboard.services.evaluation import ANY, Evaluation, Triage
from dashboard.services.models import Predictor
from steel_core.render import percent

_UNCOUNTED = "not counted"
_KINDS = ("all", "wrong", "right", "open", "triaged", _UNCOUNTED)
_UNSURE = "not known"


@st.fragment
@guarded()
def losses(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """The gallery by falling loss with filters and triage; without labels, by rising confidence."""
    latest = services.evaluation.TriageStore().latest()
    with st.grid(4, min_column_width=150):
        kind = st.selectbox("Images", _KINDS, key="images", bind="query-params")
        actual = st.selectbox("Actually", [ANY, *evaluation.verdicts], key="of", bind="query-params")
        predicted = st.selectbox("Called", [ANY, *evaluation.verdicts], key="as", bind="query-params")
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
        lambda: services.evaluation.TriageStore().relabelling_csv().encode("utf-8-sig"),
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
            chosen = st.session_state[label]
            with guarded():
                services.evaluation.triage(evaluation, row, "label wrong", who, "" if chosen == _UNSURE else chosen)

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


@st.fragment
@guarded()
def weak(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Segments with intervals and correction; the gate's measured rates and what it stopped here."""
    st.subheader("Weak segments")
    if countable(evaluation):
        _segments(model, data, evaluation)
    st.subheader("Unfamiliar images")
    _unfamiliar(model, data, evaluation)


def _segments(model: Predictor, data: str, evaluation: Evaluation) -> None:
    table = services.evaluation.estimates(evaluation).segments
    if table.empty:
        st.info("Too few images to look at segments.", icon=":material/group_off:")
        return
    sure = table[table["weak"].astype(bool)]
    if sure.empty:
        st.markdown(
            f"**No segment is weak beyond chance:** {len(table)} were looked at, and p was corrected for that many "
            "looks (Holm). That proves no strength where images are few."
        )
    else:
        named = [f"{row['property'].replace('_', ' ')} {row['segment']}" for row in sure.to_dict("records")]
        worst = ", ".join(f"**{plain(name)}**" for name in named)
        st.markdown(
            f"Weak beyond chance: {worst}. {len(table)} segments were looked at, and p was corrected for it (Holm)."
        )
    names = [f"{row['property']}: {row['segment']}" for row in table.to_dict("records")]

    def take() -> None:
        for point in st.session_state["plot Weak segments"]["selection"]["points"][:1]:
            if point.get("customdata"):
                st.session_state["segment"] = html.unescape(": ".join(point["customdata"]))
                st.session_state["segment-page"] = 1

    draw_plot(services.evaluation.plots(evaluation)["Weak segments"], "Weak segments", take, by="points")
    chosen = st.selectbox(
        "Images of",
        names,
        None,
        format_func=lambda name: name.replace("_", " "),
        key="segment",
        placeholder="Choose a segment, or click on its point above",
    )
    if chosen in names:
        rows = services.evaluation.in_segment(evaluation, table.iloc[names.index(chosen)])
        worst_images(model, data, rows, "segment-page")
    with st.expander("All segments as a table"):
        draw_table(
            table.drop(columns=["start", "end"]).rename(columns={"p_holm": "p, corrected"}),
            "Error rate of each segment with interval, rate elsewhere and corrected p",
            dict.fromkeys(("error", "low", "high", "elsewhere"), SHARE)
            | dict.fromkeys(("p", "p, corrected"), st.column_config.NumberColumn(format="%.3g")),
        )


def _unfamiliar(model: Predictor, data: str, evaluation: Evaluation) -> None:
    gate = model.card.familiarity
    if not gate:
        st.info(
            "This model has no gate: it gives a verdict on any picture, even one of no steel. Teach it:",
            icon=":material/help_center:",
        )
        st.code(
            f"python -m steel_core checkpoint familiarity --checkpoint {model.card.name} --data FOLDER --who NAME",
            "bash",
        )
        return
    st.markdown(
        "The gate says **unfamiliar: no verdict** to a picture unlike all that the model has learnt from. "
        "Its own rates, measured on images that had no part in it:"
    )
    rates = [
        {
            "Images": name,
            "Called unfamiliar": percent(rate.unfamiliar) if rate.unfamiliar is not None else "–",
            "95 %": " to ".join(percent(end) for end in rate.interval if end is not None),
            "n": rate.n,
        }
        for name, rate in gate.rates.items()
    ]
    draw_table(rates, "Share of each set of images that the gate calls unfamiliar")
    strange = evaluation.table[evaluation.table["strangeness"] > 1].sort_values("strangeness", ascending=False)
    st.markdown(f"In this part: **{len(strange):,} of {len(evaluation):,}** images are unfamiliar.")
    if len(strange):
        worst_images(model, data, strange, "strange-page")
