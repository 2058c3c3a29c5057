"""A model whose logits are written by hand, and sheets whose defects are: what it looks at is known, not learnt."""

import numpy as np
import torch
from helpers.small import make_card
from torch import nn

from steel_core.audit.sheets import Sheets
from steel_core.inference.predictor import Predictor
from steel_core.models.base import BackboneConfig, Classifier
from steel_core.models.checkpoint import Checkpoint
from steel_core.types import CLEAR

SIDE = 64


class HandMade(Classifier):
    """Two feature maps, where a pixel is nearly white and where it is nearly black; a logit is a sum of their means."""

    config = BackboneConfig("hand-made", "made up", cam_layer="features", min_size=8, linear_head=True)

    def __init__(self, white, dark, bias):
        super().__init__()
        convolution = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            convolution.weight[:] = torch.tensor([[1 / 3.0] * 3, [-1 / 3.0] * 3])[:, :, None, None]
            convolution.bias[:] = torch.tensor([-0.75, 0.25])
        self.features = nn.Sequential(convolution, nn.ReLU())
        self.head = nn.Linear(2, len(bias))
        with torch.no_grad():
            self.head.weight[:] = torch.tensor(list(zip(white, dark, strict=True)), dtype=torch.float32)
            self.head.bias[:] = torch.tensor(bias, dtype=torch.float32)

    def classify(self, features):
        return self.head(features.mean(dim=(2, 3)))


def predictor(shortcut, classes=(CLEAR, "defect")):
    """Dark pixels argue for the second class; with a shortcut, white ones argue for the first."""
    others = [0.0] * (len(classes) - 2)
    model = HandMade([650.0 * shortcut, 0.0, *others], [0.0, 300.0, *others], [1.0, 0.0, *[-20.0] * len(others)])
    card = make_card("hand", classes, input_size=(SIDE, SIDE), mean=0.0, std=1.0)
    return Predictor(Checkpoint(card, model.eval(), None, "0" * 64), "cpu")


def sheets(n=80, *, defect=12, stained_clear=0.0, known=True, first=CLEAR, second="defect", seed=0):
    """Grey sheets, every second one with a black square; a share of the others with a white spot."""
    rng = np.random.default_rng(seed)
    grids, labels, defects = [], [], []
    for i in range(n):
        grid = np.clip(rng.normal(0.5, 0.03, (SIDE, SIDE)), 0, 1).astype(np.float32)
        mask = np.zeros((SIDE, SIDE), bool)
        top, left = rng.integers(0, SIDE - defect + 1, 2)
        if i % 2:
            mask[top : top + defect, left : left + defect] = True
            grid[mask] = 0.02
        elif rng.random() < stained_clear:
            grid[top : top + 10, left : left + 10] = 0.97
        grids.append(grid)
        labels.append((second if i % 2 else first,))
        defects.append(mask if known or not i % 2 else None)
    return Sheets(
        tuple(grids),
        tuple(labels),
        tuple(defects),
        np.array([f"g{i}" for i in range(n)]),
        np.arange(n),
        tuple(f"{i}.png" for i in range(n)),
        ((SIDE, SIDE),) * n,
        tuple(f"{i:064x}" for i in range(n)),
        (),
        "hand-made",
        "1" * 64,
    )
