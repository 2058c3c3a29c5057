"""Work that takes minutes: offered with its time, watched, stopped; the page is drawn anew when it is done."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.evaluate.compute import duration
from dashboard.components.guard import guarded
from dashboard.components.text import plain

_POLL = 1.0  # seconds
_OFFERS = {
    "properties": "Brightness, sharpness, defect area and the like of these images were not measured yet.",
    "embedding": "This model has not laid these images on a map yet.",
    "check": "Nobody has looked for what is wrong with these images yet.",
}


def offer_work(kind: str, model: services.models.Predictor | None, data: str, where: str = "") -> None:
    """What is missing, and the button that lets a worker make it; or how far the worker is.

    Args:
        kind: of work, see `services.explore.task`.
        model: that is chosen.
        data: name of the data set.
        where: tells it from another offer of the same on the page.
    """
    job = services.explore.task(kind, model, data)
    if job and not job.made.done():
        st.fragment(run_every=_POLL)(watched)(job, f"{kind} {where}")
        return
    if job and not job.stopped:
        with guarded():
            job.made.result()  # raises what the worker met
    st.info(_OFFERS[kind] + " It is done once; from then on this page opens at once.", icon=":material/query_stats:")
    st.button(
        f"Begin, {duration(services.explore.seconds(kind, data))}",
        on_click=services.explore.start,
        args=(kind, model, data),
        type="primary",
        key=f"begin {kind} {where}",
    )


@guarded()
def watched(job: services.work.Task[Any], key: str) -> None:
    """How far a worker is. When it is done, the page is drawn anew."""
    if job.made.done():
        st.rerun()
    left = f", {duration(job.seconds_left)} left for this step" if job.seconds_left else ""
    count = f": {job.done:,} of {job.total:,}" if job.total else ""
    st.progress(min(job.done / job.total, 1.0) if job.total else 0.0, f"{plain(job.stage)}{count}{left}")
    st.button("Stop", on_click=job.cancel, key=f"stop {key}", icon=":material/stop:")
