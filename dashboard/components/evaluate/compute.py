"""Where an evaluation comes from: stored, or made by a worker that the page looks after."""

from __future__ import annotations

import streamlit as st

from dashboard import services
from dashboard.components.guard import guarded
from dashboard.components.text import plain

_POLL = 1.0  # seconds


def evaluated(
    model: services.models.Predictor, data: str, part: str = "all", key: str = ""
) -> services.evaluation.Evaluation | None:
    """A part of an evaluation; None where it must be made first, which is then offered or under way."""
    found = services.evaluation.stored(model, data, part)
    if found is None and services.evaluation.evaluating(model, data):
        _progress(model, data, key)
    elif found is None:
        _offer(model, data, key)
    return found


def _offer(model: services.models.Predictor, data: str, key: str) -> None:
    seconds = services.evaluation.seconds_to_evaluate(data)
    st.info(
        f"{plain(model.card.title)} has not looked at {plain(data)} yet. It does so once; from then on this page "
        "opens at once.",
        icon=":material/query_stats:",
    )
    st.button(
        f"Compute, {duration(seconds)}",
        on_click=services.evaluation.start,
        args=(model, data),
        type="primary",
        key=f"compute {key}",
    )


@st.fragment(run_every=_POLL)
@guarded()
def _progress(model: services.models.Predictor, data: str, key: str) -> None:
    """How far the worker is. When it is finished, the page is drawn anew."""
    job = services.evaluation.evaluating(model, data)
    if job is None or job.made.done():
        st.rerun()
    if job.done < job.total:
        left = f", {duration(job.seconds_left)} left" if job.seconds_left else ""
        says = f"{job.done:,} of {job.total:,} images looked at{left}"
    else:
        says = f"All {job.total:,} images looked at; measuring brightness and contrast, counting figures"
    st.progress(job.done / max(job.total, 1), says)
    st.button("Cancel", on_click=services.evaluation.cancel, args=(model, data), key=f"cancel {key}")


def duration(seconds: float) -> str:
    """A time in words that promise no precision."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {round(seconds / 60)} minutes"
