"""What every classifier offers to training, prediction and explanation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from steel_core.errors import CheckpointError
from steel_core.registry import Registry


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Facts about an architecture that hold before any training.

    Attributes:
        cam_layer: dotted name of the last convolutional stage, which Grad-CAM reads unless another is named.
        min_size: smallest height and width in pixels that the network accepts.
        linear_head: whether the logits are a linear function of the global average of what `features` gives.
        weights_package: Python package among the requirements that brings ImageNet weights; "" if they must be fetched.
        hook_free: whether `features` and `classify`, one after the other, are the whole network, and only a ReLU reads
            what that ReLU is given, so that the engine of `steel_core.explain` may serve it, not captum and shap.
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
    """A network from normalised images to logits: `features`, then `classify`; made of K classes and a dropout share.

    Every activation is a module of its own, used once and not in place, so that guided backpropagation can be taken.
    """

    config: ClassVar[BackboneConfig]
    features: nn.Sequential

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits (N, K) of what `features` gives (N, F, h, w): F channels, h rows and w columns of the last grid."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, 3, H, W)."""
        return self.classify(self.features(inputs))

    @classmethod
    def pretrained(cls) -> Path:
        """The file with ImageNet weights, which `translate_state` brings under the names of this class.

        Raises:
            CheckpointError: none are known, or they cannot be had from here.
        """
        raise CheckpointError(f"{cls.config.title}: no ImageNet weights are known; start from random ones or a file")

    @classmethod
    def has_pretrained(cls) -> bool:
        """Whether ImageNet weights are known, be it that they must be fetched."""
        return any("pretrained" in vars(kind) for kind in cls.__mro__[: cls.__mro__.index(Classifier)])

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dictionary of the original implementation under the names of this class; others are left as is."""
        return dict(state)


class HeadedClassifier(Classifier):
    """A classifier of `features`, all that comes before the head, then dropout and a head of its own."""

    def __init__(self, features: nn.Sequential, head: nn.Linear | nn.Conv2d, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = head
        nn.init.normal_(head.weight, std=0.01)
        assert head.bias is not None
        nn.init.zeros_(head.bias)


class ConvolutionalHead(HeadedClassifier):
    """Dropout, a 1x1 convolution to the classes, a global average; no ReLU, so that Grad-CAM can be signed."""

    def __init__(self, features: nn.Sequential, width: int, classes: int, dropout: float) -> None:
        super().__init__(features, nn.Conv2d(width, classes, kernel_size=1), dropout)

    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features)).mean(dim=(2, 3))


class LinearHead(HeadedClassifier):
    """A global average, dropout, and a linear layer to the classes."""

    def __init__(self, features: nn.Sequential, width: int, classes: int, dropout: float) -> None:
        super().__init__(features, nn.Linear(width, classes), dropout)

    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features.mean(dim=(2, 3))))


BACKBONES: Registry[type[Classifier]] = Registry("backbone", "steel_core.models.backbones", "steel_lens.backbones")


def forbid_inplace(network: nn.Module) -> None:
    """Let every activation leave what it is given as it is: captum and guided backpropagation need it."""
    for part in network.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]


def fill_weights(model: Classifier, state: Mapping[str, Tensor]) -> None:
    """Give `model` the weights of `state`, which must be all of its own, of their shapes, and finite.

    Raises:
        CheckpointError: they are not.
    """
    own = model.state_dict()
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or extra:
        raise CheckpointError(
            f"expected the {len(own)} tensors of the architecture; {len(missing)} are missing, {len(extra)} unknown"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise CheckpointError(f"{name} has shape {list(value.shape)}, expected {list(own[name].shape)}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds values that are not numbers (NaN or infinite)")
    model.load_state_dict(state)
