"""What every classifier offers to training, prediction and explanation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Facts about an architecture that hold before any training.

    Attributes:
        title: name for people.
        source: paper and year.
        cam_layer: dotted name of the last convolutional stage, which Grad-CAM reads.
        min_size: smallest height and width in pixels that the network accepts.
        linear_head: whether the logits are a global average of a 1x1 convolution of `cam_layer`'s output.
    """

    title: str
    source: str
    cam_layer: str
    min_size: int
    linear_head: bool


class Classifier(nn.Module, ABC):
    """A network from normalised images to logits.

    Every activation is a module of its own, used once and not in place, so that guided backpropagation can be taken.
    """

    config: ClassVar[BackboneConfig]
    features: nn.Sequential
    """All that comes before the head."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, 3, H, W).

        N images, H rows, W columns, K classes.
        """

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output Grad-CAM weighs."""
        return self.get_submodule(self.config.cam_layer)


BACKBONES: Registry[type[Classifier]] = Registry("backbone", "steel_core.models.backbones")
