"""An audit of a whole data set as a job: asked for, watched, stopped, shown when it is finished; and all of them."""

import streamlit as st

from dashboard import services
from dashboard.components.audit.result import link_to_run, marked_verdict, minute_of, show_run
from dashboard.components.audit.stain import which_stain
from dashboard.components.common.chooser import drop_from_address, say_no_data
from dashboard.components.common.guard import guarded
from dashboard.components.common.progress import duration, watch_job
from dashboard.components.common.text import capital, plain
from dashboard.services.bench import StainSettings
from dashboard.services.models import Predictor
from steel_core.render import percent

_LISTED = 20  # audits on a page of the history
_QUESTIONS = {
    "white-stain": "White stain: does one turn the verdict?",
    "edges": "Edges: does the border of the picture decide?",
    "properties": "Properties: does brightness, sharpness or the like decide?",
    "discover": "Discover: is there evidence beside the defects that decides?",
}
_PARTS = {
    "held-out": "images that the model has not learnt from",
    "test": "its test images",
    "val": "its validation images",
    "train": "its training images",
    "all": "all images",
}


def whole_data_set(model: Predictor) -> None:
    """The run that the URL names, or the form to start one."""
    name = st.query_params.get("run", "")
    if not name:
        _form(model)
        return
    st.query_params["run"] = name  # a link on this very page leads here, and leaves the address bar as it was
    st.button("Ask something else", on_click=drop_from_address, args=("run",), icon=":material/arrow_back:")
    job = services.jobs.board().get(services.audits.AUDIT, name)
    if job and job.at_work:
        watch_job(job, "audit")
        st.caption(
            f"{capital(', '.join(job.about.kinds))} · {plain(job.about.model)} on {plain(job.about.data)}. "
            "The address of this page leads back here."
        )
    elif run := services.audits.AuditStore().get(name):
        show_run(run)
    elif job and job.stopped:
        st.info("The audit was stopped. Nothing was kept.", icon=":material/cancel:")
    elif job:
        with guarded():
            job.future.result()  # raises what the worker met
    else:
        st.info(
            f"There is no audit “{plain(name[:40])}” here. It may have been stopped, or the server was started anew "
            "before it was finished. The History lists the audits that were kept.",
            icon=":material/search_off:",
        )


def _form(model: Predictor) -> None:
    data = st.session_state.get("data")
    if not data:
        say_no_data()
        return
    if problem := services.audits.why_not(model, data):
        st.error(
            f"{capital(plain(problem.rstrip('.')))}. Choose another model or data set above.", icon=":material/error:"
        )
        return
    if not model.card.clears:
        st.caption(
            ":material/info: This model has no class “clear”. The white-stain test asks of each of its classes instead "
            "whether a stain turns other sheets to it."
        )
    with st.container(border=True):
        kinds = st.pills(
            "Questions",
            services.audits.AUDITS,
            selection_mode="multi",
            default=["white-stain"],
            format_func=lambda kind: _QUESTIONS[kind],
            key="audit kinds",
        )
        with st.grid(2, min_column_width=240, width=800):
            part = st.selectbox(
                "Images", list(_PARTS), format_func=lambda name: capital(_PARTS[name]), key="audit part"
            )
            limit = st.slider("At most", 50, 1000, 300, 50, key="audit limit", help="Drawn evenly from the classes.")
        stain = which_stain(model) if "white-stain" in kinds else StainSettings()
        if not kinds:
            st.caption(":material/checklist: Choose at least one question.")
        else:
            time = capital(duration(services.audits.seconds_to_audit(kinds, data, limit)))
            st.caption(
                f":material/hourglass_top: {time} for {plain(data)}, beside the page; the page can be left meanwhile."
            )
        ready = bool(kinds) and stain is not None
        if st.button("Start the audit", type="primary", icon=":material/play_arrow:", disabled=not ready) and stain:
            asked = {"kinds": kinds, "part": part, "limit": limit, "stain": stain}
            st.query_params["run"] = services.audits.start(model, data, services.audits.AuditSettings.from_json(asked))
            st.rerun()
    for running in services.audits.at_work():
        words = f"At work: {plain(', '.join(running.kinds))} on {plain(running.data)}, model {plain(running.model)}"
        link_to_run(running.name, words, ":material/hourglass_top:")


def history() -> None:
    """The audits of this server, the newest first, one line each; they are kept for good and never changed."""
    runs, problems = services.audits.history()
    for problem in problems[:3]:
        st.warning(plain(problem), icon=":material/broken_image:")
    for asked in services.audits.at_work():
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            link_to_run(asked.name, "Watch it", width=230)
            st.markdown(f":material/hourglass_top: At work · {plain(asked.model)} on {plain(asked.data)}")
    if not runs:
        st.info("No audit was finished here yet. “Data set” starts one.", icon=":material/history:")
        return
    pages = -(-len(runs) // _LISTED)
    page = st.pagination(pages, key="audits page") if pages > 1 else 1
    for run in runs[(page - 1) * _LISTED : page * _LISTED]:
        first = run.reports[0]
        excess = "" if first["excess"] is None else f" · excess {percent(first['excess'])}"
        questions = ", ".join(report["audit"].replace("-", " ") for report in run.reports)
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            link_to_run(run.name, minute_of(run), width=230)
            st.markdown(
                f"{marked_verdict(run.verdict)} · {questions} · {plain(first['model'])} on {plain(run.data)}{excess}"
            )
