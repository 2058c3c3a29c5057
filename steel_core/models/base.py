"""What every classifier offers to training, prediction and explanation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import override

from steel_core.errors import CheckpointError
from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Facts about an architecture that hold before any training.

    Attributes:
        title: name for people.
        source: paper and year.
        cam_layer: dotted name of the last convolutional stage, which Grad-CAM reads unless told otherwise.
        min_size: smallest height and width in pixels that the network accepts.
        linear_head: whether the logits are a linear function of the global average of what `features` gives.
        batch_norm: whether the architecture holds batch normalisation of its own.
        weights_package: Python package among the requirements that brings ImageNet weights; "" if they must be fetched.
        hook_free: whether `features` and `classify`, called one after the other, are the whole network, and nothing but
            a ReLU reads what that ReLU is given, so that the engine of `steel_core.explain` may serve it; other
            networks are explained by captum and shap.
    """

    title: str
    source: str
    cam_layer: str
    min_size: int
    linear_head: bool
    batch_norm: bool = False
    weights_package: str = ""
    hook_free: bool = True


class Classifier(nn.Module, ABC):
    """A network from normalised images to logits: `features`, then `classify`.

    Every activation is a module of its own, used once and not in place, so that guided backpropagation can be taken.
    """

    config: ClassVar[BackboneConfig]
    features: nn.Sequential
    """All that comes before the head, stage by stage."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits (N, K) of what `features` gives (N, F, h, w).

        N images, F feature channels, h rows and w columns of the last grid, K classes.
        """

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, 3, H, W).

        N images, H rows, W columns, K classes.
        """
        return self.classify(self.features(inputs))

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output Grad-CAM weighs."""
        return self.get_submodule(self.config.cam_layer)

    @classmethod
    def pretrained(cls) -> Path:
        """The file with ImageNet weights, which `translated` brings under the names of this class.

        Raises:
            CheckpointError: none are known, or they cannot be had from here.
        """
        raise CheckpointError(f"{cls.config.title}: no ImageNet weights are known; start from random ones or a file")

    @classmethod
    def has_pretrained(cls) -> bool:
        """Whether ImageNet weights are known, be it that they must be fetched."""
        return any("pretrained" in vars(kind) for kind in cls.__mro__[: cls.__mro__.index(Classifier)])

    @classmethod
    def translated(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dictionary of the original implementation under the names of this class; others are left as is."""
        return dict(state)


class ConvolutionalHead(Classifier):
    """A classifier that ends with dropout, a 1x1 convolution to the classes, and a global average.

    No ReLU stands behind the convolution, so a logit can be negative and Grad-CAM can be signed.

    Args:
        features: all that comes before the head.
        width: channels that `features` gives.
        classes: number of classes K.
        dropout: share of the last features dropped while training.
    """

    def __init__(self, features: nn.Sequential, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, classes, kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @override
    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features)).mean(dim=(2, 3))


BACKBONES: Registry[type[Classifier]] = Registry("backbone", "steel_core.models.backbones")
