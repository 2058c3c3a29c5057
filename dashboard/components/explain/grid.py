"""The maps of the Explain page: classes in rows, methods in identical columns; and from a map to a region."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer, report_buttons
from dashboard.components.common.guard import guarded
from dashboard.components.common.maps import Cell, legends, opacity, show_maps, waiting
from dashboard.components.common.text import plain
from dashboard.components.common.trust import trust_words
from dashboard.components.explain.question import Question, Subject
from dashboard.services.maps import Read, Style
from steel_core.render import FAINT, describe_target, draw_boxes, percent
from steel_core.types import Attribution


@st.fragment
@guarded()
def draw_explanations(asked: Question) -> None:
    """All maps that were asked for. Opacity and threshold draw the cached raw maps anew."""
    st.markdown(f":material/info: {services.maps.CAUTION}")
    if not asked.methods or not asked.classes:
        st.info("Choose at least one method and one class.", icon=":material/checklist:")
        return
    with st.grid(2, min_column_width=240, width=800):
        hidden = "Hide evidence below this share of the scale"
        style = Style(opacity(), st.slider(hidden, 0.0, 0.9, FAINT, 0.05, key="threshold", persist_state="session"))
    legends(asked.methods)
    trust_words(asked.subjects[0].model)
    readers = {id(subject): functools.cache(subject.source.read) for subject in asked.subjects}
    cells = []
    owners = []
    for target in asked.classes:
        for subject in asked.subjects:
            row = _row(asked, subject, target, readers[id(subject)])
            cells += row
            owners += [subject] * len(row)
    maps = show_maps(cells, style)
    _effect_of_background(cells, maps)
    ready = [(subject, one) for subject, one in zip(owners, maps, strict=True) if one]
    if ready:
        _regions(ready)
        first = asked.subjects[0]
        report_buttons(first.model, first.source, first.seen, [m for s, m in ready if s is first], style)


def _row(asked: Question, subject: Subject, target: str, read: Read) -> list[Cell]:
    against = asked.against if asked.against != target else ""
    words = f"For **{plain(target)}**" + (f" rather than **{plain(against)}**" if against else "")
    if len(asked.subjects) > 1:
        words += f" · {plain(subject.source.name)} · {plain(subject.model.card.title)}"
    st.markdown(words)
    if missing := [name for name in (target, against) if name and name not in subject.model.classes]:
        st.info(f"This model does not know {' and '.join(map(plain, missing))}.", icon=":material/help_center:")
        return []
    own = subject.model is asked.subjects[0].model  # layers and backgrounds are those of the first model
    wanted = []
    for name in asked.methods:
        layer, background = (asked.layer, asked.background) if own else ("", "")
        wanted.append(services.maps.wanted_map(name, target, against, layer, background))
        if wanted[-1].background:  # the usual one beside it, so that its effect is seen
            wanted.append(services.maps.wanted_map(name, target, against, layer))
    cells = []
    with st.grid(1 + len(wanted), min_column_width=190):
        with st.container():
            st.markdown("**Picture as it came**")
            st.image(subject.seen.preview, width="stretch", alt=f"{subject.source.name}, the picture as it came")
        for one in wanted:
            with st.container():
                cells.append(Cell(subject.model, subject.seen, read, one, waiting(subject.model, one.method)))
    return cells


def _effect_of_background(cells: Sequence[Cell], maps: Sequence[Attribution | None]) -> None:
    ready = {
        (cell.model.hash, cell.seen.prediction.image_sha256, cell.asked): one
        for cell, one in zip(cells, maps, strict=True)
        if one
    }
    for (model, image, asked), one in ready.items():
        usual = ready.get((model, image, replace(asked, background="")))
        if asked.background and usual:
            ranks, common = services.maps.agreement_of(one, usual)
            st.markdown(
                f":material/compare: **Effect of the background** on {services.maps.method(asked.method).title} for "
                f"{plain(describe_target(one))}: compared with {plain(one.baseline)} instead of "
                f"{plain(usual.baseline)}, the map keeps {percent(common)} of its strongest tenth (10 % by chance); "
                f"rank correlation {ranks:.2f}."
            )


def _regions(ready: list[tuple[Subject, Attribution]]) -> None:
    st.subheader("From map to region")

    def words(number: int) -> str:
        subject, attribution = ready[number]
        title = f"{services.maps.method(attribution.method).title} for {describe_target(attribution)}"
        return f"{title} · {subject.source.name} · {subject.model.card.name}"

    number = st.selectbox("Map", range(len(ready)), format_func=words, key="region")
    subject, attribution = ready[number if number is not None and number < len(ready) else 0]
    marked = services.maps.mark_region(subject.model, subject.seen, attribution)
    picture, right = st.columns([1, 2], gap="large")
    count = len(marked.region.boxes)
    pieces = "1 piece" if count == 1 else f"{count} pieces"
    picture.image(
        draw_boxes(subject.seen.picture().display(), marked.region.boxes, (subject.seen.height, subject.seen.width)),
        width="stretch",
        output_format="JPEG",
        alt=f"{subject.source.name} with a frame around each of {pieces}. {marked.sentence}",
    )
    with right:
        st.markdown(f"**{marked.sentence}**" + (f" It has {pieces}." if count else ""))
        if marked.own and marked.rule.chosen_on:
            st.caption(f"Where the line is drawn was chosen on {plain(marked.rule.chosen_on)}.")
        elif marked.own:
            st.caption("Drawn one standard deviation above the mean evidence, as no masks were there to choose on.")
        else:
            st.caption(
                "Drawn at half of this map's strongest evidence, as no rule was chosen for this method and model yet: "
                "`python -m steel_core quality --checkpoint … --data … --store` chooses one."
            )
        stem = f"{PurePath(subject.source.name).stem}-{attribution.method}"
        with st.container(horizontal=True):
            mask = functools.partial(services.files.png, marked.region.mask)
            offer("Mask (PNG)", mask, f"{stem}-mask.png")
            boxes = functools.partial(services.maps.region_json, subject.model, subject.seen, attribution, marked)
            offer("Boxes (JSON)", boxes, f"{stem}-boxes.json")
