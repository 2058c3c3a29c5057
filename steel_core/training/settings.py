"""Settings of one training run: the one definition that flags, files, forms and cards are made from; and presets.

Quick to import: the command line makes its flags of them before it loads torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from steel_core.data.augmentation import Augmentation
from steel_core.records import AutoNumber, AutoSize, Count, Flag, Number, Record, Share

Head = Literal["softmax", "sigmoid"]
Loss = Literal["cross-entropy", "focal"]

# The text of `learning_rate` says it, too.
TUNING_RATE = 1e-3  # trained weights are kept by a rate that is low, not by one that is as high as the loss allows

_EPOCHS, _STEPS = 25, 800
_TUNING_EPOCHS, _TUNING_STEPS = 10, 320  # from trained weights


def _setting(
    default: Any, group: str, title: str | None = None, *, form: dict[str, Any] | None = None, **more: Any
) -> Any:
    """A field in a group of a form, which offers up to `most`, in every `step`, where values beyond make no sense."""
    return Field(default, title=title, json_schema_extra={"group": group} | (form or {}), **more)


def _join_lines(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():  # an installation without sources has no descriptions
        field["description"] = " ".join(field.get("description", "").split())


class TrainingSettings(Record):
    """Settings of one training run.

    Sources: one-cycle schedule, Smith and Topin, arXiv:1708.07120; label smoothing, Szegedy et al., CVPR 2016.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_join_lines)

    published: ClassVar[str] = "training-settings"

    backbone: str = Field("squeezenet-reduced", title="Architecture")
    """Network: a registered name, or torchvision:NAME for any classifier of torchvision."""
    head: Head = _setting("softmax", "Loss")
    """Softmax: one class an image. Sigmoid: a probability for each class alone, where an image can hold several defect
    types."""
    epochs: Count = _setting(0, "Course", form={"most": 1000})
    """Passes over the training images at the most; 0: by their number, times the effort."""
    effort: Number = _setting(1.0, "Course", gt=0, form={"most": 10.0, "step": 0.25})
    """Factor on the number of epochs, where that is not given."""
    freeze_epochs: Count = _setting(0, "Start", "Epochs for the head alone", form={"most": 100})
    """Of the epochs, those in which the trained features stay as they are; only from trained weights."""
    loss: Loss = _setting("cross-entropy", "Loss")
    """Focal loss counts images less that are named rightly already; with a sigmoid head, by class."""
    balanced: Flag = _setting(True, "Loss", "Rare classes weigh as much as frequent ones")
    """Rare classes weigh as much as frequent ones."""
    patience: Count = _setting(10, "Course", form={"most": 1000})
    """Epochs without a better validation loss before it stops; counted after the first half."""
    batch_size: Annotated[int, Strict()] = _setting(32, "Course", "Images a step", ge=1, form={"most": 512})
    """Images a step."""
    learning_rate: AutoNumber = _setting(
        None, "Course", "Learning rate", gt=0, form={"most": 1.0, "step": 1e-4, "least": 1e-5, "digits": 5}
    )
    """Highest rate of the one-cycle schedule, four times that for the head of trained weights; auto: 0.001 from trained
    weights, else searched for."""
    weight_decay: Number = _setting(0.02, "Loss", "Weight decay", ge=0, form={"most": 1.0, "step": 0.005})
    """Of AdamW."""
    dropout: Number = _setting(0.2, "Loss", ge=0, lt=1, form={"most": 0.9, "step": 0.05})
    """Share of the features left out before the head."""
    label_smoothing: Share = _setting(0.05, "Loss", "Label smoothing", form={"most": 0.5, "step": 0.01})
    """Share of the target spread over all classes."""
    average: Count = _setting(60, "Course", "Steps averaged over", form={"most": 10_000})
    """The weights that are validated and kept are averages over about so many steps, a fifth of all at most."""
    init: str = _setting(
        "", "Start", "Weights to start from",
        form={"offered": {"": "usual for the architecture", "random": "random", "imagenet": "imagenet"}},
    )  # fmt: skip
    """random, imagenet, or a file with weights of the same architecture; unless given, ImageNet weights where a package
    brings those of the architecture, else random ones."""
    batch_norm: Flag = _setting(True, "Start", "Batch normalisation, from random weights")
    """Normalise batches while training from random weights, and fold that into the weights afterwards."""
    input_size: AutoSize = _setting(None, "Start", "Pixels", form={"metavar": "HEIGHTxWIDTH", "most": 1024})
    """HEIGHTxWIDTH at which images are seen; auto: the median of a sample of training images, at most 256 on the
    shorter side."""
    augmentation: Augmentation = Field(
        Augmentation(), title="How images are varied", json_schema_extra={"flag": "--augment"}
    )
    """How images are varied."""
    half: Flag = _setting(True, "Course", "Half precision, where the hardware has it")
    """Compute in bfloat16 where the hardware has it; weights stay float32."""
    seed: Count = _setting(0, "Start", form={"most": 10**6})
    """Seed of everything drawn at random."""

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if self.freeze_epochs and not self.pretrained:
            raise ValueError("freeze epochs: expected 0 from random weights: there is nothing to keep")
        return self

    def for_images(self, n: int) -> TrainingSettings:
        """The same settings with the number of epochs that suits `n` training images, unless it was given."""
        epochs, steps = (_TUNING_EPOCHS, _TUNING_STEPS) if self.pretrained else (_EPOCHS, _STEPS)
        of = math.ceil(n / self.batch_size)
        return self if self.epochs else self.replace(epochs=math.ceil(self.effort * max(epochs, steps / of)))

    @property
    def start(self) -> str:
        """What training starts from: "random", "imagenet" or a file."""
        from steel_core.models.base import BACKBONES  # noqa: PLC0415 - it loads torch

        return self.init or ("imagenet" if BACKBONES[self.backbone].config.weights_package else "random")

    @property
    def pretrained(self) -> bool:
        return self.start != "random"

    @property
    def normalised(self) -> bool:
        """Whether batch normalisation is put into the network; into trained weights it would not fit."""
        return self.batch_norm and not self.pretrained

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write; it says what training starts from."""
        return super().to_json() | {"init": self.start}


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings with a name for people, and what they cost and are good for."""

    title: str
    costs: str
    config: TrainingSettings


# It learns most from few images, for its weights are trained.
_SOUND = TrainingSettings(backbone="efficientnet-lite-reduced")
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
