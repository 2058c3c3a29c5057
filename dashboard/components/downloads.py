"""What a visitor carries away."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import PurePath

import streamlit as st

from dashboard import services
from dashboard.components.text import plain
from steel_core.types import Attribution


def report_buttons(
    model: services.Predictor,
    source: services.Source,
    seen: services.Look,
    maps: Sequence[Attribution],
    style: services.Style,
) -> None:
    """The report on one image, as a page and in numbers. Each is made when it is asked for."""
    stem = PurePath(source.name).stem
    with st.container(horizontal=True):
        st.download_button(
            "Report as picture (PNG)",
            functools.partial(services.report_png, model, source, seen, maps, style),
            f"{stem}-report.png",
            "image/png",
            on_click="ignore",
            icon=":material/download:",
        )
        st.download_button(
            "Report in numbers (JSON)",
            functools.partial(services.report_json, model, seen, maps),
            f"{stem}-report.json",
            "application/json",
            on_click="ignore",
            icon=":material/data_object:",
        )
    if source.licence:
        st.caption(f":material/info: The report holds this picture. Its licence: {plain(source.licence)}")


def region_buttons(
    model: services.Predictor, seen: services.Look, made: Attribution, marked: services.Marked, stem: str
) -> None:
    """A region as boxes and as a mask."""
    with st.container(horizontal=True):
        st.download_button(
            "Mask (PNG)",
            functools.partial(services.mask_png, marked.region),
            f"{stem}-{made.method}-mask.png",
            "image/png",
            on_click="ignore",
            icon=":material/download:",
        )
        st.download_button(
            "Boxes (JSON)",
            functools.partial(services.region_json, model, seen, made, marked),
            f"{stem}-{made.method}-boxes.json",
            "application/json",
            on_click="ignore",
            icon=":material/data_object:",
        )


def verdict_buttons(
    model: services.Predictor, looks: Sequence[tuple[services.Source, services.Look | services.Refused]]
) -> None:
    """All verdicts as a table and in numbers."""
    with st.container(horizontal=True):
        st.download_button(
            "All verdicts (CSV)",
            functools.partial(services.verdicts_csv, looks),
            "verdicts.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/table:",
        )
        st.download_button(
            "All verdicts (JSON)",
            functools.partial(services.verdicts_json, model, looks),
            "verdicts.json",
            "application/json",
            on_click="ignore",
            icon=":material/data_object:",
        )
