"""SqueezeNet 1.1, whole and reduced, with a 1x1 convolution and a global average as head.

Reduced as in the Severstal interpretability study: without the last three fire modules, 0.23 million weights, a 12 x 12
grid of evidence for a 200 x 200 image. No ReLU follows the head, so that a logit can be negative, and Grad-CAM signed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.models.squeezenet import Fire

from steel_core.models.base import BACKBONES, BackboneConfig, ConvolutionalHead, forbid_inplace
from steel_core.models.pretrained import fetch_weights


@BACKBONES.register("squeezenet")
class SqueezeNet(ConvolutionalHead):
    """SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360, 2016)."""

    config: ClassVar[BackboneConfig] = BackboneConfig(
        title="SqueezeNet 1.1",
        source="Iandola et al., SqueezeNet, arXiv:1602.07360, 2016",
        cam_layer="features",
        min_size=17,
        linear_head=True,
    )
    stages: ClassVar[int | None] = None
    """How many of torchvision's stages are kept; all if None."""

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        features = squeezenet1_1(weights=None).features[: self.stages]
        forbid_inplace(features)
        last = features[-1]
        assert isinstance(last, Fire)
        width = last.expand1x1.out_channels + last.expand3x3.out_channels
        super().__init__(features, width, classes, dropout)

    @classmethod
    def pretrained(cls) -> Path:
        return fetch_weights(SqueezeNet1_1_Weights.IMAGENET1K_V1)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("classifier.1.", "head."): value for name, value in state.items()}


@BACKBONES.register("squeezenet-reduced")
class ReducedSqueezeNet(SqueezeNet):
    """SqueezeNet 1.1 up to its fifth fire module of eight."""

    config: ClassVar[BackboneConfig] = replace(
        SqueezeNet.config,
        title="SqueezeNet 1.1, reduced",
        source="Iandola et al., SqueezeNet, arXiv:1602.07360, 2016; without the last three fire modules",
    )
    stages: ClassVar[int | None] = 10
