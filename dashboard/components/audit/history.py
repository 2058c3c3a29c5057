"""The audits of this server, the newest first, each with its link."""

import streamlit as st

from dashboard import services
from dashboard.components.audit.result import marked_verdict
from dashboard.components.common.text import plain
from steel_core.render import percent

_SHOWN = 20


def history() -> None:
    """One line a run; runs are kept for good and never changed."""
    runs, problems = services.audits.history()
    for problem in problems[:3]:
        st.warning(plain(problem), icon=":material/broken_image:")
    for asked in services.audits.at_work():
        _line(f":material/hourglass_top: At work · {plain(asked.model)} on {plain(asked.data)}", asked.name, "Watch it")
    if not runs:
        st.info("No audit was finished here yet. “Data set” starts one.", icon=":material/history:")
        return
    pages = -(-len(runs) // _SHOWN)
    page = st.pagination(pages, key="audits page") if pages > 1 else 1
    for run in runs[(page - 1) * _SHOWN : page * _SHOWN]:
        first = run.reports[0]
        excess = "" if first["excess"] is None else f" · excess {percent(first['excess'])}"
        questions = ", ".join(report["audit"].replace("-", " ") for report in run.reports)
        _line(
            f"{marked_verdict(run.verdict)} · {questions} · {plain(first['model'])} on {plain(run.data)}{excess}",
            run.name,
            f"{run.at[:16].replace('T', ' ')} UTC",
        )


def _line(words: str, name: str, link: str) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.page_link(
            "app_pages/audit.py",
            label=link,
            icon=":material/open_in_new:",
            query_params={"view": "Data set", "run": name},
            width=230,
        )
        st.markdown(words)
