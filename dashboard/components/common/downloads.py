"""What a visitor carries away."""

import functools
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
    """A button for a file that is made when it is pressed."""
    mime, icon = _KINDS[file.rpartition(".")[2]]
    st.download_button(label, make, file, mime, on_click="ignore", icon=icon)


def report_buttons(
    model: Predictor, source: Source, seen: FirstLook, maps: Sequence[Attribution], style: Style
) -> None:
    """The report on one image, as a page and in numbers. Each is made when it is asked for."""
    stem = PurePath(source.name).stem
    with st.container(horizontal=True):
        offer(
            "Report as picture (PNG)",
            functools.partial(services.maps.report_png, model, source, seen, maps, style),
            f"{stem}-report.png",
        )
        offer(
            "Report in numbers (JSON)",
            functools.partial(services.maps.report_json, model, seen, maps),
            f"{stem}-report.json",
        )
    if source.licence:
        st.caption(f":material/info: The report holds this picture. Its licence: {plain(source.licence)}")
