"""What a visitor carries away."""

from collections.abc import Callable, Sequence
from pathlib import PurePath

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.services.datasets import Source
from dashboard.services.images import FirstLook
from dashboard.services.maps import Style
from dashboard.services.models import Predictor
from steel_core.types import Attribution

# What a file is for a browser, and how its button looks, by its ending.
_KINDS = {
    "png": ("image/png", ":material/download:"),
    "html": ("text/html", ":material/download:"),
    "json": ("application/json", ":material/data_object:"),
    "csv": ("text/csv", ":material/table:"),
    "zip": ("application/zip", ":material/folder_zip:"),
}


def offer(label: str, make: Callable[[], bytes | str], file: str) -> None:
    """A button for a file that is made when it is pressed; a mark lets spreadsheets read the accents of a text."""
    mime, icon = _KINDS[file.rpartition(".")[2]]

    def content() -> bytes:
        made = make()
        return made.encode("utf-8-sig") if isinstance(made, str) else made

    st.download_button(label, content, file, mime, on_click="ignore", icon=icon)


def report_buttons(
    model: Predictor, source: Source, seen: FirstLook, maps: Sequence[Attribution], style: Style
) -> None:
    """The report on one image, as a page and in numbers. Each is made when it is asked for."""
    stem = PurePath(source.name).stem
    with st.container(horizontal=True):
        offer(
            "Report as picture (PNG)",
            lambda: services.maps.render_image_png(
                model, source.read(), seen.prediction, maps, style.opacity, style.threshold
            ),
            f"{stem}-report.png",
        )
        offer(
            "Report in numbers (JSON)",
            lambda: services.files.as_json(services.maps.result_to_json(model, seen.prediction, maps)),
            f"{stem}-report.json",
        )
    if source.licence:
        st.caption(f":material/info: The report holds this picture. Its licence: {plain(source.licence)}")
