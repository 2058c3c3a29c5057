"""What was evaluated, the finding in one sentence, and what a reader of the figures must know."""

from __future__ import annotations

import streamlit as st

from dashboard import services
from dashboard.components.text import plain
from steel_core.render import percent
from steel_core.types import REFER, UNFAMILIAR

_SHOWN = 12  # remarks


def headline(found: services.evaluation.Evaluation, data: str) -> None:
    """Figures with intervals where images can be counted, and what was left out."""
    said = found.table["outcome"]
    person = ", ".join(
        f"**{int((said == outcome).sum()):,}** {words}"
        for outcome, words in ((REFER, "handed to a person"), (UNFAMILIAR, "called unfamiliar: no verdict"))
        if (said == outcome).any()
    )
    about = f"**{len(found):,} images** of {plain(data)} ({plain(found.part)})"
    if len(found.labelled):
        report = found.report
        low, high = report.intervals["accuracy"]
        st.markdown(
            f"{about}: the likeliest class is right on **{percent(report.accuracy)}** "
            f"(95 %: {percent(low)} to {percent(high)}, n = {report.n:,})" + (f"; {person}." if person else ".")
        )
        with st.grid(4, min_column_width=150):
            for title, name, meaning in (
                ("Accuracy", "accuracy", "Share of images whose likeliest class is right."),
                ("Recall, mean of classes", "macro_recall", "Mean share of each class that is found."),
                ("AUC", "auc", "How well scores tell each class from the rest; 0.5 is chance."),
                ("ECE", "ece", "How far confidence and accuracy lie apart, on average; less is better."),
            ):
                _metric(title, getattr(report, name), report.intervals[name], meaning, name in ("auc", "ece"))
    else:
        counts = ", ".join(f"{plain(str(name))} {n:,}" for name, n in said.value_counts().items())
        st.markdown(f"{about}. What the model said: {counts or 'nothing'}.")
    remarks = [*found.remarks, *found.left_out]
    for remark in remarks[:3]:
        st.caption(f":material/info: {plain(remark.rstrip('.'))}")
    if len(remarks) > 3:
        with st.expander(f"{len(remarks) - 3} more remarks"):
            for remark in remarks[3:_SHOWN]:
                st.caption(plain(remark.rstrip(".")))
            if len(remarks) > _SHOWN:
                st.caption(f"and {len(remarks) - _SHOWN} more, which the HTML report lists")


def countable(found: services.evaluation.Evaluation) -> bool:
    """Whether there are labelled images; says so where there are none."""
    if not len(found.labelled):
        st.info(
            "Nothing can be counted here, because no image of this part has a label that the model knows. "
            "“Worst images” shows what the model said of each.",
            icon=":material/label_off:",
        )
    return bool(len(found.labelled))


def _metric(title: str, value: float | None, interval: tuple[float, float] | None, help_: str, number: bool) -> None:
    show = (lambda x: f"{x:.3f}") if number else percent
    with st.container(border=True, height="stretch"):
        st.metric(title, "–" if value is None else show(value), help=help_)
        if interval is not None:
            st.markdown(f"95 %: {show(interval[0])} to {show(interval[1])}")
        else:
            st.markdown("needs two classes")
