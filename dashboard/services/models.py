"""The models that can be chosen."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.services import files
from steel_core.errors import CheckpointError, SteelError
from steel_core.inference.predictor import Predictor
from steel_core.metrics import beats_chance
from steel_core.models.checkpoint import CARD, Card, list_checkpoints, read_card
from steel_core.types import SteelImage

TARGETS = {"accuracy": 0.98, "macro_recall": 0.99, "auc": 0.99, "ece": 0.03}
"""What we ask of a model before its verdicts are used; an upper limit for `ece`, lower limits for the others."""


def available() -> dict[str, Path]:
    """Name and folder of every model that can be chosen, the shipped ones first."""
    return list_checkpoints()


def predictor(name: str) -> Predictor:
    """The model of that name, loaded once for all sessions; anew where its files have changed.

    Raises:
        CheckpointError: it is not there or damaged.
    """
    folder = available().get(name)
    return _predictor(name, files.stamp(folder / CARD) if folder else 0)


@st.cache_resource(max_entries=4, show_spinner="Loading the model")
def _predictor(name: str, stamp: int) -> Predictor:  # noqa: ARG001 - part of the key
    return Predictor.load(name)


def card(name: str) -> Card | None:
    """What is known of the model of that name, without loading it; None where its card is damaged."""
    folder = available()[name]
    return _card(folder, files.stamp(folder / CARD))


@st.cache_resource(max_entries=64, show_spinner=False)
def _card(folder: Path, stamp: int) -> Card | None:  # noqa: ARG001 - part of the key
    try:
        return read_card(folder)
    except CheckpointError:
        return None  # the page says so as soon as somebody chooses this model


def has_learnt(name: str) -> bool:
    """Whether the card does not tell that the model is no better than chance on its validation images."""
    known = card(name)
    try:
        return known is None or beats_chance(known.metrics["val"])
    except (KeyError, TypeError, AttributeError):  # a card of another make, which tells nothing of it
        return True


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Load the first model and let it work once, beside the first visit, so that the first verdict comes at once.

    The library of the confusion matrix is loaded there, too, which takes Evaluate a tenth of a second.
    """
    threading.Thread(target=_work_once, name="warm-up", daemon=True).start()


def _work_once() -> None:
    importlib.import_module("altair")
    for name, folder in list(available().items())[:1]:
        try:
            model = Predictor.load(folder)
        except SteelError:
            return  # the page says so as soon as somebody chooses this model
        grey = SteelImage(np.full((200, 200), 128, np.uint8), name, "")
        model.predict([grey])
        model.explain(grey, "grad-cam", model.classes[0])


def cannot_clear(model: Predictor) -> bool:
    """Whether the model can never call a sheet clear."""
    return not model.card.clears
