"""How far a worker is, and how long it will take."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import capital, plain

_POLL = 1.0  # seconds


@st.fragment(run_every=_POLL)
@guarded()
def watched(job: services.jobs.Task[Any], key: str) -> None:
    """How far a worker is, once a second, and a button to stop it. When it is at work no more, the page is drawn anew.

    Args:
        job: that is at work.
        key: tells its button from another on the page.
    """
    if not job.at_work:
        st.rerun()
    count = f": {job.done:,} of {job.total:,}" if job.total else ""
    left = f", {duration(job.seconds_left)} left for this step" if job.seconds_left else ""
    st.progress(min(job.done / job.total, 1.0) if job.total else 0.0, f"{capital(plain(job.stage))}{count}{left}")
    st.button("Stop", on_click=job.cancel, key=f"stop {key}", icon=":material/stop:")


def duration(seconds: float) -> str:
    """A time in words that promise no precision."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {round(seconds / 60)} minutes"
