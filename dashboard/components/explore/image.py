"""One image by its link: what it shows, what the model says, where it stands among the others, and what is alike."""

from urllib.parse import urlencode

import streamlit as st

from dashboard import services
from dashboard.components.common.chooser import drop_from_address
from dashboard.components.common.gallery import image_link
from dashboard.components.common.plot import draw_table
from dashboard.components.common.strip import strip
from dashboard.components.common.text import capital, plain
from dashboard.components.common.verdict import verdict_card, warnings
from dashboard.components.explore.long_work import offer_work
from dashboard.components.explore.pictures import legend, likeness
from dashboard.services.datasets import Refused, Source
from dashboard.services.explore import Collection
from dashboard.services.images import FirstLook
from dashboard.services.models import Predictor
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


def image_page(collection: Collection, model: Predictor | None, path: str) -> None:
    """Everything about the image with this path within the data set, or with this base name."""
    st.button("Back to the gallery", on_click=drop_from_address, args=("image",), icon=":material/arrow_back:")
    row = services.datasets.row_of(collection.index, path)  # what is unknown or not clear is told by the guard
    path = str(collection.index.table["path"].iat[row])
    st.query_params["image"] = path  # a link within the page leaves the address as it was
    source, link = services.datasets.source(collection.index, row), image_link(path, collection.name)
    st.subheader(plain(source.name))
    seen = None
    left, right = st.columns([3, 2], gap="large")
    with left:
        outlines = st.toggle("Outlines of boxes and masks", value=True, key="outlined")
        drawn = services.explore.picture(collection, row, outlines, services.images.PREVIEW)
        if isinstance(drawn, Refused):
            st.error(plain(drawn.sentence), icon=":material/broken_image:")
        else:
            alt = f"{source.name}, {', '.join(source.labels) or 'unlabelled'}"
            st.image(services.files.inline(drawn), width="stretch", alt=alt)
            if outlines:
                legend(collection, [row])
        _facts(collection, row)
    with right:
        if model and not isinstance(drawn, Refused) and not services.strips.is_strip(model, collection, row):
            seen = services.images.first_look(model, source)
            if isinstance(seen, FirstLook):
                verdict_card(model, seen)
        with st.container(horizontal=True):
            for page, (label, icon) in _PAGES.items():
                st.page_link(f"app_pages/{page}.py", label=label, icon=icon, query_params=link)
        st.caption("The link to this image:")
        address = (st.context.url or "").partition("?")[0]
        st.code(f"{address}?{urlencode(link)}", language=None, wrap_lines=True)
    if isinstance(drawn, Refused):
        return
    if model and services.strips.is_strip(model, collection, row):
        warnings(model)
        strip(model, source)
    _standing(collection, row, model)
    _triaged(source)
    _alike(collection, row, model)


def _facts(collection: Collection, row: int) -> None:
    sample = collection.index[row]
    file = str(collection.index.table["path"].iat[row])
    facts = {"File": file, "Label": ", ".join(sample.labels) or "unlabelled", "Split": sample.split,
            "Group": sample.group, "Source": sample.source}  # fmt: skip
    st.markdown("  \n".join(f"**{name}:** {plain(value)}" for name, value in facts.items() if value))
    row_facts = collection.row(row)
    if row_facts.get("verdict"):
        st.markdown(f"**In the evaluation:** {row_facts['verdict']}, loss {row_facts['loss']:.3f}")
    masks, boxes = services.explore.shapes(collection, row)
    listed = [
        {"Class": label, "What": "mask", "Place": f"{percent(float(mask.mean()))} of the picture"}
        for label, mask in masks.items()
    ]
    listed += [
        {"Class": box.label, "What": "box", "Place": f"columns {box.xmin} to {box.xmax}, rows {box.ymin} to {box.ymax}"}
        for box in boxes
    ]
    if listed:
        draw_table(listed, "Boxes and masks of this image")


def _standing(collection: Collection, row: int, model: Predictor | None) -> None:
    st.subheader("Among the others")
    table = services.distributions.standing(collection, row)
    if table.empty:
        offer_work("properties", model, collection.name)
        return
    units = {services.explore.title(name): _UNITS.get(name, "{:.3g}") for name in collection.numbers}
    table["Value"] = [units[name].format(value) for name, value in zip(table["Number"], table["Value"], strict=True)]
    table["Number"] = table["Number"].map(capital)
    share = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    above = {str(name): share for name in table if str(name).startswith("Above")}
    draw_table(table, "Each number of this image, and the share of images that it lies above", above)
    st.caption("Above: share of the images whose number is smaller; equal ones count half. 50 % is the middle.")


def _triaged(source: Source) -> None:
    history = services.explore.TriageStore().history(source.read().sha256)[::-1]
    if history:
        st.subheader("Earlier triage")
        heads = {"at": "When (UTC)", "who": "Who", "finding": "Finding", "should_be": "Should be", "comment": "Comment"}
        rows = [{head: getattr(one, name) for name, head in heads.items()} for one in history]
        draw_table(rows, "What people found about this image")


def _alike(collection: Collection, row: int, model: Predictor | None) -> None:
    if model is None:
        return
    st.subheader("Most alike")
    if collection.embedded is None:
        offer_work("embedding", model, collection.name)
        return
    likeness(collection, services.explore.alike(collection, row, _ALIKE), "alike")
