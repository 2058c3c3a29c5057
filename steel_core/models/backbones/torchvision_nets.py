"""Every classifier of torchvision: `torchvision:NAME`, or `torchvision:NAME@LAYER` with the module for Grad-CAM."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torchvision import models

from steel_core.errors import UsageError
from steel_core.models.base import BACKBONES, BackboneConfig, Classifier, LinearHead, forbid_inplace
from steel_core.models.pretrained import fetch_weights

PREFIX = "features.0."
"""What stands before torchvision's own names of modules and weights."""

_WITHOUT_HELPERS = {name: {"aux_logits": False, "init_weights": False} for name in ("googlenet", "inception_v3")}
_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


class TorchvisionNet(LinearHead):
    """A network of torchvision whose last linear layer or 1x1 convolution made way for a head of our own."""

    name: ClassVar[str]

    def __init__(self, classes: int, dropout: float = 0.2) -> None:
        network = models.get_model(self.name, weights=None, **_WITHOUT_HELPERS.get(self.name, {}))
        forbid_inplace(network)
        for part in network.modules():
            if isinstance(part, nn.Dropout):
                part.p = dropout
        where, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        parent, _, own = where.rpartition(".")
        setattr(network.get_submodule(parent), own, nn.Identity())
        width = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        super().__init__(nn.Sequential(network, nn.Unflatten(1, (-1, 1, 1))), width, classes, dropout)
        normalised = any(isinstance(part, _NORMS) for part in network.modules())
        self.config = replace(self.config, batch_norm=normalised)  # type: ignore[misc]  # known once it is built

    @classmethod
    def pretrained(cls) -> Path:
        return fetch_weights(models.get_model_weights(cls.name).DEFAULT)

    @classmethod
    def translate_state(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = cls(2).state_dict().keys()
        return dict(state) if own & state.keys() else {PREFIX + name: value for name, value in state.items()}


@BACKBONES.family("torchvision")
@cache
def torchvision_net(name: str) -> type[Classifier]:
    """The class for "NAME" or "NAME@LAYER"; a name that torchvision does not have is refused with a UsageError."""
    architecture, _, layer = name.partition("@")
    names = models.list_models(module=models)
    if architecture not in names:
        raise UsageError(f"backbone 'torchvision:{name}': expected a name out of {', '.join(names)}")
    config = BackboneConfig(
        title=f"{architecture} of torchvision",
        source="torchvision.models, https://docs.pytorch.org/vision/stable/models.html",
        cam_layer=PREFIX + layer if layer else "features",
        min_size=32,
        linear_head=False,
        hook_free=False,
    )
    return type("TorchvisionNet", (TorchvisionNet,), {"name": architecture, "config": config})
