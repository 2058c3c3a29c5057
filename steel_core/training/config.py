"""Settings of one training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from steel_core.data.augment import Augmentation
from steel_core.errors import UsageError
from steel_core.models.base import BACKBONES
from steel_core.training.losses import LOSSES

_EPOCHS, _STEPS = 25, 800


_TUNING_EPOCHS, _TUNING_STEPS = 10, 320  # from trained weights


TUNING_RATE = 1e-3  # trained weights are kept by a rate that is low, not by one that is as high as the loss allows


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one training run.

    Attributes:
        backbone: name in the registry of backbones.
        head: "softmax" (one class an image) or "sigmoid" (a probability for each class alone).
        epochs: passes over the training images at the most; if 0, 25, or more where the images are few, so that there
            are at least 800 steps; from trained weights 10, and at least 320 steps; all that times `effort`.
        effort: factor on the number of epochs, where that is not given.
        freeze_epochs: of those, passes in which only the new head learns while trained features stay as they are, their
            batch normalisation included.
        loss: a name in `steel_core.training.losses.LOSSES`; with a sigmoid head it is binary, class by class.
        balanced: whether rare classes weigh as much as frequent ones.
        patience: epochs without a better validation loss before it stops; counted after the first half.
        batch_size: images a step.
        learning_rate: highest rate of the one-cycle schedule; if None, searched for, or 1e-3 from trained weights.
            There the new head learns at four times the rate.
        weight_decay: of AdamW.
        dropout: before the head.
        label_smoothing: share of the target spread over all classes.
        average: weights are averaged over about this many steps, a fifth of all at most; the average is validated and
            kept.
        init: "random", "imagenet", or a file with weights of the same architecture; if empty, from ImageNet weights
            where a package brings those of the backbone, else from random ones.
        batch_norm: normalise while training from random weights, and fold it into the weights afterwards.
        input_size: height and width; the median of a sample of training images, at most 256 on the shorter side, if
            None.
        augmentation: how images are varied.
        half: compute in bfloat16 where the hardware has it; weights stay float32.
        seed: of everything drawn at random.
    """

    backbone: str = "squeezenet-reduced"
    head: str = "softmax"
    epochs: int = 0
    effort: float = 1.0
    freeze_epochs: int = 0
    loss: str = "cross-entropy"
    balanced: bool = True
    patience: int = 10
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.02
    dropout: float = 0.2
    label_smoothing: float = 0.05
    average: int = 60
    init: str = ""
    batch_norm: bool = True
    input_size: tuple[int, int] | None = None
    augmentation: Augmentation = Augmentation()
    half: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.head not in ("softmax", "sigmoid"):
            raise UsageError(f"head: expected softmax or sigmoid, got {self.head!r}")
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        if not self.effort > 0:
            raise UsageError(f"effort: expected a positive number, got {self.effort}")
        if self.freeze_epochs < 0 or (self.freeze_epochs and not self.pretrained):
            raise UsageError("freeze epochs: expected 0 or more, and 0 from random weights: there is nothing to keep")
        if self.epochs < 0 or self.batch_size < 1:
            raise UsageError(f"expected 0 or more epochs and 1 image a batch, got {self.epochs} and {self.batch_size}")
        if self.seed < 0:
            raise UsageError(f"seed: expected 0 or more, got {self.seed}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError(f"learning rate: expected a positive number, got {self.learning_rate}")

    def for_images(self, n: int) -> TrainConfig:
        """The same settings with the number of epochs that suits `n` training images, unless it was given."""
        epochs, steps = (_TUNING_EPOCHS, _TUNING_STEPS) if self.pretrained else (_EPOCHS, _STEPS)
        of = math.ceil(n / self.batch_size)
        return self if self.epochs else replace(self, epochs=math.ceil(self.effort * max(epochs, steps / of)))

    @property
    def start(self) -> str:
        """What training starts from: "random", "imagenet" or a file.

        Raises:
            UsageError: the backbone is unknown.
        """
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
        return asdict(self) | {"init": self.start}
