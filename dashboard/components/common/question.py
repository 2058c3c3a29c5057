"""What is asked of the Explain page: methods, classes, layer, background, and what stands beside it; all in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import services
from dashboard.components.common.linked import from_link, to_link
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import marked
from steel_core.render import percent

_NOTHING, _ALONE = "nothing", "no other class"
_OTHER_MODEL, _OTHER_IMAGE = "another model", "another image"
_OFFERED = 1000  # images of the data set to choose the second one from


@dataclass(frozen=True)
class Subject:
    """A model and an image that it looked at."""

    model: services.models.Predictor
    source: services.datasets.Source
    seen: services.images.Look


@dataclass(frozen=True)
class Question:
    """What the page shall show.

    Attributes:
        subjects: what is explained; two where they stand side by side.
        methods: names of the explainers, in columns.
        classes: the classes to explain, in rows.
        against: the class they are contrasted with, or "".
        layer: the layer that Grad-CAM reads, or "".
        background: name of the SHAP background, or "".
    """

    subjects: tuple[Subject, ...]
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    against: str
    layer: str
    background: str


def question(
    model: services.models.Predictor,
    source: services.datasets.Source,
    seen: services.images.Look,
    given: Sequence[services.datasets.Source],
) -> Question:
    """Draw the choices, and give what was chosen."""
    first = Subject(model, *services.images.decisive(model, source, seen))
    st.markdown(_said(first))
    with st.container(border=True):
        methods = _methods(model)
        with st.grid(4, min_column_width=220):
            classes, against = _classes(model, first.seen)
            layer = _layer(model, methods)
            background = _background(model, methods)
        second = _beside(first, given)
    return Question((first, *second), methods, classes, against, layer, background)


def _said(subject: Subject) -> str:
    prediction = subject.seen.prediction
    best = "" if prediction.outcome == prediction.pred else f"most likely {plain(prediction.pred)}, "
    said = (
        f"**{marked(prediction)}** · {best}{percent(prediction.confidence)} · {plain(subject.source.name)} "
        f"· {plain(subject.model.card.title)}"
    )
    if isinstance(subject.source, services.images.Tile):
        said += (
            "  \n:material/view_column: **Only one tile is explained here**, as the picture is too large for one look: "
            f"{plain(prediction.note)}. Inspect has a map of the whole."
        )
    return said


def _methods(model: services.models.Predictor) -> tuple[str, ...]:
    quick, slow = services.maps.methods()
    chosen = []
    for key, label, names in (("methods", "Methods, made at once", quick), ("slow", "Methods that take longer", slow)):
        chosen += (
            st.pills(
                label,
                names,
                selection_mode="multi",
                default=[name for name in services.maps.MAPS if name in names],
                format_func=lambda name: services.maps.method(name).title,
                key=key,
                bind="query-params",
            )
            or []
        )
    times = " · ".join(
        f"{services.maps.method(name).title} about {max(1, round(services.maps.expected_seconds(model, name)))} s"
        for name in slow
    )
    st.caption(f":material/hourglass_top: For each map: {plain(times)}. They are made beside the page.")
    return tuple(chosen)


def _classes(model: services.models.Predictor, seen: services.images.Look) -> tuple[tuple[str, ...], str]:
    best, second = services.images.likeliest(model, seen)
    usual = [_ALONE]
    if second and services.images.doubtful(model, seen):
        usual = [second]
    key = f"{seen.prediction.image_sha256} {model.hash}"
    classes = st.multiselect(
        "Classes to explain",
        model.classes,
        default=from_link("classes", model.classes, [best]),
        format_func=lambda name: f"{name} (predicted)" if name == best else name,
        key=f"classes {key}",
        help="One row of maps for each.",
    )
    to_link("classes", classes, [best])
    choices = [_ALONE, *model.classes]
    against = st.selectbox(
        "Rather than",
        choices,
        index=choices.index(from_link("against", choices, usual)[0]),
        key=f"against {key}",
        help="With a class here, maps show what tells the two apart: red for the one, blue for the other. "
        "Where the model is in doubt, the page begins with the likeliest class rather than the next one.",
    )
    to_link("against", [against], usual)
    return tuple(classes), "" if against == _ALONE else against


def _layer(model: services.models.Predictor, methods: Sequence[str]) -> str:
    if not any("cam layer" in services.maps.method(name).needs for name in methods):
        return ""
    grids = services.maps.layers(model)
    layers = list(grids)
    usual = services.maps.usual_layer(model)
    chosen = from_link("layer", layers, [usual])[0]
    layer = st.selectbox(
        "Layer of Grad-CAM",
        layers,
        index=layers.index(chosen),
        format_func=lambda name: f"{name}, {grids[name][0]} × {grids[name][1]}" + (" (usual)" if name == usual else ""),
        key=f"layer {model.hash}",
        help="Early layers see fine structures, late ones whole defects. Only the usual one has a fixed scale.",
    )
    to_link("layer", [layer], [usual])
    return "" if layer == usual else layer


def _background(model: services.models.Predictor, methods: Sequence[str]) -> str:
    named = services.maps.backgrounds(model)
    if not named or not any("background" in services.maps.method(name).needs for name in methods):
        return ""
    usual = next(iter(named))
    with st.container(gap="xsmall"):
        chosen = st.segmented_control(
            "SHAP background",
            list(named),
            default=from_link("background", list(named), [usual])[0],
            required=True,
            key=f"background {model.hash}",
            help="What the picture is compared with. Another background asks another question: choose it to see.",
        )
        st.caption(plain(named[chosen]))
    to_link("background", [chosen], [usual])
    return "" if chosen == usual else chosen


def _beside(first: Subject, given: Sequence[services.datasets.Source]) -> list[Subject]:
    """The second model or image, where one was chosen and can be read."""
    with st.grid(4, min_column_width=220):
        kind = st.selectbox(
            "Side by side with", [_NOTHING, _OTHER_MODEL, _OTHER_IMAGE], key="beside", bind="query-params"
        )
        if kind == _NOTHING:
            return []
        images = {source.name: source for source in given} | services.datasets.some_images(
            st.session_state.get("data"), _OFFERED
        )
        if kind == _OTHER_MODEL:
            names = [name for name in services.models.available() if name != st.session_state.get("model")]
        else:
            names = [name for name, source in images.items() if source.key != first.source.key]
        if not names:
            st.caption("There is no other one here.")
            return []
        chosen = from_link("second", names, names[:1])[0]
        name = st.selectbox("Which", names, index=names.index(chosen), key=f"second {kind} {first.source.key}")
        to_link("second", [name], names[:1])
    model = services.models.predictor(name) if kind == _OTHER_MODEL else first.model
    source = first.source if kind == _OTHER_MODEL else images[name]
    seen = services.images.look(model, source)
    if isinstance(seen, services.datasets.Refused):
        st.error(plain(seen.sentence), icon=":material/broken_image:")
        return []
    second = Subject(model, *services.images.decisive(model, source, seen))
    st.markdown(_said(second))
    return [second]
