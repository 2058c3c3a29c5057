"""What in the data predicts the label beside the defect: asked first, shown in pictures, with what to do about it."""

import functools

import streamlit as st

from dashboard import services
from dashboard.components.common.chooser import drop_from_address
from dashboard.components.common.gallery import gallery
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.progress import result_of
from dashboard.components.common.text import counted, plain
from dashboard.services.clues import FILE_FACTS, MARKS, LabelClue
from dashboard.services.datasets import Source
from dashboard.services.models import Predictor

_PICTURES = 4  # with it, and as many without


def label_clues(data: str, audited: Predictor | None = None) -> None:
    """What predicts the label in the images to learn from; for an audit, the way to ask whether the model uses it."""
    st.subheader("What in your data predicts the label?")
    with guarded():
        clues = result_of(services.clues.ask(data), "clues", functools.partial(_offer, data))
        if clues is not None:
            _answer(data, clues, audited)


def _offer(data: str) -> None:
    """Somebody stopped it."""
    st.button("Ask the data", on_click=_ask_again, args=(data,), icon=":material/query_stats:")


def _ask_again(data: str) -> None:
    services.clues.ask(data, again=True)


def _answer(data: str, clues: list[LabelClue], audited: Predictor | None) -> None:
    alarming = [clue for clue in clues if clue.alarming]
    if not clues:
        st.caption(":material/balance: Too few images of each class to ask.")
        return
    looked_at = f"{len(clues)} things in {counted(clues[0].n, 'image')} to learn from"
    spec = services.datasets.dataset(data).spec
    if audited and (learnt_from := audited.card.data.get("name")) not in (data, spec.name):
        st.caption(
            f":material/info: This model learnt from {plain(str(learnt_from or 'images that it does not name'))}."
        )
    if not alarming:
        st.markdown(
            f":green[:material/check_circle: **Nothing beside the defects alarms.**] Looked at: {looked_at}, the file, "
            "borders, light, marks, patterns, sharpness and places among them."
        )
        with st.expander("How well each tells a class"):
            _draw_strengths(clues)
        return
    first, *more = alarming
    with st.container(border=True):
        with st.grid(2, min_column_width=330):
            with st.container():
                _describe(first, audited)
            with st.container():
                _draw_strengths(clues)
                st.caption(f"The strongest of {looked_at}. ⚠: beyond chance above the dotted line.")
        _show_pictures(data, first)
    if more:
        with st.expander(f"A model could also learn: {', '.join(plain(clue.name) for clue in more)}"):
            for clue in more:
                _describe(clue, audited)
                _show_pictures(data, clue)


def _describe(clue: LabelClue, audited: Predictor | None) -> None:
    st.markdown(f"### :red[:material/warning: {plain(clue.title)}]")
    st.markdown(f"By this alone, {plain(clue.sentence.partition(': ')[2])}")
    if audited is None:
        st.markdown(f":material/build: {_advise(clue)}")
    else:
        st.button(
            "Test whether the model uses it",
            key=f"test {clue.name}",
            on_click=_ask_audit,
            args=(clue,),
            type="primary",
            icon=":material/policy:",
        )


def _advise(clue: LabelClue) -> str:
    label = plain(clue.label)
    if clue.name in FILE_FACTS or clue.name == "compression":
        return "Before training, save all images alike: one format, size and quality."
    if clue.name.startswith("border"):
        return "Before training, crop this border from every image."
    if clue.name in MARKS or clue.where:
        return (
            f"Before training, balance it: add {label} images without it, or others with it, until the shares are "
            "alike. A model that has learnt it can be cured (Audit, Cure)."
        )
    return f"Before training, add {label} images and others that were taken alike, or level all images alike."


def _ask_audit(clue: LabelClue) -> None:
    """Leads to the form, with the question that fits the clue."""
    kind = "properties"
    if clue.name in MARKS:
        kind = "white-stain"
    elif clue.name.startswith("border"):
        kind = "edges"
    elif clue.where:
        kind = "discover"
    st.session_state.update({"view": "Data set", "audit kinds": [kind]})
    drop_from_address("run")


def _draw_strengths(clues: list[LabelClue]) -> None:
    draw_plot(services.clues.strengths(clues), "What predicts the label")


def _show_pictures(data: str, clue: LabelClue) -> None:
    """Images of the class that it gives away, beside others that lack it."""
    label = plain(clue.label)
    with st.grid(2, min_column_width=330):
        for words, rows in ((f"**{label}**, told by it", clue.rows), ("**Others**, told by its absence", clue.others)):
            with st.container(gap="xsmall"):
                st.markdown(words)
                _show_row(data, clue, rows[:_PICTURES])


def _show_row(data: str, clue: LabelClue, rows: tuple[int, ...]) -> None:
    index = services.datasets.dataset(data)
    tiles: list[tuple[str, Source, str]] = []
    for row in rows:
        words = (", ".join(index[row].labels), services.clues.fact(data, row, clue))
        tiles.append(
            (
                str(index.table["path"].iat[row]),
                services.datasets.source(index, row),
                plain(" · ".join(filter(None, words))),
            )
        )
    gallery(
        tiles,
        data,
        columns=_PICTURES,
        page="explore",
        name=f"clue-{clue.name}-{rows[0] if rows else ''}-",
        picture=lambda i: services.clues.picture(data, rows[i], clue),
    )
