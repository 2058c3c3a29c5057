"""Training beside the dashboard, in processes of its own: what can be asked, how it stands, and what it leaves."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.services import datasets, files, models
from steel_core.data.augment import Augmentation, preview
from steel_core.errors import UsageError
from steel_core.jobs import queue
from steel_core.models.base import BACKBONES
from steel_core.render import plots
from steel_core.training.config import TUNING_RATE, TrainConfig
from steel_core.training.duration import images_to_train, seconds_to_train
from steel_core.training.losses import LOSSES
from steel_core.training.presets import PRESETS

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["LOSSES", "PRESETS", "TUNING_RATE", "Augmentation", "TrainConfig"]

Run = queue.Run

_FLAGS = ("head", "loss", "balanced", "label_smoothing", "epochs", "freeze_epochs", "batch_size",
          "learning_rate", "weight_decay", "dropout", "input_size", "seed")  # fmt: skip
"""Settings that the command line takes one by one, and a preset may change in a later version."""

_SHOWN = 30  # runs


def backbones() -> dict[str, str]:
    """Name and title of every architecture that can be trained."""
    return {name: BACKBONES[name].config.title for name in BACKBONES}


def destination() -> Path:
    """The folder that new models go to: the one of the user's own models, which every chooser reads."""
    return Path(os.environ.get("STEEL_MODELS") or "runs").absolute()


def command(preset: str, config: TrainConfig, name: str, data: Path, binary: bool = False) -> list[str]:
    """The arguments of `python -m steel_core` that train with these settings."""
    usual = PRESETS[preset].config
    words = ["train", "--data", str(data), "--out", str(destination() / name), "--preset", preset]
    words += ["--backbone", config.backbone, "--init", config.start, *(["--binary"] if binary else [])]
    for setting in _FLAGS:
        value, flag = getattr(config, setting), f"--{setting.replace('_', '-')}"
        if value == getattr(usual, setting):
            continue
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [flag, "x".join(map(str, value))]
        elif value is not None:
            words += [flag, str(value)]
    for field in fields(Augmentation):
        value = getattr(config.augmentation, field.name)
        if value != getattr(usual.augmentation, field.name):
            words += ["--augment", f"{field.name}={float(value):g}"]
    return words


def start(preset: str, config: TrainConfig, name: str, data: str, binary: bool = False) -> str:
    """Put a training at the end of the queue; the name of the run.

    Raises:
        UsageError: the model's name is taken or cannot be one, or the folder of models cannot be written to.
        DataError: the data set is not here.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", name):
        raise UsageError(f"name: expected small letters, digits and hyphens, as in my-model-2; got {name!r}")
    waiting = {run.about.get("model") for run in history() if run.status != "done"}
    if name in models.available() or name in waiting:
        raise UsageError(f"there is a model or a run of the name {name} already; choose another one")
    datasets.dataset(data)  # what cannot be read is refused now
    place = destination()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{place.name}: the folder of models cannot be made ({error.strerror})") from error
    if not os.access(place, os.W_OK):
        raise UsageError(f"{place.name}: the folder of models cannot be written to")
    words = command(preset, config, name, datasets.available()[data], binary)
    about = {"model": name, "data": data, "preset": preset, "backbone": config.backbone}
    return queue.Runs().submit(words, about)


def run(name: str) -> Run | None:
    """The run of that name, which may come from a link; None if there is none."""
    return queue.Runs().get(name)


def architecture(found: Run) -> str:
    """Title of the architecture that a run trains."""
    name = str(found.about.get("backbone", ""))
    return backbones().get(name, name)


def history() -> list[Run]:
    """The latest runs, the newest first."""
    return queue.Runs().history(_SHOWN)


def wake() -> None:
    """See that somebody works where a run waits."""
    queue.Runs().wake()


def stop(name: str) -> None:
    """Let a run end after its epoch, or take it out of the queue."""
    queue.Runs().stop(name)


def resume(name: str) -> None:
    """Let a run go on where it was."""
    queue.Runs().resume(name)


def expected_seconds(data: str, config: TrainConfig, binary: bool = False) -> float:
    """How long all epochs of a training will take, from one step that is timed here.

    Raises:
        DataError: the data set cannot be trained on.
        UsageError: the architecture is unknown, or cannot see images of this size.
    """
    folder = datasets.available()[data]
    # What takes no part in the time is left out, so that a slider for it times nothing anew.
    usual = TrainConfig()
    told = replace(config, dropout=usual.dropout, weight_decay=usual.weight_decay, seed=usual.seed, init=config.start,
                   label_smoothing=usual.label_smoothing, augmentation=usual.augmentation)  # fmt: skip
    return _expected(folder, files.stamp(folder), told, binary)


def expected_epochs(data: str, config: TrainConfig) -> int:
    """How many epochs a training takes at the most."""
    return config.for_images(images_to_train(datasets.dataset(data))).epochs


@st.cache_data(max_entries=32, show_spinner="Timing one step of training")
def _expected(folder: Path, stamp: int, config: TrainConfig, binary: bool) -> float:
    index = datasets.opened(folder, stamp)
    return seconds_to_train(index.binary() if binary else index, config)


def varied(source: datasets.Source, augmentation: Augmentation, count: int = 5) -> list[bytes]:
    """What training would make of an image, as JPEGs; the first one is the image itself.

    Raises:
        ImageError: the image is refused.
    """
    plain = Augmentation(flip=False, turn=False).scaled(0.0)
    image = source.read()
    return [
        files.jpeg(picture) for picture in (*preview(image, plain, count=1), *preview(image, augmentation, count=count))
    ]


def curves(found: Run) -> dict[str, go.Figure]:
    """The plots of a run by heading, as far as it has come."""
    drawn = {}
    if found.state.history:
        drawn["Loss and recall"] = plots.training_curves(found.state.history)
    rate = found.state.learning_rate
    if rate.get("curves"):
        drawn["Search for the learning rate"] = plots.learning_rate_curve(rate["curves"], rate["learning_rate"])
    return drawn


def example_picture(found: Run, number: int) -> bytes | None:
    """A validation image that a run shows its progress on; None where it is not there."""
    names = [example["picture"] for example in found.state.start.get("examples", [])]
    try:
        return (found.folder / Path(names[number]).name).read_bytes()
    except (OSError, IndexError):
        return None
