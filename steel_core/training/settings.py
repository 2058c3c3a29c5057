"""Settings of one training run: the one definition that flags, files, forms and cards are made from.

Quick to import: the command line makes its flags of them before it loads torch.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from steel_core.data.augmentation import Augmentation
from steel_core.records import AutoNumber, AutoSize, Count, Flag, Number, Record

Head = Literal["softmax", "sigmoid"]
Loss = Literal["cross-entropy", "focal"]

TUNING_RATE = 1e-3  # trained weights are kept by a rate that is low, not by one that is as high as the loss allows

_EPOCHS, _STEPS = 25, 800
_TUNING_EPOCHS, _TUNING_STEPS = 10, 320  # from trained weights


def _form(group: str, **more: Any) -> dict[str, Any]:
    """Where a form shows a setting; `most` is what it offers, `step` how finely, where values beyond make no sense."""
    return {"group": group, **more}


class TrainingSettings(Record):
    """Settings of one training run.

    Sources: one-cycle schedule, Smith and Topin, arXiv:1708.07120; label smoothing, Szegedy et al., CVPR 2016.
    """

    published: ClassVar[str] = "training-settings"

    backbone: str = Field(
        "squeezenet-reduced",
        title="Architecture",
        description="Network: a registered name, or torchvision:NAME for any classifier of torchvision.",
    )
    head: Head = Field(
        "softmax",
        title="Head",
        description="Softmax: one class an image. Sigmoid: a probability for each class alone, where an image can hold "
        "several defect types.",
        json_schema_extra=_form("Loss"),
    )
    epochs: Count = Field(
        0,
        title="Epochs",
        description="Passes over the training images at the most; 0: by their number, times the effort.",
        json_schema_extra=_form("Course", most=1000),
    )
    effort: Number = Field(
        1.0,
        gt=0,
        title="Effort",
        description="Factor on the number of epochs, where that is not given.",
        json_schema_extra=_form("Course", most=10.0, step=0.25),
    )
    freeze_epochs: Count = Field(
        0,
        title="Epochs for the head alone",
        description="Of the epochs, those in which the trained features stay as they are; only from trained weights.",
        json_schema_extra=_form("Start", most=100),
    )
    loss: Loss = Field(
        "cross-entropy",
        title="Loss",
        description="Focal loss counts images less that are named rightly already; with a sigmoid head, by class.",
        json_schema_extra=_form("Loss"),
    )
    balanced: Flag = Field(
        True,
        title="Rare classes weigh as much as frequent ones",
        description="Rare classes weigh as much as frequent ones.",
        json_schema_extra=_form("Loss"),
    )
    patience: Count = Field(
        10,
        title="Patience",
        description="Epochs without a better validation loss before it stops; counted after the first half.",
        json_schema_extra=_form("Course", most=1000),
    )
    batch_size: Annotated[int, Strict()] = Field(
        32, ge=1, title="Images a step", description="Images a step.", json_schema_extra=_form("Course", most=512)
    )
    learning_rate: AutoNumber = Field(
        None,
        gt=0,
        title="Learning rate",
        description="Highest rate of the one-cycle schedule, four times that for the head of trained weights; auto: "
        f"{TUNING_RATE:g} from trained weights, else searched for.",
        json_schema_extra=_form("Course", most=1.0, step=1e-4, least=1e-5, digits=5),
    )
    weight_decay: Number = Field(
        0.02, ge=0, title="Weight decay", description="Of AdamW.", json_schema_extra=_form("Loss", most=1.0, step=0.005)
    )
    dropout: Number = Field(
        0.2,
        ge=0,
        lt=1,
        title="Dropout",
        description="Share of the features left out before the head.",
        json_schema_extra=_form("Loss", most=0.9, step=0.05),
    )
    label_smoothing: Number = Field(
        0.05,
        ge=0,
        le=1,
        title="Label smoothing",
        description="Share of the target spread over all classes.",
        json_schema_extra=_form("Loss", most=0.5, step=0.01),
    )
    average: Count = Field(
        60,
        title="Steps averaged over",
        description="The weights that are validated and kept are averages over about so many steps, a fifth of all at "
        "most.",
        json_schema_extra=_form("Course", most=10_000),
    )
    init: str = Field(
        "",
        title="Weights to start from",
        description="random, imagenet, or a file with weights of the same architecture; unless given, ImageNet weights "
        "where a package brings those of the architecture, else random ones.",
        json_schema_extra=_form("Start", offered={"": "usual for the architecture", "random": "random",
                                                  "imagenet": "imagenet"}),
    )  # fmt: skip
    batch_norm: Flag = Field(
        True,
        title="Batch normalisation, from random weights",
        description="Normalise batches while training from random weights, and fold that into the weights afterwards.",
        json_schema_extra=_form("Start"),
    )
    input_size: AutoSize = Field(
        None,
        title="Pixels",
        description="HEIGHTxWIDTH at which images are seen; auto: the median of a sample of training images, at most "
        "256 on the shorter side.",
        json_schema_extra=_form("Start", metavar="HEIGHTxWIDTH", most=1024),
    )
    augmentation: Augmentation = Field(
        Augmentation(),
        title="How images are varied",
        description="How images are varied.",
        json_schema_extra={"flag": "--augment"},
    )
    half: Flag = Field(
        True,
        title="Half precision, where the hardware has it",
        description="Compute in bfloat16 where the hardware has it; weights stay float32.",
        json_schema_extra=_form("Course"),
    )
    seed: Count = Field(
        0, title="Seed", description="Seed of everything drawn at random.", json_schema_extra=_form("Start", most=10**6)
    )

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
        """What training starts from: "random", "imagenet" or a file.

        Raises:
            UsageError: the backbone is unknown.
        """
        from steel_core.models.base import BACKBONES  # noqa: PLC0415 - it loads torch

        return self.init or ("imagenet" if BACKBONES[self.backbone].config.weights_package else "random")

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that were trained before."""
        return self.start != "random"

    @property
    def normalised(self) -> bool:
        """Whether batch normalisation is put into the network; into trained weights it would not fit."""
        return self.batch_norm and not self.pretrained

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write; it says what training starts from."""
        return super().to_json() | {"init": self.start}
