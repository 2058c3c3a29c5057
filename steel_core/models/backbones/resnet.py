"""ResNet-18 with batch normalisation, from torchvision's parts; every activation a module of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.ops import Conv2dNormActivation

from steel_core.models.base import BACKBONES, BackboneConfig, LinearHead
from steel_core.models.pretrained import fetch_weights, rename_by_position

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input (He et al., 2016, figure 5 left)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels_in, channels, 3, stride, relu=True), *_conv(channels, channels, 3, 1, relu=False)
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else _conv(channels_in, channels, 1, stride, relu=False)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C', H', W') of (N, C, H, W)."""
        return self.relu(self.body(inputs) + self.shortcut(inputs))


@BACKBONES.register("resnet18")
class ResNet18(LinearHead):
    """ResNet-18 (He et al., CVPR 2016, arXiv:1512.03385) with dropout of the averaged features."""

    config: ClassVar[BackboneConfig] = BackboneConfig(
        title="ResNet-18",
        source="He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
        cam_layer="features",
        min_size=32,
        linear_head=True,
        batch_norm=True,
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        stages: list[nn.Module] = [_conv(3, 64, 7, 2, relu=True), nn.MaxPool2d(3, stride=2, padding=1)]
        before = _WIDTHS[0]
        for number, width in enumerate(_WIDTHS):
            stages += [BasicBlock(before, width, 2 if number else 1), BasicBlock(width, width, 1)]
            before = width
        super().__init__(nn.Sequential(*stages), before, classes, dropout)

    @classmethod
    def pretrained(cls) -> Path:
        return fetch_weights(ResNet18_Weights.IMAGENET1K_V1)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return rename_by_position(list(cls(2).state_dict()), state) if "layer1.0.conv1.weight" in state else dict(state)


def _conv(channels_in: int, channels: int, size: int, stride: int, *, relu: bool) -> Conv2dNormActivation:
    activation = nn.ReLU if relu else None
    return Conv2dNormActivation(channels_in, channels, size, stride, activation_layer=activation, inplace=False)
