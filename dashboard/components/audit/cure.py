"""The cure: what it does, how to run it, and what it changed, from the cured model's card."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.audit.result import marked_verdict
from dashboard.components.common.text import plain
from steel_core.render import percent
from steel_core.types import CLEAR


def cure(model: services.models.Predictor) -> None:
    """What a cure is, and the ledger of the chosen model, or of the models that were cured from it."""
    st.markdown(
        "A model takes a stain for a sign of “clear” because in its training images the two came together. The cure "
        "trains it a little further with stains on **all classes alike**, pasted and painted over by chance: what says "
        "nothing about the class is no longer learnt. The same audit runs before and after, on images that served "
        "neither training."
    )
    name = st.session_state["model"]
    st.code(
        f"python -m steel_core cure --checkpoint {name} --data FOLDER --out {name}-cured",
        language="bash",
        wrap_lines=True,
    )
    ledgers = {name: (own, "")} if (own := services.audits.cure_of(model)) else {}  # its own card is told above
    for other in services.audits.cured_models(model):
        cured = services.models.predictor(other)
        told = services.audits.cure_of(cured)
        ledgers |= {other: (told, "".join(cured.card.notes[:1]))} if told else {}
    if not ledgers:
        st.info(
            "No cured model of this one is here yet. After the command above, its ledger stands here, before and "
            "after.",
            icon=":material/healing:",
        )
    for other, (told, note) in ledgers.items():
        _ledger(other, told, note)


def _ledger(name: str, told: dict[str, Any], note: str) -> None:
    st.subheader(f"{plain(str(told.get('of', '')))} before, {plain(name)} after")
    if note:
        st.markdown(plain(note))
    audit = told.get("audit") or {}
    before, after = audit.get("before"), audit.get("after")
    if not before or not after:
        st.info("The card of this model holds no figures of its cure.", icon=":material/query_stats:")
        return
    left, right = st.columns(2)
    for side, word, figures in ((left, "Before", before), (right, "After", after)):
        with side.container(border=True):
            st.caption(word)
            st.markdown(f"### {marked_verdict(figures['verdict'])}")
            low, high = figures["excess_interval"]
            st.metric("Excess", _share(figures["excess"]))
            st.caption(f"95 %: {100 * low:+.1f} % to {100 * high:+.1f} %, n = {figures['excess_n']}")
    st.caption(services.audits.EXCESS)
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
        row("By the strongest control", "control_flip_rate"),
        row("Excess", "excess", "excess_interval"),
        row("Named right (accuracy)", "accuracy", "accuracy_interval"),
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


def _share(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "–"
    between = f" ({100 * interval[0]:.1f} % to {100 * interval[1]:.1f} %)" if interval else ""
    return (percent(value) if value >= 0 else f"{100 * value:.1f} %") + between
