"""The runs of this server, the newest first, each with its link."""

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.components.train.watch import STATUS


def history() -> None:
    """One line a run."""
    runs = services.training.history()
    if not runs:
        return
    st.subheader("Runs")
    for run in runs:
        words, icon = STATUS[run.status]
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.page_link(
                "app_pages/train.py",
                label=plain(str(run.about.get("model", run.name))),
                icon=":material/open_in_new:",
                query_params={"run": run.name},
                width=260,
            )
            epochs = f" · epoch {run.state.history[-1]['epoch']}" if run.state.history else ""
            st.markdown(
                f"{icon} {words}{epochs} · {plain(services.training.architecture(run))} "
                f"on {plain(str(run.about.get('data', '')))} · {run.name[:4]}-{run.name[4:6]}-{run.name[6:8]} "
                f"{run.name[9:11]}:{run.name[11:13]} UTC"
            )
