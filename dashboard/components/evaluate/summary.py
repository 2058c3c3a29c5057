"""An evaluation as a whole: where it comes from, its finding in one sentence, another model beside it, files of it."""

import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.guard import guarded
from dashboard.components.common.paired import show_comparison
from dashboard.components.common.progress import duration, watch_job
from dashboard.components.common.text import counted, plain
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor
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


def obtain_evaluation(model: Predictor, data: str, part: str = "all", key: str = "") -> Evaluation | None:
    """A part of an evaluation; None where it must be made first, which is then offered or under way."""
    evaluation = services.evaluation.find(model, data, part)
    if evaluation is None and (job := services.evaluation.running(model, data)):
        watch_job(job, f"evaluation {key}")
    elif evaluation is None:
        st.info(
            f"{plain(model.card.title)} has not looked at {plain(data)} yet. It does so once; from then on this page "
            "opens at once.",
            icon=":material/query_stats:",
        )
        words = f"Compute, {duration(services.evaluation.seconds_to_evaluate(data))}"
        st.button(words, on_click=services.evaluation.start, args=(model, data), type="primary", key=f"compute {key}")
    return evaluation


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


@guarded()
def comparing(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Choose the other model; its evaluation is made here where it is missing."""
    if not countable(evaluation):
        return
    names = [name for name in services.models.available() if name != st.session_state["model"]]
    cards = {name: card for name in names if (card := services.models.card(name))}
    known = set(model.card.classes), model.card.multi_label
    others = [name for name, card in cards.items() if (set(card.classes), card.multi_label) == known]
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


def takeaway(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Predictions as a table, the report as one page. Each is made when it is asked for."""
    stem = f"{model.card.name}-{data}-{evaluation.part}"
    with st.container(horizontal=True):
        offer("Predictions (CSV)", evaluation.to_csv, f"{stem}.csv")
        if len(evaluation.labelled):
            offer("Plots (PNG)", lambda: services.evaluation.plots_zip(evaluation), f"{stem}-plots.zip")
        offer("Report (HTML)", lambda: services.evaluation.report_html(evaluation, model, data), f"{stem}.html")
    spec = services.datasets.dataset(data).spec
    held = "holds the worst images with their maps" if spec.redistributable else "names the worst images only"
    st.caption(
        f"The report is one file that loads nothing; it {held}. Licence of the images: {plain(spec.licence)} "
        "The camera in a plot's toolbar saves that plot alone as PNG."
    )
    st.markdown("The same without this page:")
    st.code(
        f"python -m steel_core evaluate --checkpoint {model.card.name} --data FOLDER --part {evaluation.part} "
        "--csv predictions.csv --plots plots --report report.html",
        "bash",
    )
