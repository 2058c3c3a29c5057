"""How far a worker is, and how long it will take."""

from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from dashboard.components.common.guard import guarded
from dashboard.components.common.text import capital, plain
from dashboard.services.jobs import Job

T = TypeVar("T")

_POLL = 1.0  # seconds


@st.fragment(run_every=_POLL)
@guarded()
def watch_job(job: Job[Any], key: str) -> None:
    """How far a worker is, once a second, and a button to stop it; the page is drawn anew when it ends."""
    if not job.at_work:
        st.rerun()
    count = f": {job.done:,} of {job.total:,}" if job.total else ""
    left = f", {duration(job.seconds_left)} left for this step" if job.seconds_left else ""
    st.progress(min(job.done / job.total, 1.0) if job.total else 0.0, f"{capital(plain(job.stage))}{count}{left}")
    st.button("Stop", on_click=job.cancel, key=f"stop {key}", icon=":material/stop:")


def result_of(job: Job[T] | None, key: str, offer: Callable[[], None]) -> T | None:
    """The result of finished work, or its error; None where it is under way, and watched, or not begun, and offered."""
    if job is None or job.stopped:
        offer()
        return None
    if job.at_work:
        watch_job(job, key)
        return None
    return job.future.result()


def duration(seconds: float) -> str:
    """A time in words that promise no precision."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {round(seconds / 60)} minutes"
