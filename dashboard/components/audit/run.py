"""An audit of a whole data set as a job: asked for, watched, stopped, and shown when it is finished."""

import streamlit as st

from dashboard import services
from dashboard.components.audit.result import show_run
from dashboard.components.audit.stain import which_stain
from dashboard.components.common.guard import guarded
from dashboard.components.common.progress import duration, watch_job
from dashboard.components.common.text import capital, plain
from dashboard.services.bench import StainSettings
from dashboard.services.models import Predictor

QUESTIONS = {
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
    st.button("Ask something else", on_click=_forget, icon=":material/arrow_back:")
    job = services.audits.job(name)
    if job and job.at_work:
        watch_job(job, "audit")
        st.caption(
            f"{capital(', '.join(job.about.kinds))} · {plain(job.about.model)} on {plain(job.about.data)}. "
            "The address of this page leads back here."
        )
    elif run := services.audits.run(name):
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
        st.info(
            "No data set is here. Point `STEEL_DATA` to one, or to a folder of them, and start again.",
            icon=":material/folder_off:",
        )
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
            format_func=lambda kind: QUESTIONS[kind],
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
        st.page_link(
            "app_pages/audit.py",
            label=f"At work: {plain(', '.join(running.kinds))} on {plain(running.data)}, model {plain(running.model)}",
            icon=":material/hourglass_top:",
            query_params={"view": "Data set", "run": running.name},
        )


def _forget() -> None:
    st.query_params.pop("run", None)
