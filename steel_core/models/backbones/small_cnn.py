"""A plain small network, as a yardstick for what the others' architecture is worth."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import override

from steel_core.models.base import BACKBONES, BackboneConfig, Classifier

_WIDTHS = (16, 32, 64, 96)


@BACKBONES.register("small-cnn")
class SmallCnn(Classifier):
    """Four 3x3 convolutions, each with ReLU and 2x2 max pooling, then a 1x1 convolution and a global average.

    After LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86, 1998, with
    the head of Lin et al., Network in Network, ICLR 2014.

    Args:
        classes: number of classes K.
        dropout: share of the last features dropped while training.
    """

    config: ClassVar[BackboneConfig] = BackboneConfig(
        title="Small CNN",
        source="LeCun et al., Proceedings of the IEEE 86, 1998; head: Lin et al., arXiv:1312.4400",
        cam_layer="features",
        min_size=16,
        linear_head=True,
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            stages += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(before, classes, kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @override
    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features)).mean(dim=(2, 3))
