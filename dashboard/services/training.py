"""Training beside the dashboard, in processes of its own: what can be asked, how it stands, and what it leaves."""

import os
import re
from pathlib import Path

from dashboard.services import datasets, files, models
from dashboard.services.cache import cached_data
from steel_core.data.augment import preview_augmentation
from steel_core.data.augmentation import Augmentation
from steel_core.errors import UsageError
from steel_core.jobs.queue import RunQueue
from steel_core.jobs.queue import TrainingRun as Run
from steel_core.models.base import BACKBONES
from steel_core.records import Record, describe_fields, to_toml
from steel_core.render import evaluation_plots
from steel_core.render.plots import Figure
from steel_core.training.prepare import images_to_train, seconds_to_train
from steel_core.training.settings import PRESETS, TrainingSettings

__all__ = ["PRESETS", "Augmentation", "Record", "TrainingSettings", "describe_fields"]

_SHOWN = 30  # runs


def backbones() -> dict[str, str]:
    return {name: BACKBONES[name].config.title for name in BACKBONES}


def start(preset: str, config: TrainingSettings, name: str, data: str, binary: bool = False) -> str:
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
    place = Path(os.environ.get("STEEL_MODELS") or "runs").absolute()  # the user's own, which every chooser reads
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{place.name}: the folder of models cannot be made ({error.strerror})") from error
    if not os.access(place, os.W_OK):
        raise UsageError(f"{place.name}: the folder of models cannot be written to")
    command = ["train", "--data", str(datasets.available()[data]), "--out", str(place / name)]
    about = {"model": name, "data": data, "preset": preset, "backbone": config.backbone}
    settings = to_toml(config.replace(init=config.start))  # a package that is installed meanwhile changes nothing
    return RunQueue().submit([*command, *(["--binary"] if binary else [])], about, settings)


def architecture(run: Run) -> str:
    name = str(run.about.get("backbone", ""))
    return backbones().get(name, name)


def history() -> list[Run]:
    """The latest runs, the newest first."""
    return RunQueue().history(_SHOWN)


def _timed(data: str, config: TrainingSettings, binary: bool) -> object:
    """What takes no part in the time is left out, so that a slider for it times nothing anew."""
    folder = datasets.available()[data]
    free = {"dropout", "weight_decay", "seed", "label_smoothing", "augmentation"}
    return folder, files.stamp(folder), config.replace(init=config.start).model_dump_json(exclude=free), binary


@cached_data(_timed, max_entries=32, spinner="Timing one step of training")
def expected_seconds(data: str, config: TrainingSettings, binary: bool = False) -> float:
    """How long all epochs of a training will take, from one step that is timed here.

    Raises:
        DataError: the data set cannot be trained on.
        UsageError: the architecture is unknown, or cannot see images of this size.
    """
    index = datasets.dataset(data)
    return seconds_to_train(index.binary() if binary else index, config)


def expected_epochs(data: str, config: TrainingSettings) -> int:
    return config.for_images(images_to_train(datasets.dataset(data))).epochs


def varied(source: datasets.Source, augmentation: Augmentation, count: int = 5) -> list[bytes]:
    """What training would make of an image, as JPEGs; the first one is the image itself."""
    plain = Augmentation(flip=False, turn=False).scaled(0.0)
    image = source.read()
    return [
        files.jpeg(picture)
        for picture in (
            *preview_augmentation(image, plain, count=1),
            *preview_augmentation(image, augmentation, count=count),
        )
    ]


def curves(run: Run) -> dict[str, Figure]:
    """The plots of a run by heading, as far as it has come."""
    drawn = {}
    if run.state.history:
        drawn["Loss and recall"] = evaluation_plots.training_curves(run.state.history)
    rate = run.state.learning_rate
    if rate.get("curves"):
        curve = evaluation_plots.learning_rate_curve(rate["curves"], rate["learning_rate"])
        drawn["Search for the learning rate"] = curve
    return drawn


def example_picture(run: Run, number: int) -> bytes | None:
    """A validation image that a run shows its progress on; None where it is not there."""
    names = [example["picture"] for example in run.state.start.get("examples", [])]
    try:
        return (run.folder / Path(names[number]).name).read_bytes()
    except (OSError, IndexError):
        return None
