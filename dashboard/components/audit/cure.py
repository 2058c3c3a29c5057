"""The cure: what it does, how to run it, and what it changed, from the cured model's card."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.audit.result import marked_verdict
from dashboard.components.common.text import plain
from dashboard.services.audits import audit_sentences as sentences
from dashboard.services.models import CureSummary, Predictor
from steel_core.render import percent
from steel_core.types import CLEAR


def cure(model: Predictor) -> None:
    """What a cure is, and the ledger of the chosen model, or of the models that were cured from it."""
    st.markdown(
        "A model takes a stain for a sign of “clear” because in its training images the two came together. The cure "
        "trains it a little further with stains **where they are missing**, cut from the data, until every class has "
        "them alike: what says nothing about the class is no longer learnt. The same audit runs before and after, on "
        "images that served neither training, and a cure that fails says so."
    )
    name = st.session_state["model"]
    command = f"python -m steel_core cure --checkpoint {name} --data FOLDER --out {name}-cured"
    st.code(command, language="bash", wrap_lines=True)
    ledgers = {name: (own, "")} if (own := model.card.training.cure) else {}  # its own card is told above
    for other in services.models.cured_from(model):
        cured = services.models.predictor(other)
        if cured.card.training.cure:
            ledgers[other] = (cured.card.training.cure, "".join(cured.card.notes[:1]))
    if not ledgers:
        st.info(
            "No cured model of this one is here yet. After the command above, its ledger stands here, before and "
            "after.",
            icon=":material/healing:",
        )
    for other, (summary, note) in ledgers.items():
        _ledger(other, summary, note)


def _ledger(name: str, summary: CureSummary, note: str) -> None:
    st.subheader(f"{plain(summary.of)} before, {plain(name)} after")
    if note:
        st.markdown(plain(note))
    if summary.failure:
        st.error(f"No cure: {plain(summary.failure)}. Do not use this model.", icon=":material/gpp_bad:")
    before, after = summary.audit.before, summary.audit.after
    if not before or not after:
        st.info("The card of this model holds no figures of its cure.", icon=":material/query_stats:")
        return
    left, right = st.columns(2)
    for side, word, estimates in ((left, "Before", before), (right, "After", after)):
        with side.container(border=True):
            st.caption(word)
            st.markdown(f"### {marked_verdict(estimates['verdict'])}")
            low, high = estimates["excess_interval"]
            st.metric("Excess", _share(estimates["excess"]))
            st.caption(f"95 %: {100 * low:+.1f} % to {100 * high:+.1f} %, n = {estimates['excess_n']}")
    st.caption(sentences.EXCESS)
    st.table(  # its words wrap, so that a phone shows both sides
        pd.DataFrame(_rows(before, after)),
        hide_index=True,
        alt="Figures of the model before and after the cure, with their intervals",
    )
    inside = before.get("evidence_inside_stain") or {}
    st.caption(
        "Escapes: defective sheets called clear. Calibration error: how far stated probabilities lie from how often "
        "they come true. Evidence inside the stain: share of what the map shows for "
        f"“{plain(inside.get('class', CLEAR))}” that lies on a stain of {_share(inside.get('area'))} of the picture. "
        "Measured on images that served neither training. "
        "“One image” shows both models side by side."
    )


def _rows(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
    def row(title: str, key: str, interval: str = "") -> dict[str, str]:
        cells = (_share(side.get(key), side.get(interval) if interval else None) for side in (before, after))
        return dict(zip(("Figure", "Before", "After"), (title, *cells), strict=True))

    rows = [
        row("Verdicts turned by a stain", "flip_rate"),
        *(
            dict(zip(("Figure", "Before", "After"), (f"By {plain(name.replace('-', ' '))}", *cells), strict=True))
            for name, cells in _pair_controls(before, after).items()
        ),
        row("By the strongest control", "control_flip_rate"),
        row("Excess", "excess", "excess_interval"),
        row("Named right (accuracy)", "accuracy", "accuracy_interval"),
        row("Balanced accuracy", "balanced_accuracy"),
        row("Named right oftener with marks than without", "gap"),
        row("Calibration error", "ece"),
    ]
    for label in before.get("escapes", {}):
        sides = [side["escapes"].get(label, {}) for side in (before, after)]
        cells = [f"{_share(side.get('share'), side.get('interval'))}, n = {side.get('n', 0)}" for side in sides]
        rows.append({"Figure": f"Escapes of {label}", "Before": cells[0], "After": cells[1]})
    inside = [side.get("evidence_inside_stain") or {} for side in (before, after)]
    cells = [f"{_share(one.get('stain'))}, n = {one.get('n', 0)}" for one in inside]
    rows.append({"Figure": "Evidence inside the stain", "Before": cells[0], "After": cells[1]})
    return rows


def _pair_controls(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Share that each control turns, before and after; cards before December 2026 hold the strongest alone."""
    sides = before.get("controls", {}), after.get("controls", {})
    return {
        name: (_share(sides[0].get(name)), _share(sides[1].get(name))) for name in dict.fromkeys([*sides[0], *sides[1]])
    }


def _share(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "–"
    between = f" ({100 * interval[0]:.1f} % to {100 * interval[1]:.1f} %)" if interval else ""
    return (percent(value) if value >= 0 else f"{100 * value:.1f} %") + between
