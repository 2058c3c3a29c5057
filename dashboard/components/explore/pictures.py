"""The gallery: one page of the images that match, with outlines; and what the images of a class have in common."""

import html
import math
from collections.abc import Sequence

import streamlit as st

from dashboard import services
from dashboard.components.common.gallery import gallery
from dashboard.components.common.text import capital, counted, plain
from dashboard.components.explore.filters import CHOICES, clear, first_page
from dashboard.services.explore import Collection, Filter

_LISTED = "as listed"
_KEPT = (*CHOICES, "group", "range", "around", "sort", "falling", "per", "tab", "page")  # in the links of images


def pictures(collection: Collection, asked: Filter) -> None:
    """One page of the images that match, sorted; or that there is none, and the way back."""
    numbers = {services.explore.title(name): name for name in collection.numbers}  # a link holds what is read here
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = [_LISTED, *numbers]
        number = st.selectbox("Sort by", by, key="sort", bind="query-params", on_change=first_page, width=220)
        falling = st.toggle("Largest first", key="falling", bind="query-params", on_change=first_page)
        outlines = st.toggle("Outlines", key="outlines", bind="query-params", value=True)
        per = st.segmented_control(
            "On a page", [24, 48], default=24, required=True, key="per", bind="query-params", on_change=first_page
        )
    sort = numbers.get(number, "")
    rows = services.explore.rows(collection, asked, sort, falling)
    if not len(rows):
        st.info("No image matches these filters.", icon=":material/filter_alt_off:")
        st.button("Clear filters", on_click=clear, type="primary")
        return
    pages = math.ceil(len(rows) / per)
    wanted = st.query_params.get("page")
    current = min(st.pagination(pages, key="page", bind="query-params"), pages) if pages > 1 else 1
    if wanted and wanted not in map(str, range(1, pages + 1)):
        st.caption(f":material/info: There is no page “{plain(wanted[:20])}” here; showing page {current} instead.")
    first = (current - 1) * per
    st.caption(f"{first + 1:,} to {min(first + per, len(rows)):,} of {counted(len(rows), 'image')}")
    page = rows[first : first + per].tolist()
    if outlines:
        legend(collection, page)
    tiles(collection, page, outlines, sort)


def tiles(
    collection: Collection,
    rows: Sequence[int],
    outlines: bool = True,
    number: str = "",
    notes: Sequence[str] = (),
    name: str = "",
) -> None:
    """Thumbnails of some rows, each leading to the image's own page; `number` names the one that stands below."""
    sources = [services.datasets.source(collection.index, row) for row in rows]
    captions = [_below(collection, row, number) for row in rows]
    captions = [" · ".join(filter(None, pair)) for pair in zip(captions, notes or [""] * len(rows), strict=True)]
    paths = [str(collection.index.table["path"].iat[row]) for row in rows]
    gallery(
        list(zip(paths, sources, captions, strict=True)),
        collection.name,
        page="explore",
        name=name,
        also={key: st.query_params.get_all(key) for key in _KEPT if key in st.query_params},
        picture=lambda i: services.explore.picture(collection, rows[i], outlines),
    )


def likeness(collection: Collection, alike: list[tuple[int, float]], name: str) -> None:
    """Images by falling likeness, with the number below each."""
    tiles(collection, [row for row, _ in alike], notes=[f"likeness {value:.3f}" for _, value in alike], name=f"{name}-")
    st.caption(
        "Likeness: the cosine between the model's features; 1 is the same. Alike to the model, not of one origin."
    )


def legend(collection: Collection, rows: Sequence[int]) -> None:
    """Colour and number of each class that has outlines in these images."""
    there = services.explore.outlined_classes(collection, rows)
    marks = "".join(
        f'<span style="display:inline-flex;align-items:center;gap:.35rem;margin-right:1rem">'
        f'<span style="background:#000;color:rgb{sign.colour};border:2px solid rgb{sign.colour};padding:0 .35rem;'
        f'font-size:.8rem">{sign.number}</span>{html.escape(name)}</span>'
        for name, sign in collection.signs.items()
        if name in there
    )
    if marks:
        st.html(f'<div role="note" aria-label="Outlines by class" style="font-size:.9rem">{marks}</div>')


def commons(collection: Collection, asked: Filter) -> None:
    """The average image and the spread of each class, once somebody asks for them."""
    if not st.toggle("Average image and spread of each class", key="averages", bind="query-params"):
        return
    averages = services.distributions.averages(collection, asked)
    with st.grid(6, min_column_width=150):
        for label, one in averages.items():
            with st.container(gap="xsmall"):
                st.markdown(f"**{plain(label or 'unlabelled')}**")
                with st.grid(2, min_column_width=60):
                    st.image(one.mean, width="stretch", alt=f"Average image of {label or 'unlabelled'}")
                    st.image(one.spread, width="stretch", alt=f"Spread of {label or 'unlabelled'}")
                st.caption(f"{counted(one.n, 'image')}; spread up to {one.largest:.2f}")
    st.caption(
        f"Left: the mean of at most {services.distributions.AVERAGED} images, drawn evenly. Right: their standard "
        "deviation, stretched to its own largest value. A pattern here that is not steel is a trace of the camera or "
        "the light."
    )


def _below(collection: Collection, row: int, number: str) -> str:
    facts = collection.row(row)
    words = [plain(facts["labels"].replace("|", ", ") or "unlabelled"), plain(facts["split"])]
    if facts.get("pred"):
        icon = {"wrong": ":material/close: called", "right": ":material/check:"}.get(facts["verdict"], "called")
        words.append(f"{icon} {plain(facts['pred'])}")
    if number:
        words.append(f"{capital(services.explore.title(number))} {facts[number]:.3g}")
    return " · ".join(filter(None, words))
