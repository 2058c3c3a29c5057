"""A plain small network, as a yardstick for what the others' architecture is worth."""

from typing import ClassVar

from torch import nn

from steel_core.models.base import BACKBONES, BackboneConfig, ConvolutionalHead

_WIDTHS = (16, 32, 64, 96)


@BACKBONES.register("small-cnn")
class SmallCnn(ConvolutionalHead):
    """Four 3x3 convolutions, each with ReLU and 2x2 max pooling, then a 1x1 convolution and a global average.

    After LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86, 1998, with
    the head of Lin et al., Network in Network, ICLR 2014.
    """

    config: ClassVar[BackboneConfig] = BackboneConfig(
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
