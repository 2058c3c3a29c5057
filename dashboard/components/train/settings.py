"""Everything about a training that a preset decides otherwise."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard import services
from steel_core.errors import UsageError


def advanced(preset: str, backbone: str) -> services.training.TrainConfig:
    """The preset's settings as they were changed here. Another preset has its own.

    Raises:
        UsageError: the settings exclude each other.
    """
    usual = services.training.PRESETS[preset].config

    def key(name: str) -> str:
        return f"{preset} {name}"

    with st.grid(3, min_column_width=220):
        epochs = st.number_input(
            "Epochs", 0, 1000, usual.epochs, key=key("epochs"), help="Passes over the images; 0: by their number."
        )
        batch = st.number_input("Images a step", 1, 512, usual.batch_size, key=key("batch"))
        open_rate = usual.learning_rate is None
        if_0 = f"; 0: {services.training.TUNING_RATE:g} from trained weights, else searched for" if open_rate else ""
        rate = st.number_input(
            "Learning rate", 0.0 if open_rate else 1e-5, 1.0, usual.learning_rate or 0.0, 1e-4, format="%.5f",
            key=key("rate"), help=f"The highest of the one-cycle schedule{if_0}.",
        )  # fmt: skip
        init = st.selectbox(
            "Weights to start from", ["", "random", "imagenet"], key=key("init"),
            format_func=lambda start: start or "usual for the architecture",
            help="ImageNet weights help with few images. They come with an installed package or are fetched, for some "
            "architectures; where they cannot be had, the run says so.",
        )  # fmt: skip
        try:
            pretrained = replace(usual, backbone=backbone, init=init).pretrained
        except UsageError:  # an architecture that is unknown is told below, where nothing that was set is lost
            pretrained = False
        freeze = st.number_input(
            "Epochs for the head alone", 0, 100, usual.freeze_epochs, key=key("freeze"), disabled=not pretrained,
            help="The trained features stay as they are so long.",
        )  # fmt: skip
        head = st.selectbox(
            "Head", ["softmax", "sigmoid"], ["softmax", "sigmoid"].index(usual.head), key=key("head"),
            help="Softmax: one class an image. Sigmoid: a probability for each class alone.",
        )  # fmt: skip
        losses = list(services.training.LOSSES)
        loss = st.selectbox("Loss", losses, losses.index(usual.loss), key=key("loss"))
        smoothing = st.number_input(
            "Label smoothing", 0.0, 0.5, usual.label_smoothing, 0.01, key=key("smoothing"),
            help="Share of the target spread over all classes.",
        )  # fmt: skip
        dropout = st.number_input("Dropout", 0.0, 0.9, usual.dropout, 0.05, key=key("dropout"))
        decay = st.number_input("Weight decay", 0.0, 1.0, usual.weight_decay, 0.005, format="%.3f", key=key("decay"))
        side = st.number_input(
            "Side in pixels", 0, 1024, 0, key=key("side"), help="Pictures are seen as squares of it; 0: as they are."
        )
        seed = st.number_input("Seed", 0, 10**6, usual.seed, key=key("seed"))
    balanced = st.toggle("Rare classes weigh as much as frequent ones", usual.balanced, key=key("balanced"))
    return replace(
        usual,
        backbone=backbone,
        epochs=epochs,
        batch_size=batch,
        learning_rate=rate or None,
        init=init,
        freeze_epochs=freeze if pretrained else 0,
        head=head,
        loss=loss,
        label_smoothing=smoothing,
        dropout=dropout,
        weight_decay=decay,
        input_size=(side, side) if side else usual.input_size,
        seed=seed,
        balanced=balanced,
    )
