"""Settings of training that suit most: `sound`, a quick look before it, and a thorough run after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from steel_core.data.augment import Augmentation
from steel_core.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings with a name.

    Attributes:
        title: name for people.
        costs: what it takes, and what it is good for.
        config: the settings; change single ones with `dataclasses.replace`.
    """

    title: str
    costs: str
    config: TrainConfig


_SOUND = TrainConfig(backbone="efficientnet-lite-reduced")  # learns most from few images, for its weights are trained
PRESETS = {
    "quick-look": Preset(
        "Quick look",
        "A quarter of the epochs and no search for the learning rate: shows whether the data can be learnt at all.",
        replace(_SOUND, effort=0.25, learning_rate=2e-3),  # so few steps get farther at a high rate, trained or not
    ),
    "sound": Preset(
        "Sound",
        "10 epochs from trained weights; 25 from random ones, with a search for the learning rate; more where images "
        "are few: what to start with.",
        _SOUND,
    ),
    "thorough": Preset(
        "Thorough",
        "Three times the epochs of a sound run, with blur and cut-out besides: for the model that is to be used.",
        replace(_SOUND, effort=3.0, patience=20, augmentation=Augmentation(blur=0.5, cut_out=0.25)),
    ),
}
