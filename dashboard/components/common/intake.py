"""Where the images to inspect come from: files, the camera, or a link to an image of the data set."""

from collections.abc import Sequence

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.services.datasets import Source

_AREA = """<style>
.st-key-drop [data-testid="stFileUploaderDropzone"]{min-height:%s;align-items:center;border:2px dashed #8493a1}
</style>"""


def intake() -> list[Source]:
    """The images that shall be looked at, in the order given; files and the camera go before a link."""
    with st.container(key="drop"):
        waiting = not (st.session_state.get("files") or st.query_params.get("image"))
        st.html(_AREA % ("9rem" if waiting else "0"))
        files = st.file_uploader(
            f"Drop images of steel surfaces here ({services.datasets.LIMITS}; "
            f"at most {services.images.MOST_FILES} together)",
            accept_multiple_files=True,
            key="files",
            on_change=_forget,
        )
    photo = None
    if st.toggle("Use the camera", key="camera on", help="The browser asks for permission only when this is on."):
        photo = st.camera_input("Take a picture of the sheet", key="camera", on_change=_forget)
    sources = [services.datasets.uploaded(file) for file in (*(files or []), *([photo] if photo else []))]
    if left_out := sources[services.images.MOST_FILES :]:
        names = ", ".join(plain(source.name) for source in left_out[:5])
        more = f" and {len(left_out) - 5} more" if left_out[5:] else ""
        st.warning(
            f"At most {services.images.MOST_FILES} images are looked at together. Left out: {names}{more}. "
            "Remove some of the others, or use `python -m steel_core predict` for a whole folder.",
            icon=":material/content_cut:",
        )
        sources = sources[: services.images.MOST_FILES]
    if sources:
        st.session_state["kept"] = sources
    return sources or _linked() or _kept()


def pick(sources: Sequence[Source]) -> Source:
    """The one image that is shown, chosen by the visitor where there are several."""
    if len(sources) == 1:
        return sources[0]
    by_key = {source.key: source for source in sources}
    chosen = st.selectbox("Image", list(by_key), format_func=lambda key: by_key[key].name, key="picked")
    return by_key[chosen]


def _kept() -> list[Source]:
    """What was given before another page was visited; the upload area itself forgets it."""
    kept: list[Source] = st.session_state.get("kept", [])
    if kept:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Still here: {len(kept)} of your images." if len(kept) > 1 else "Still here: your image.")
            st.button("Remove", on_click=lambda: st.session_state.pop("kept", None), icon=":material/close:")
    return kept


def _linked() -> list[Source]:
    path, data = st.query_params.get("image"), st.session_state.get("data")
    if not path:
        return []
    if not data:
        st.info(f"The link names the image {plain(path[:80])}, but no data set is here to look it up in.")
        return []
    source = services.datasets.find(services.datasets.dataset(data), path)
    st.caption(f"From the data set {plain(data)}. The address of this page links to this image.")
    return [source]


def _forget() -> None:
    """New files take the place of a link and of earlier files."""
    st.query_params.pop("image", None)
    st.session_state.pop("kept", None)
