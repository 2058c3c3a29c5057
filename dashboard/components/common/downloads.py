"""What a visitor carries away."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import PurePath

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
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
    model: services.models.Predictor,
    source: services.datasets.Source,
    seen: services.images.Look,
    maps: Sequence[Attribution],
    style: services.maps.Style,
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


def region_buttons(
    model: services.models.Predictor,
    seen: services.images.Look,
    made: Attribution,
    marked: services.maps.Marked,
    stem: str,
) -> None:
    """A region as boxes and as a mask."""
    with st.container(horizontal=True):
        offer("Mask (PNG)", functools.partial(services.maps.mask_png, marked.region), f"{stem}-{made.method}-mask.png")
        offer(
            "Boxes (JSON)",
            functools.partial(services.maps.region_json, model, seen, made, marked),
            f"{stem}-{made.method}-boxes.json",
        )


def verdict_buttons(
    model: services.models.Predictor,
    looks: Sequence[tuple[services.datasets.Source, services.images.Look | services.datasets.Refused]],
) -> None:
    """All verdicts as a table and in numbers."""
    with st.container(horizontal=True):
        offer("All verdicts (CSV)", functools.partial(services.images.verdicts_csv, looks), "verdicts.csv")
        offer("All verdicts (JSON)", functools.partial(services.images.verdicts_json, model, looks), "verdicts.json")
