"""Any PyTorch classifier as a `Classifier`, so that every explainer works on it."""

import copy

from torch import Tensor, nn

from steel_core.errors import UsageError
from steel_core.models.base import BackboneConfig, Classifier, forbid_inplace


class _WrappedNetwork(Classifier):
    def __init__(self, module: nn.Module, config: BackboneConfig) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.module = module
        self.config = config  # type: ignore[misc]  # of this one network, not of a class

    def classify(self, features: Tensor) -> Tensor:
        return self.module(features)


def wrap_network(
    module: nn.Module, cam_layer: str, *, title: str = "", source: str = "", min_size: int = 1
) -> Classifier:
    """A copy of `module` that every explainer takes, in evaluation mode; captum and shap serve where the engine cannot.

    `module` makes logits (N, K) of images (N, C, H, W); `cam_layer` is the dotted name of its last convolutional stage,
    `min_size` the smallest height and width in pixels that it accepts.

    Raises:
        UsageError: it has no module of that name.
    """
    if cam_layer not in dict(module.named_modules()):
        raise UsageError(f"cam_layer {cam_layer!r}: expected the name of a module of {type(module).__name__}")
    own = copy.deepcopy(module)
    forbid_inplace(own)
    config = BackboneConfig(
        title=title or type(module).__name__,
        source=source,
        cam_layer=f"module.{cam_layer}",
        min_size=min_size,
        linear_head=False,
        hook_free=False,
    )
    return _WrappedNetwork(own, config).eval()
