"""Where the images to inspect come from: files, the camera, or a link to an image of the data set."""

from __future__ import annotations

import streamlit as st

from dashboard import services
from dashboard.components.text import plain

_AREA = """<style>
.st-key-drop [data-testid="stFileUploaderDropzone"]{min-height:%s;align-items:center;border:2px dashed #8493a1}
</style>"""


def intake() -> list[services.Source]:
    """The images that shall be looked at, in the order given; files and the camera go before a link."""
    with st.container(key="drop"):
        waiting = not (st.session_state.get("files") or st.query_params.get("image"))
        st.html(_AREA % ("9rem" if waiting else "0"))
        files = st.file_uploader(
            f"Drop images of steel surfaces here ({services.LIMITS})",
            accept_multiple_files=True,
            key="files",
            on_change=_forget,
        )
    photo = None
    if st.toggle("Use the camera", key="camera on", help="The browser asks for permission only when this is on."):
        photo = st.camera_input("Take a picture of the sheet", key="camera", on_change=_forget)
    given = [services.uploaded(file) for file in (*(files or []), *([photo] if photo else []))]
    if given:
        st.session_state["kept"] = given
    return given or _linked() or _kept()


def _kept() -> list[services.Source]:
    """What was given before another page was visited; the upload area itself forgets it."""
    kept: list[services.Source] = st.session_state.get("kept", [])
    if kept:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Still here: {len(kept)} of your images." if len(kept) > 1 else "Still here: your image.")
            st.button("Remove", on_click=lambda: st.session_state.pop("kept", None), icon=":material/close:")
    return kept


def _linked() -> list[services.Source]:
    path, data = st.query_params.get("image"), st.session_state.get("data")
    if not path:
        return []
    if not data:
        st.info(f"The link names the image {plain(path[:80])}, but no data set is here to look it up in.")
        return []
    source = services.find(services.dataset(data), path)
    st.caption(f"From the data set {plain(data)}. The address of this page links to this image.")
    return [source]


def _forget() -> None:
    """New files take the place of a link and of earlier files."""
    st.query_params.pop("image", None)
    st.session_state.pop("kept", None)
