"""The verdict in words, and the probabilities behind it."""

import html

import streamlit as st

from dashboard import services
from dashboard.components.common.text import capital, plain
from dashboard.services.images import FirstLook
from dashboard.services.models import Predictor
from steel_core.render import percent
from steel_core.types import CLEAR, DEFECT, REFER, UNFAMILIAR, Prediction

_MARKS = {REFER: ("person_search", "orange"), UNFAMILIAR: ("help_center", "orange"), CLEAR: ("check_circle", "green")}


def words(prediction: Prediction) -> str:
    """The outcome for people: classes, "Clear", "Refer to a person", or "Unfamiliar: no verdict"."""
    if prediction.outcome == DEFECT and prediction.defects:
        return capital(", ".join(prediction.defects))
    special = {REFER: "Refer to a person", UNFAMILIAR: "Unfamiliar: no verdict"}
    return special.get(prediction.outcome, capital(prediction.outcome))


def marked(prediction: Prediction) -> str:
    """The outcome as Markdown: icon, words and colour; the words alone would do."""
    icon, colour = _MARKS.get(prediction.outcome, ("report", "red"))
    return f":{colour}[:material/{icon}: {plain(words(prediction))}]"


def verdict_card(model: Predictor, seen: FirstLook) -> None:
    """Outcome, confidence, what to know about it, and the probability of every class."""
    prediction = seen.prediction
    st.caption("Verdict")
    st.markdown(f"## {marked(prediction)}")
    best, needed = plain(prediction.pred), f"{prediction.threshold:.1%}".replace("%", " %")
    if prediction.outcome == UNFAMILIAR:
        st.markdown(
            "The picture is unlike all that this model has learnt from, so it gets no verdict. A person decides. "
            f"Were it familiar, the model would say {best}."
        )
    elif prediction.outcome == REFER and not prediction.judgeable:
        st.markdown("The picture cannot be judged. A person decides.")
    elif prediction.defects is not None:
        _several(prediction)
    elif prediction.outcome == REFER:
        st.markdown(
            f"Most likely **{best}** at **{percent(prediction.confidence)}**, "
            f"below the {needed} needed for a verdict. A person decides."
        )
    else:
        st.markdown(f"Confidence **{percent(prediction.confidence)}**, calibrated; {needed} needed for this verdict.")
    if seen.part == "train":
        st.markdown(
            ":material/info: This very image was **in this model's training data**, "
            "so the verdict says little about a new sheet."
        )
    elif seen.part:
        use = "served to tune this model" if seen.part == "val" else "served to test this model, not to train it"
        st.markdown(f":material/info: This very image {use}.")
    warnings(model)
    probabilities(model, prediction)
    note = f"{seen.width} × {seen.height} pixels" + (f"; {prediction.note}" if prediction.note else "")
    st.caption(f"{plain(prediction.name)} · {plain(note)} · {plain(model.card.title)}")


def _several(prediction: Prediction) -> None:
    best = f"**{plain(prediction.pred)}** at **{percent(prediction.confidence)}**"
    if prediction.outcome == REFER:
        st.markdown(f"Most likely {best}: too much for a clear sheet, too little to be named. A person decides.")
    elif prediction.defects:
        st.markdown("Each class has a probability of its own, calibrated; those above their lines are named.")
    else:
        st.markdown(f"No class is likely; the likeliest is {best}, calibrated.")


_BARS = """<style>
.sl-bars{display:grid;grid-template-columns:minmax(5rem,max-content) 1fr 4.2rem;gap:.45rem .8rem;align-items:center;
 margin:.2rem 0;font-size:.95rem}
.sl-track{position:relative;height:.9rem;background:#8493a133;border-radius:.2rem}
.sl-fill{height:100%;background:#4d84a8;border-radius:.2rem;opacity:.55}
.sl-best .sl-fill{opacity:1}.sl-best{font-weight:650}
.sl-mark{position:absolute;top:-.25rem;bottom:-.25rem;width:0;border-left:2px dashed currentColor}
.sl-p{text-align:right;font-variant-numeric:tabular-nums}
.sl-row{display:contents}
</style>"""


def probabilities(model: Predictor, prediction: Prediction) -> None:
    """A bar for the calibrated probability of each class, with the threshold below which it is referred."""
    rows = []
    for name, p in sorted(prediction.probs.items(), key=lambda pair: -pair[1]):
        threshold = model.card.threshold(name)
        best = " sl-best" if name == prediction.pred else ""
        rows.append(
            f'<div class="sl-row{best}" role="listitem"><span class="{best}">{html.escape(name)}</span>'
            f'<span class="sl-track{best}"><span class="sl-fill" style="display:block;width:{p:.2%}"></span>'
            f'<span class="sl-mark" style="left:{threshold:.2%}" title="needed: {threshold:.1%}"></span></span>'
            f'<span class="sl-p{best}">{percent(p)}</span></div>'
        )
    bars = f'<div class="sl-bars" role="list" aria-label="Calibrated probabilities">{"".join(rows)}</div>'
    st.html(_BARS + bars)
    if prediction.defects is None:
        st.caption("Calibrated probabilities. The dashed mark: below it, a class is referred to a person.")
    else:
        below = f"all below {percent(1 - model.card.threshold(CLEAR))}: clear; " if model.card.clears else ""
        st.caption(f"Calibrated probabilities. From the dashed mark on: named; {below}else a person decides.")


def warnings(model: Predictor) -> None:
    """What a user must know before trusting this model, on this data."""
    for warning in model.card.warnings:
        st.markdown(f":material/warning: {plain(warning)}")
    if shown := other_data(model):
        st.markdown(
            f":material/warning: **This model has not learnt from {plain(shown)}**: expect wrong verdicts on its "
            "pictures, unless steel, camera and light are those it knows."
        )


def other_data(model: Predictor) -> str:
    """Title of the data set that the page shows, if it is not the one that the model learnt from; else ""."""
    name = st.session_state.get("data")
    if not name or st.session_state.get("files") or st.session_state.get("camera"):  # a visitor's own pictures
        return ""
    spec = services.datasets.dataset(name).spec
    return "" if model.card.data.get("name", spec.name) == spec.name else spec.title
