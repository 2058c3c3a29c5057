"""One image by its link: what it shows, what the model says, where it stands among the others, and what is alike."""

from __future__ import annotations

from dataclasses import asdict
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.gallery import image_link
from dashboard.components.common.text import capital, plain
from dashboard.components.common.verdict import verdict_card, warnings
from dashboard.components.explore.feature_map import likeness
from dashboard.components.explore.long_work import offer_work
from dashboard.components.explore.pictures import legend
from dashboard.components.explore.strip import strip
from steel_core.render import percent

_ALIKE = 12
_SHARE, _PIXELS = "{:.1%}", "{:.0f} px"
_UNITS = {
    "confidence": _SHARE, "brightness": _SHARE, "contrast": _SHARE, "noise": _SHARE, "clipped": _SHARE,
    "defect_area": _SHARE, "defect_row": _SHARE, "defect_column": _SHARE, "height": _PIXELS, "width": _PIXELS,
}  # fmt: skip
_PAGES = {
    "inspect": ("Inspect", ":material/frame_inspect:"),
    "explain": ("Explain", ":material/layers:"),
    "audit": ("Audit", ":material/policy:"),
}


def image_page(shown: services.explore.Collection, model: services.models.Predictor | None, path: str) -> None:
    """Everything about the image with this path within the data set, or with this base name."""
    st.button("Back to the gallery", on_click=_close, icon=":material/arrow_back:")
    row = services.datasets.row_of(shown.index, path)  # what is unknown or not clear is told by the guard
    path = str(shown.index.table["path"].iat[row])
    st.query_params["image"] = path  # a link within the page leaves the address as it was
    source = services.datasets.source(shown.index, row)
    st.subheader(plain(source.name))
    seen = None
    left, right = st.columns([3, 2], gap="large")
    with left:
        outlines = st.toggle("Outlines of boxes and masks", value=True, key="outlined")
        drawn = services.explore.picture(shown, row, outlines, services.images.PREVIEW)
        if isinstance(drawn, services.datasets.Refused):
            st.error(plain(drawn.sentence), icon=":material/broken_image:")
        else:
            alt = f"{source.name}, {', '.join(source.labels) or 'unlabelled'}"
            st.image(services.files.inline(drawn), width="stretch", alt=alt)
            if outlines:
                legend(shown, [row])
        _facts(shown, row)
    with right:
        if (
            model
            and not isinstance(drawn, services.datasets.Refused)
            and not services.explore.is_strip(model, shown, row)
        ):
            seen = services.images.look(model, source)
            if isinstance(seen, services.images.Look):
                verdict_card(model, seen)
        with st.container(horizontal=True):
            for page, (label, icon) in _PAGES.items():
                st.page_link(f"app_pages/{page}.py", label=label, icon=icon, query_params=image_link(path, shown.name))
        st.caption("The link to this image:")
        address = (st.context.url or "").partition("?")[0]
        st.code(f"{address}?{urlencode(image_link(path, shown.name))}", language=None, wrap_lines=True)
    if isinstance(drawn, services.datasets.Refused):
        return
    if model and services.explore.is_strip(model, shown, row):
        warnings(model)
        strip(model, source)
    _standing(shown, row, model)
    _triaged(source)
    _alike(shown, row, model)


def _close() -> None:
    st.query_params.pop("image", None)


def _facts(shown: services.explore.Collection, row: int) -> None:
    """Label, split, group, source, and the list of what is outlined."""
    sample = shown.index[row]
    file = str(shown.index.table["path"].iat[row])
    told = {"File": file, "Label": ", ".join(sample.labels) or "unlabelled", "Split": sample.split,
            "Group": sample.group, "Source": sample.source}  # fmt: skip
    st.markdown("  \n".join(f"**{name}:** {plain(value)}" for name, value in told.items() if value))
    known = shown.row(row)
    if known.get("verdict"):
        st.markdown(f"**In the evaluation:** {known['verdict']}, loss {known['loss']:.3f}")
    masks, boxes = services.explore.shapes(shown, row)
    listed = [
        {"Class": label, "What": "mask", "Place": f"{percent(float(mask.mean()))} of the picture"}
        for label, mask in masks.items()
    ]
    listed += [
        {
            "Class": box.label,
            "What": "box",
            "Place": f"columns {box.xmin} to {box.xmax}, rows {box.ymin} to {box.ymax}",
        }
        for box in boxes
    ]
    if listed:
        st.dataframe(pd.DataFrame(listed), hide_index=True, alt="Boxes and masks of this image")


def _standing(shown: services.explore.Collection, row: int, model: services.models.Predictor | None) -> None:
    st.subheader("Among the others")
    table = services.explore.standing(shown, row)
    if table.empty:
        offer_work("properties", model, shown.name)
        return
    units = {services.explore.title(name): _UNITS.get(name, "{:.3g}") for name in shown.numbers}
    table["Value"] = [units[name].format(value) for name, value in zip(table["Number"], table["Value"], strict=True)]
    table["Number"] = table["Number"].map(capital)
    share = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            **{str(name): share for name in table if str(name).startswith("Above")},
        },
        alt="Each number of this image, and the share of images that it lies above",
    )
    st.caption("Above: share of the images whose number is smaller; equal ones count half. 50 % is the middle.")


def _triaged(source: services.datasets.Source) -> None:
    found = services.explore.triage_of(source.read().sha256)
    if found:
        st.subheader("Earlier triage")
        heads = {"at": "When (UTC)", "who": "Who", "finding": "Finding", "should_be": "Should be", "comment": "Comment"}
        rows = [{head: asdict(one)[name] for name, head in heads.items()} for one in found]
        st.dataframe(pd.DataFrame(rows), hide_index=True, alt="What people found about this image")


def _alike(shown: services.explore.Collection, row: int, model: services.models.Predictor | None) -> None:
    if model is None:
        return
    st.subheader("Most alike")
    if shown.embedded is None:
        offer_work("embedding", model, shown.name)
        return
    likeness(shown, services.explore.alike(shown, row, _ALIKE), "alike")
