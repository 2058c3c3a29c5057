"""What a preset decides otherwise, how images are varied included: a widget for each setting, by its definition."""

import math
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.services.training import Record, TrainingSettings
from steel_core.errors import SteelError, UsageError

_SHOWN = 5  # pictures of one image
_GROUPS = {
    "Start": "What it starts from",
    "Course": "How long, how fast",
    "Loss": "What counts, and against learning by heart",
}


def advanced(preset: str, backbone: str) -> TrainingSettings:
    """The preset's settings as they were changed here. Another preset has its own.

    Raises:
        UsageError: the settings exclude each other.
    """
    usual = services.training.PRESETS[preset].config.replace(backbone=backbone)
    fields = services.training.describe_fields(TrainingSettings)
    pretrained = _pretrained(preset, usual)
    chosen: dict[str, Any] = {}
    for group, heading in _GROUPS.items():
        st.caption(heading)
        members = {name: field for name, field in fields.items() if field.get("group") == group}
        chosen |= _ask_all(preset, members, usual, disabled="" if pretrained else "freeze_epochs")
    if not pretrained:
        chosen["freeze_epochs"] = 0
    config, most = usual.replace(**chosen), fields["input_size"]["most"]
    if config.input_size and max(config.input_size) > most:  # a step is timed in the server, which all visitors share
        raise UsageError(f"Pixels: expected at most {most}x{most}, got {'x'.join(map(str, config.input_size))}")
    return config


def _ask_all(
    preset: str, fields: dict[str, dict[str, Any]], usual: Record, sliders: bool = False, disabled: str = ""
) -> dict[str, Any]:
    """A widget for each setting, and the values chosen; what may be left to the program stays empty."""
    chosen = {}
    switches = {name: field for name, field in fields.items() if field.get("type") == "boolean"}
    with st.grid(3, min_column_width=220):
        for name, field in fields.items():
            if name not in switches:
                chosen[name] = _ask(field, getattr(usual, name), f"{preset} {name}", sliders, name == disabled)
    with st.container(horizontal=True):
        for name, field in switches.items():
            chosen[name] = st.toggle(
                field["title"], getattr(usual, name), key=f"{preset} {name}", help=field["description"]
            )
    return chosen


def _ask(field: dict[str, Any], value: Any, key: str, slider: bool, disabled: bool) -> Any:
    words: dict[str, Any] = {"label": field["title"], "key": key, "help": field["description"], "disabled": disabled}
    options: dict[str, str] = field.get("offered") or {one: one for one in field.get("enum", ())}
    if options:
        return st.selectbox(
            options=list(options), index=list(options).index(value), format_func=options.__getitem__, **words
        )
    if field["type"] == "array":
        shown = "" if value is None else "x".join(map(str, value))
        return st.text_input(value=shown, placeholder="auto", **words).strip() or None
    if field["type"] == "integer":
        return st.number_input(min_value=field["minimum"], max_value=field["most"], value=value, **words)
    most = float(field.get("most", field.get("maximum", math.inf)))
    if slider:
        return st.slider(min_value=0.0, max_value=most, value=float(value), step=most / 50, **words)
    step = field["step"]
    least = field.get("least", field.get("minimum", step))
    digits = field.get("digits", max(2, math.ceil(-math.log10(step))))
    return st.number_input(
        min_value=float(least),
        max_value=most,
        value=value,
        step=step,
        format=f"%.{digits}f",
        placeholder="auto",
        **words,
    )


def _pretrained(preset: str, usual: TrainingSettings) -> bool:
    try:
        return usual.replace(init=st.session_state.get(f"{preset} init", usual.init)).pretrained
    except UsageError:  # an architecture that is unknown is named below, where nothing that was set is lost
        return False


def variations(preset: str, config: TrainingSettings, data: str) -> TrainingSettings:
    """The settings with the variations chosen here, shown on some image of the data set."""
    usual = config.augmentation
    fields = services.training.describe_fields(type(usual))
    augmentation = usual.replace(**_ask_all(preset, fields, usual, sliders=True))
    index = services.datasets.dataset(data)
    number = st.session_state.setdefault("varied image", 0) % len(index)
    source = services.datasets.source(index, number)
    try:
        pictures = services.training.varied(source, augmentation, _SHOWN)
    except SteelError as error:
        st.warning(plain(str(error)), icon=":material/broken_image:")
        pictures = []
    with st.grid(_SHOWN + 1, min_column_width=110):
        for i, picture in enumerate(pictures):
            words = "As it came" if i == 0 else f"As training may see it, {i}"
            st.image(picture, words, width="stretch", alt=f"{source.name}. {words}")
    st.button("Another image", on_click=_next, args=(len(index),), icon=":material/shuffle:")
    return config.replace(augmentation=augmentation)


def _next(images: int) -> None:
    st.session_state["varied image"] = (st.session_state["varied image"] + 1 + images // 7) % images
