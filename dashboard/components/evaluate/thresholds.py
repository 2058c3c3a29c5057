"""Where to draw the line: from what errors cost to thresholds in the card, and prediction sets."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot, draw_table
from dashboard.components.common.text import counted, plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.brushing import brush, within
from dashboard.components.evaluate.summary import countable
from dashboard.services.evaluation import Costs, Evaluation
from dashboard.services.models import Predictor
from steel_core.errors import DataError, SteelError
from steel_core.types import CLEAR

_RATES = {"escape": "Escape", "false_call": "False call", "referred": "To a person"}
_SETS = {"lac": "as small as possible (LAC)", "aps": "larger where it is hard (APS)"}


@st.fragment
@guarded()
def thresholds(model: Predictor, data: str, whole: Evaluation, evaluation: Evaluation) -> None:
    """Costs, the proposal chosen on validation and shown on test, what is typed instead, and saving.

    `whole` holds validation and test; `evaluation`, the chosen part, is for risk against coverage.
    """
    if not countable(evaluation):
        return
    asked, mix = _costs(whole)
    choice = None
    test, part = evaluation, evaluation.part
    try:
        choice = services.evaluation.propose_thresholds(whole, asked, mix)
        test, part = services.evaluation.select_part(whole, "test"), "test"
    except DataError as error:
        st.info(
            plain(f"No proposal: {error}. What you type below is shown on the part {part}."), icon=":material/rule:"
        )
    names = (*model.classes, CLEAR) if whole.multi_label else model.classes
    in_force = {name: model.card.threshold(name) for name in names}
    typed = _typed(choice.thresholds if choice else in_force, in_force)
    chosen = f"chosen on {choice.chosen_on:,} validation images, shown on" if choice else "shown on"
    st.subheader(f"What these lines do: {chosen} {len(test.labelled):,} {part} images")
    if choice and typed == choice.thresholds:
        st.markdown(f"**{plain(choice.verdict)}**")
    tables = [services.evaluation.plant_estimates(test, lines, asked, mix) for lines in (in_force, typed)]
    draw_table(_compared(*tables), "Rates and costs by class, in force and as typed")
    st.caption(
        "Escape: of the defective sheets, those let pass. False call: of the sheets that are not of the class, those "
        "called it. In brackets: 95 % interval. Cost: for 1,000 sheets in the stated mix."
        if CLEAR in whole.verdicts
        else "This model cannot clear a sheet: an escape is a sheet called another defect. In brackets: 95 % interval. "
        "Cost: for 1,000 sheets in the stated mix."
    )
    _save(str(st.session_state["model"]), typed)
    if whole.multi_label:  # its lines do not move one by one, and a verdict's confidence is no column of the table
        st.subheader("Risk against coverage")
        draw_plot(services.evaluation.plots(evaluation)["Risk against coverage"], "Risk against coverage")
    else:
        _curves(model, data, evaluation, test, (asked, typed, mix))
    _sets(whole)


def _curves(model: Predictor, data: str, evaluation: Evaluation, test: Evaluation, lines: tuple[Any, ...]) -> None:
    with st.grid(2, min_column_width=330):
        with st.container():
            st.subheader("One line moved, the others kept")
            label = st.selectbox("Threshold of", evaluation.classes, key="line", bind="query-params")
            st.caption(f"On the part {test.part}. Drag over thresholds, or type them: whose verdict turns in between.")
            moved = services.evaluation.threshold_plot(test, label, *lines)
            brush(moved, f"Threshold of {label}", "threshold")
            called = test.top_losses()
            near = within(called[called["pred"] == label], "confidence", "Probability", "threshold", at_first=False)
        with st.container():
            st.subheader("Risk against coverage")
            st.caption(
                f"On the part {evaluation.part}: how many verdicts are wrong, if only the surest are given. Drag over "
                "the curve, or type how sure the model was."
            )
            brush(services.evaluation.plots(evaluation)["Risk against coverage"], "Risk against coverage", "risk")
            behind = within(evaluation.top_losses(), "confidence", "Confidence", "risk", at_first=False)
    for rows, heading, name in (
        (near, f"Called {plain(label)} with such a probability", "threshold-page"),
        (behind, "Decided with such a confidence", "risk-page"),
    ):
        if len(rows):
            st.subheader(f"{heading}: {counted(len(rows), 'image')}")
            worst_images(model, data, rows, name)


def _costs(whole: Evaluation) -> tuple[Costs, dict[str, float] | None]:
    st.subheader("What errors cost")
    st.markdown("In any one currency, for one sheet. Thresholds follow at once.")
    escape, false_call, mix = {}, {}, {}
    for name in whole.verdicts:
        with st.grid(4, min_column_width=120, vertical_alignment="bottom"):
            st.markdown(f"**{plain(name)}**")
            mix[name] = st.number_input(
                "Share in production",
                0.0,
                value=None,
                key=f"mix {name}",
                placeholder="as in the images",
                help="Weights, not percentages: 98 and 2 say the same as 0.98 and 0.02. Leave all empty for the "
                "images' own mix.",
                persist_state="session",
            )
            if name != CLEAR:
                escape[name] = _amount("Escape", 1.0, f"escape {name}")
                false_call[name] = _amount("False call", 1.0, f"false call {name}")
    refer = _amount("A person looks at a sheet", 0.1, "refer")
    shares = {name: share or 0.0 for name, share in mix.items()}
    return Costs(escape=escape, false_call=false_call, refer=refer), shares if any(shares.values()) else None


def _amount(label: str, start: float, key: str) -> float:
    return st.number_input(label, 0.0, value=start, key=key, width=220, persist_state="session")


def _typed(start: dict[str, float], in_force: dict[str, float]) -> dict[str, float]:
    st.subheader("Thresholds")
    typed = {}
    with st.grid(4, min_column_width=180):
        for name, value in start.items():
            typed[name] = st.number_input(
                f"{plain(name)} (in force {in_force[name]:.4f})",
                0.0,
                1.0,
                value,
                0.01,
                format="%.4f",
                key=f"threshold {name} {value:.6f}",  # a new proposal begins anew
            )
    st.caption("A verdict whose probability is below its class's threshold is handed to a person.")
    return typed


def _compared(in_force: pd.DataFrame, typed: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for pair in zip(in_force.to_dict("records"), typed.to_dict("records"), strict=True):
        for lines, row in zip(("in force", "as typed"), pair, strict=True):
            rates = {title: _rate(row, key) for key, title in _RATES.items()}
            cost = {"Cost of 1,000 sheets": "{cost_per_1000:.1f} ({cost_low:.1f} to {cost_high:.1f})".format_map(row)}
            rows.append({"Class": row["label"], "Thresholds": lines, "Images": row["n"]} | rates | cost)
    return rows


def _rate(row: Mapping[Any, Any], key: str) -> str:
    if row[key] != row[key]:
        return "–"
    low, high, n = (row[f"{key}_{end}"] for end in ("low", "high", "n"))
    return f"{row[key]:.1%} ({low:.1%} to {high:.1%}), n {n:.0f}".replace("%", " %")


def _save(name: str, typed: dict[str, float]) -> None:
    with st.form("save thresholds", width=640):
        st.markdown("**Save these thresholds in the model's card.** Every verdict obeys at once.")
        who = st.text_input("Who answers for it")
        why = st.text_input("Why")
        if st.form_submit_button("Save thresholds", type="primary"):
            try:
                services.evaluation.save_thresholds(services.models.available()[name], typed, who, why)
            except SteelError as error:
                st.error(f"{plain(str(error))}.", icon=":material/lock:")
            else:
                st.session_state["saved"] = f"Thresholds saved by {who.strip()}."
                st.rerun()
    if saved := st.session_state.pop("saved", None):
        st.success(plain(saved), icon=":material/check:")


def _sets(whole: Evaluation) -> None:
    st.subheader("Prediction sets")
    st.markdown(
        "Instead of one class, a set that holds the true one as often as is asked for. Chosen on validation images, "
        "counted on test images; the promise holds for images like these."
    )
    with st.grid(2, min_column_width=240, width=640):
        coverage = st.slider("Coverage asked for", 0.80, 0.99, 0.95, 0.01, key="coverage")
        method = st.selectbox("Sets", list(_SETS), format_func=lambda method: _SETS[method], key="sets")
    try:
        sets = services.evaluation.prediction_sets(whole, coverage, method)
    except DataError as error:
        st.info(plain(str(error)), icon=":material/rule:")
        return
    if not sets.enough:
        st.warning(
            f"{sets.chosen_on} validation images are too few for {coverage:.0%}: every set holds every class. "
            f"At least {_needed(coverage)} are needed.",
            icon=":material/warning:",
        )
    reached, single, empty = (sets.estimates[key] for key in ("coverage", "single", "empty"))
    st.markdown(
        f"Asked for: **{coverage:.1%}** (chosen on n = {sets.chosen_on:,}). Found: **{reached}**. "
        f"Sets hold {sets.estimates['mean_size']:.2f} classes on average; one class: {single}; none: {empty}."
    )
    if sets.unjudged:
        st.caption(f"{sets.unjudged:,} test images get no verdict (blank or unfamiliar), and so no set.")


def _needed(coverage: float) -> int:
    """Validation images that split conformal prediction needs: the least N with ceil((N + 1) coverage) <= N."""
    return next(n for n in range(1, 10_000) if -(-(n + 1) * round(1000 * coverage) // 1000) <= n)
