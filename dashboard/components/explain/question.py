"""What is asked of the Explain page: methods, classes, layer, background, and what stands beside it; all in the URL."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import marked
from dashboard.services.datasets import Refused, Source
from dashboard.services.images import FirstLook, Tile
from dashboard.services.models import Predictor
from steel_core.render import percent

_NOTHING, _ALONE = "nothing", "no other class"
_OTHER_MODEL, _OTHER_IMAGE = "another model", "another image"
_OFFERED = 1000  # images of the data set to choose the second one from


@dataclass(frozen=True)
class Subject:
    """A model and an image that it looked at."""

    model: Predictor
    source: Source
    seen: FirstLook


@dataclass(frozen=True)
class Question:
    """What the page shall show: `methods` in columns, `classes` in rows, for one subject or two side by side.

    `against` is the class they are contrasted with, `layer` the one that Grad-CAM reads; "" for neither.
    """

    subjects: tuple[Subject, ...]
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    against: str
    layer: str
    background: str


def question(model: Predictor, source: Source, seen: FirstLook, sources: Sequence[Source]) -> Question:
    first = Subject(model, *services.images.explainable_part(source, seen))
    st.markdown(_said(first))
    with st.container(border=True):
        methods = _methods(model)
        with st.grid(4, min_column_width=220):
            classes, against = _classes(model, first.seen)
            layer = _layer(model, methods)
            background = _background(model, methods)
        second = _beside(first, sources)
    return Question((first, *second), methods, classes, against, layer, background)


# The choices below lie in the URL although their options change with the image, which a bound widget cannot follow.


def _from_link(name: str, allowed: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """What the URL says under `name`, as far as it is allowed; what it may not hold at all falls back."""
    return [value for value in st.query_params.get_all(name) if value in allowed] or list(otherwise)


def _to_link(name: str, chosen: Sequence[str], otherwise: Sequence[str]) -> None:
    """Keep a choice in the URL, unless it is the one that a visitor meets anyway."""
    if list(chosen) != list(otherwise):
        st.query_params[name] = list(chosen)
    else:
        st.query_params.pop(name, None)


def _said(subject: Subject) -> str:
    prediction = subject.seen.prediction
    best = "" if prediction.outcome == prediction.pred else f"most likely {plain(prediction.pred)}, "
    line = (
        f"**{marked(prediction)}** · {best}{percent(prediction.confidence)} · {plain(subject.source.name)} "
        f"· {plain(subject.model.card.title)}"
    )
    if isinstance(subject.source, Tile):
        line += (
            "  \n:material/view_column: **Only one tile is explained here**, as the picture is too large for one look: "
            f"{plain(prediction.note)}. Inspect has a map of the whole."
        )
    return line


def _methods(model: Predictor) -> tuple[str, ...]:
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


def _classes(model: Predictor, seen: FirstLook) -> tuple[tuple[str, ...], str]:
    best, second = services.images.two_likeliest(model, seen)
    usual = [second] if second and model.is_doubtful(seen.prediction) else [_ALONE]
    key = f"{seen.prediction.image_sha256} {model.hash}"
    classes = st.multiselect(
        "Classes to explain",
        model.classes,
        default=_from_link("classes", model.classes, [best]),
        format_func=lambda name: f"{name} (predicted)" if name == best else name,
        key=f"classes {key}",
        help="One row of maps for each.",
    )
    _to_link("classes", classes, [best])
    choices = [_ALONE, *model.classes]
    against = st.selectbox(
        "Rather than",
        choices,
        index=choices.index(_from_link("against", choices, usual)[0]),
        key=f"against {key}",
        help="With a class here, maps show what tells the two apart: red for the one, blue for the other. "
        "Where the model is in doubt, the page begins with the likeliest class rather than the next one.",
    )
    _to_link("against", [against], usual)
    return tuple(classes), "" if against == _ALONE else against


def _layer(model: Predictor, methods: Sequence[str]) -> str:
    if not any("cam layer" in services.maps.method(name).needs for name in methods):
        return ""
    grids = model.layers()
    layers = list(grids)
    usual = model.model.config.cam_layer
    chosen = _from_link("layer", layers, [usual])[0]
    layer = st.selectbox(
        "Layer of Grad-CAM",
        layers,
        index=layers.index(chosen),
        format_func=lambda name: f"{name}, {grids[name][0]} × {grids[name][1]}" + (" (usual)" if name == usual else ""),
        key=f"layer {model.hash}",
        help="Early layers see fine structures, late ones whole defects. Only the usual one has a fixed scale.",
    )
    _to_link("layer", [layer], [usual])
    return "" if layer == usual else layer


def _background(model: Predictor, methods: Sequence[str]) -> str:
    named = model.backgrounds
    if not named or not any("background" in services.maps.method(name).needs for name in methods):
        return ""
    usual = next(iter(named))
    with st.container(gap="xsmall"):
        chosen = st.segmented_control(
            "SHAP background",
            list(named),
            default=_from_link("background", list(named), [usual])[0],
            required=True,
            key=f"background {model.hash}",
            help="What the picture is compared with. Another background asks another question: choose it to see.",
        )
        st.caption(plain(named[chosen]))
    _to_link("background", [chosen], [usual])
    return "" if chosen == usual else chosen


def _beside(first: Subject, sources: Sequence[Source]) -> list[Subject]:
    with st.grid(4, min_column_width=220):
        kind = st.selectbox(
            "Side by side with", [_NOTHING, _OTHER_MODEL, _OTHER_IMAGE], key="beside", bind="query-params"
        )
        if kind == _NOTHING:
            return []
        data = st.session_state.get("data")
        images = {source.name: source for source in sources}
        if data:
            index = services.datasets.dataset(data)
            paths = index.table["path"].head(_OFFERED)
            images |= {path: services.datasets.source(index, i) for i, path in enumerate(paths)}
        if kind == _OTHER_MODEL:
            names = [name for name in services.models.available() if name != st.session_state.get("model")]
        else:
            names = [name for name, source in images.items() if source.key != first.source.key]
        if not names:
            st.caption("There is no other one here.")
            return []
        chosen = _from_link("second", names, names[:1])[0]
        name = st.selectbox("Which", names, index=names.index(chosen), key=f"second {kind} {first.source.key}")
        _to_link("second", [name], names[:1])
    model = services.models.predictor(name) if kind == _OTHER_MODEL else first.model
    source = first.source if kind == _OTHER_MODEL else images[name]
    seen = services.images.first_look(model, source)
    if isinstance(seen, Refused):
        st.error(plain(seen.sentence), icon=":material/broken_image:")
        return []
    second = Subject(model, *services.images.explainable_part(source, seen))
    st.markdown(_said(second))
    return [second]
