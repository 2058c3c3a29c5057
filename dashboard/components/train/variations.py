"""How training varies images: set here, and seen on images of the data set before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from steel_core.errors import SteelError

_SHOWN = 5
_DIALS = {  # name: words, largest, help
    "degrees": ("Turned by up to, degrees", 45.0, ""),
    "scale": ("Zoomed by up to", 0.5, "Share of the size."),
    "shift": ("Moved by up to", 0.5, "Share of the side."),
    "brightness": ("Brightness", 2.0, "In standard deviations of the images' grey."),
    "contrast": ("Contrast", 1.5, "Power of e: 0.3 is 0.74 to 1.35 times."),
    "noise": ("Noise", 1.0, "In standard deviations of the images' grey."),
    "blur": ("Blur", 1.0, "Share that a blurred copy replaces."),
    "cut_out": ("Cut out", 0.9, "Sides of a grey rectangle; a covered defect leaves a wrong label."),
    "patches": ("Patches around rare defects", 1.0, "How often; needs boxes or masks."),
}


def variations(preset: str, config: services.training.TrainConfig, data: str) -> services.training.TrainConfig:
    """The settings with the variations chosen here, shown on some image of the data set."""
    usual = config.augmentation

    def key(name: str) -> str:
        return f"{preset} {name}"

    chosen: dict[str, Any] = {}
    with st.grid(3, min_column_width=220):
        for name, (words, most, meaning) in _DIALS.items():
            chosen[name] = st.slider(
                words, 0.0, most, float(getattr(usual, name)), most / 50, key=key(name), help=meaning or None
            )
    with st.container(horizontal=True):
        for name, words in (("flip", "Mirrored"), ("turn", "Turned by 90°, if square")):
            chosen[name] = st.toggle(words, getattr(usual, name), key=key(name))
    augmentation = replace(usual, **chosen)
    _preview(augmentation, data)
    return replace(config, augmentation=augmentation)


def _preview(augmentation: services.training.Augmentation, data: str) -> None:
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


def _next(images: int) -> None:
    st.session_state["varied image"] = (st.session_state["varied image"] + 1 + images // 7) % images
