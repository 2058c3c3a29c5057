"""The models that can be chosen."""

import importlib
import threading

import numpy as np
import streamlit as st

from dashboard.services import files
from dashboard.services.cache import cached_resource
from steel_core.errors import CheckpointError, SteelError
from steel_core.inference.predictor import Predictor
from steel_core.metrics import beats_chance
from steel_core.models.card import Card, CureSummary, QualityEstimate, QualityTable
from steel_core.models.checkpoint import CARD, read_card
from steel_core.models.checkpoint import list_checkpoints as available
from steel_core.types import SteelImage

__all__ = ["Card", "CureSummary", "QualityEstimate", "QualityTable"]

TARGETS = {"accuracy": 0.98, "macro_recall": 0.99, "auc": 0.99, "ece": 0.03}
"""What we ask of a model before its verdicts are used; an upper limit for `ece`, lower limits for the others."""


def _last_change(name: str) -> tuple[str, str, int]:
    folder = available().get(name)
    return name, str(folder), files.stamp(folder / CARD) if folder else 0


@cached_resource(_last_change, max_entries=4, spinner="Loading the model")
def predictor(name: str) -> Predictor:
    """The model of that name, loaded once for all sessions; anew where its files have changed.

    Raises:
        CheckpointError: it is not there or damaged.
    """
    return Predictor.load(name)


@cached_resource(_last_change, max_entries=64)
def card(name: str) -> Card | None:
    """What is known of the model of that name, without loading it; None where its card is damaged."""
    try:
        return read_card(available()[name])
    except CheckpointError:
        return None  # the page says so as soon as somebody chooses this model


def has_learnt(name: str) -> bool:
    """Whether the card does not tell that the model is no better than chance on its validation images."""
    own = card(name)
    try:
        return own is None or beats_chance(own.metrics["val"])
    except (KeyError, TypeError, AttributeError):  # a card of another make, which tells nothing of it
        return True


def cured_from(model: Predictor) -> list[str]:
    """Names of the models that were made by curing this one."""
    cures = {name: own.training.cure for name in available() if (own := card(name)) and own.training.cure}
    return [name for name, cure in cures.items() if cure.of_hash == model.hash or cure.of == model.card.name]


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Load the first model, and the confusion matrix's library, beside the first visit: answers then come at once."""
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
