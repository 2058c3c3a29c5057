"""Work that takes minutes: offered with its time, watched, stopped; the page is drawn anew when it is done."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.progress import duration, watch_job
from dashboard.services.models import Predictor

_OFFERS = {
    "properties": "Brightness, sharpness, defect area and the like of these images were not measured yet.",
    "embedding": "This model has not laid these images on a map yet.",
    "check": "Nobody has looked for what is wrong with these images yet.",
}


def offer_work(kind: str, model: Predictor | None, data: str, where: str = "") -> None:
    """What is missing, and a button to make it, or how far the worker is; `kind` as in `services.explore.work`."""
    job = services.explore.work(kind, model, data)
    if job and job.at_work:
        watch_job(job, f"{kind} {where}")
        return
    if job and not job.stopped:
        with guarded():
            job.future.result()  # raises what the worker met
    st.info(_OFFERS[kind] + " It is done once; from then on this page opens at once.", icon=":material/query_stats:")
    words, key = f"Begin, {duration(services.explore.seconds(kind, data))}", f"begin {kind} {where}"
    st.button(words, on_click=services.explore.start, args=(kind, model, data), type="primary", key=key)
