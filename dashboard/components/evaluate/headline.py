"""What was evaluated, the finding in one sentence, and what a reader of the estimates must know."""

import streamlit as st

from dashboard import services
from dashboard.components.common.text import counted, plain
from dashboard.services.evaluation import Evaluation
from steel_core.render import percent
from steel_core.types import REFER, UNFAMILIAR

_AT_ONCE, _SHOWN = 3, 12  # remarks
_ESTIMATES = {
    "accuracy": ("Accuracy", "Share of images whose likeliest class is right."),
    "macro_recall": ("Recall, mean of classes", "Mean share of each class that is found."),
    "auc": ("AUC", "How well scores tell each class from the rest; 0.5 is chance."),
    "ece": ("ECE", "How far confidence and accuracy lie apart, on average; less is better."),
}
_MULTI_LABEL = {
    "exact_match": ("Exactly right", "Share of images whose named classes are the true ones, all of them, no other."),
    "mean_average_precision": ("Average precision", "Mean over the classes."),
    "escape": ("Escapes", "Share of defective sheets that are called clear."),
    "false_call": ("False calls", "Share of clear sheets that are called defective."),
}
_NUMBERS = ("auc", "ece", "mean_average_precision")  # shown as numbers, the others as percentages


def headline(evaluation: Evaluation, data: str) -> None:
    """Estimates with intervals where images can be counted, and what was left out."""
    outcomes = evaluation.table["outcome"]
    person = ", ".join(
        f"**{int((outcomes == outcome).sum()):,}** {words}"
        for outcome, words in ((REFER, "handed to a person"), (UNFAMILIAR, "called unfamiliar: no verdict"))
        if (outcomes == outcome).any()
    )
    about = f"**{counted(len(evaluation), 'image')}** of {plain(data)} ({plain(evaluation.part)})"
    if len(evaluation.labelled):
        estimates = services.evaluation.main_estimates(evaluation)
        first, right = ("exact_match", "exactly the true classes are named") if evaluation.multi_label else (
            "accuracy", "the likeliest class is right")  # fmt: skip
        value, (low, high), n = estimates[first]
        st.markdown(
            f"{about}: {right} on **{percent(value or 0.0)}** (95 %: {percent(low)} to {percent(high)}, n = {n:,})"
            + (f"; {person}." if person else ".")
        )
        with st.grid(4, min_column_width=150):
            for name, (title, meaning) in (_MULTI_LABEL if evaluation.multi_label else _ESTIMATES).items():
                _show_estimate(title, *estimates[name], meaning, name in _NUMBERS)
    else:
        counts = ", ".join(f"{plain(str(name))} {n:,}" for name, n in outcomes.value_counts().items())
        st.markdown(f"{about}. What the model said: {counts}." if counts else f"{about}.")
    if elsewhere := int(evaluation.table["split"].isin(["train", "val"]).sum()) if evaluation.part == "held-out" else 0:
        st.caption(
            ":material/info: Held-out are all images that this model has neither learnt from nor been tuned on, known "
            f"by their content. {elsewhere:,} of them lie in the train or val part of the data set, whose division is "
            "not the model's own"
        )
    remarks = [remark.rstrip(".") for remark in (*evaluation.remarks, *evaluation.left_out)]
    for remark in remarks[:_AT_ONCE]:
        st.caption(f":material/info: {plain(remark)}")
    if len(remarks) > _AT_ONCE:
        with st.expander(counted(len(remarks) - _AT_ONCE, "more remark")):
            for remark in remarks[_AT_ONCE:_SHOWN]:
                st.caption(plain(remark))
            if len(remarks) > _SHOWN:
                st.caption(f"and {len(remarks) - _SHOWN} more, which the HTML report lists")


def countable(evaluation: Evaluation) -> bool:
    """Whether there are labelled images; says so where there are none."""
    if not len(evaluation.labelled):
        st.info(
            "Nothing can be counted here, because no image of this part has a label that the model knows. "
            "“Worst images” shows what the model said of each.",
            icon=":material/label_off:",
        )
    return bool(len(evaluation.labelled))


def _show_estimate(
    title: str, value: float | None, interval: tuple[float, float], n: int, meaning: str, number: bool
) -> None:
    show = (lambda x: f"{x:.3f}") if number else percent
    with st.container(border=True, height="stretch"):
        st.metric(title, "–" if value is None else show(value), help=meaning)
        if value is None:
            st.markdown("no such images" if n == 0 else "needs two classes")
        else:
            st.markdown(f"95 %: {show(interval[0])} to {show(interval[1])}, n = {n:,}")
