"""Everything about a training that a preset decides otherwise: a widget for each setting, made from its definition."""

import math
from typing import Any

import streamlit as st

from dashboard import services
from steel_core.errors import UsageError

_GROUPS = {
    "Start": "What it starts from",
    "Course": "How long, how fast",
    "Loss": "What counts, and against learning by heart",
}


def advanced(preset: str, backbone: str) -> services.training.TrainingSettings:
    """The preset's settings as they were changed here. Another preset has its own.

    Raises:
        UsageError: the settings exclude each other.
    """
    usual = services.training.PRESETS[preset].config.replace(backbone=backbone)
    fields = services.training.describe_fields(services.training.TrainingSettings)
    chosen: dict[str, Any] = {}
    for group, heading in _GROUPS.items():
        st.caption(heading)
        members = {name: field for name, field in fields.items() if field.get("group") == group}
        chosen |= ask(preset, members, usual, disabled=() if _pretrained(preset, usual) else ("freeze_epochs",))
    if not _pretrained(preset, usual):
        chosen["freeze_epochs"] = 0
    config, most = usual.replace(**chosen), fields["input_size"]["most"]
    if config.input_size and max(config.input_size) > most:  # a step is timed in the server, which all visitors share
        raise UsageError(f"Pixels: expected at most {most}x{most}, got {'x'.join(map(str, config.input_size))}")
    return config


def ask(
    preset: str,
    fields: dict[str, dict[str, Any]],
    usual: services.training.Record,
    *,
    sliders: bool = False,
    disabled: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A widget for each setting, and the values chosen; what may be left to the program stays empty."""
    chosen = {}
    switches = {name: field for name, field in fields.items() if field.get("type") == "boolean"}
    with st.grid(3, min_column_width=220):
        for name, field in fields.items():
            if name not in switches:
                key, off = f"{preset} {name}", name in disabled
                chosen[name] = _ask(field, getattr(usual, name), key, slider=sliders, disabled=off)
    with st.container(horizontal=True):
        for name, field in switches.items():
            chosen[name] = st.toggle(
                field["title"], getattr(usual, name), key=f"{preset} {name}", help=field["description"]
            )
    return chosen


def _ask(field: dict[str, Any], value: Any, key: str, *, slider: bool, disabled: bool) -> Any:
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


def _pretrained(preset: str, usual: services.training.TrainingSettings) -> bool:
    try:
        return usual.replace(init=st.session_state.get(f"{preset} init", usual.init)).pretrained
    except UsageError:  # an architecture that is unknown is named below, where nothing that was set is lost
        return False
