"""Small networks without shortcuts, with a 1x1 convolution and a global average as head.

A plain one is a yardstick for what the others' architecture is worth. SqueezeNet 1.1 is there whole and reduced.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.models.squeezenet import Fire

from steel_core.models.base import BACKBONES, BackboneConfig, ConvolutionalHead, forbid_inplace
from steel_core.models.pretrained import fetch_weights

_WIDTHS = (16, 32, 64, 96)


@BACKBONES.register("small-cnn")
class SmallCnn(ConvolutionalHead):
    """Four 3x3 convolutions, each with ReLU and 2x2 max pooling, then a 1x1 convolution and a global average.

    After LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86, 1998, with
    the head of Lin et al., Network in Network, ICLR 2014.
    """

    config = BackboneConfig(
        title="Small CNN",
        source="LeCun et al., Proceedings of the IEEE 86, 1998; head: Lin et al., arXiv:1312.4400",
        cam_layer="features",
        min_size=16,
        linear_head=True,
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        stages: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            stages += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        super().__init__(nn.Sequential(*stages), before, classes, dropout)


@BACKBONES.register("squeezenet")
class SqueezeNet(ConvolutionalHead):
    """SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360, 2016)."""

    config = BackboneConfig(
        title="SqueezeNet 1.1",
        source="Iandola et al., SqueezeNet, arXiv:1602.07360, 2016",
        cam_layer="features",
        min_size=17,
        linear_head=True,
    )
    stages: int | None = None  # how many of torchvision's stages are kept; all if None

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
    """SqueezeNet 1.1 up to its fifth fire module of eight, as in the Severstal interpretability study.

    0.23 million weights, a 12 x 12 grid of evidence for a 200 x 200 image.
    """

    config = replace(
        SqueezeNet.config,
        title="SqueezeNet 1.1, reduced",
        source="Iandola et al., SqueezeNet, arXiv:1602.07360, 2016; without the last three fire modules",
    )
    stages = 10
