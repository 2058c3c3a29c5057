"""How training varies images: set here, and seen on images of the data set before anything is trained."""

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.components.train.settings import ask
from steel_core.errors import SteelError

_SHOWN = 5


def variations(
    preset: str, config: services.training.TrainingSettings, data: str
) -> services.training.TrainingSettings:
    """The settings with the variations chosen here, shown on some image of the data set."""
    usual = config.augmentation
    chosen = ask(preset, services.training.describe_fields(type(usual)), usual, sliders=True)
    augmentation = usual.replace(**chosen)
    _preview(augmentation, data)
    return config.replace(augmentation=augmentation)


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
