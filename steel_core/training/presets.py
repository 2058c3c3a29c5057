"""Settings of training that suit most: `sound`, a quick look before it, and a thorough run after it."""

from dataclasses import dataclass

from steel_core.data.augmentation import Augmentation
from steel_core.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings with a name for people, and what they cost and are good for."""

    title: str
    costs: str
    config: TrainingSettings


_SOUND = TrainingSettings(
    backbone="efficientnet-lite-reduced"
)  # learns most from few images, for its weights are trained
PRESETS = {
    "quick-look": Preset(
        "Quick look",
        "A quarter of the epochs and no search for the learning rate: shows whether the data can be learnt at all.",
        _SOUND.replace(effort=0.25, learning_rate=2e-3),  # so few steps get farther at a high rate, trained or not
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
        _SOUND.replace(effort=3.0, patience=20, augmentation=Augmentation(blur=0.5, cut_out=0.25)),
    ),
}
