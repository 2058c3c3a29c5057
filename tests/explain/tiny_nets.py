"""Classifiers small enough to be computed by hand."""

import pytest
import torch
from torch import nn

from steel_core.models.base import BACKBONES, BackboneConfig, Classifier
from steel_core.models.batch_norm import fold_for_inference

CONFIG = BackboneConfig(title="tiny", source="made up", cam_layer="features", min_size=4, linear_head=False)


class TinyNet(Classifier):
    """Two convolutions with ReLU, then a fully connected layer that weighs each position by itself.

    `features` turns (N, 3, 7, 9) into (N, 3, 3, 4).
    """

    config = CONFIG

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(3 * 3 * 4, classes)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features.flatten(1))


class LinearNet(Classifier):
    """A weight for each pixel and class, nothing else."""

    config = BackboneConfig(title="linear", source="made up", cam_layer="features", min_size=1, linear_head=False)

    def __init__(self, pixels: int, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.head = nn.Linear(pixels, classes)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features.flatten(1))


def tiny(seed: int = 0) -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet().eval()


def backbone(name: str, classes: int, folded: bool = True) -> Classifier:
    """Folded as a Predictor holds it, with weights and normalisation that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BACKBONES[name](classes).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
        nn.init.normal_(model.head.weight, std=0.3)
    return fold_for_inference(model) if folded else model


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def one_thread():
    """One thread for tensors this small: on a busy machine a second one only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
