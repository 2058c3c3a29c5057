"""Settings of the cure."""

from typing import ClassVar

from pydantic import Field

from steel_core.audit.settings import Seed
from steel_core.data.augmentation import Augmentation
from steel_core.records import Record


class CureSettings(Record):
    """How a shortcut is cured."""

    published: ClassVar[str] = "cure-settings"

    epochs: int = Field(12, ge=1, description="Passes over the training images.")
    rate: float = Field(1e-3, gt=0, description="Highest learning rate of the one-cycle schedule.")
    pasted: float = Field(
        0.5, gt=0, le=1, description="Chance of a stain on an image of the class that carries them most often."
    )
    painted: float = Field(
        0.3, ge=0, le=1, description="Chance that the stains of an image, or else some steel, are painted over."
    )
    penalty: float = Field(
        0.0, ge=0, description="Weight of the loss on evidence in the artefact: it doubles the time."
    )
    augmentation: Augmentation = Field(
        Augmentation(), description="How images are varied besides.", json_schema_extra={"flag": "--augment"}
    )
    seed: Seed = 0
