"""Small stand-ins that need no training: an untrained checkpoint, a grey picture."""

from pathlib import Path

import numpy as np
import torch

from steel_core.models.base import BACKBONES
from steel_core.models.card import Card
from steel_core.models.checkpoint import save_checkpoint
from steel_core.types import SteelImage

ROOT = Path(__file__).parents[2]


def make_card(name="new", classes=("clear", "defect"), **facts) -> Card:
    """A card with nothing but what it must hold, and `facts`."""
    least = {
        "title": "A test",
        "backbone": "squeezenet-reduced",
        "head": "softmax",
        "input_size": (64, 64),
        "mean": 0.5,
        "std": 0.2,
    }
    return Card(**least | {"name": name, "classes": tuple(classes)} | facts)


def make_checkpoint(folder: Path, classes=("clear", "defect"), size=(64, 64), seed=0, **card) -> Path:
    """An untrained checkpoint with a background, for tests of everything around the weights."""
    torch.manual_seed(seed)
    model = BACKBONES["squeezenet-reduced"](len(classes))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    rng = np.random.default_rng(seed)
    background = rng.integers(90, 160, (6, *size), dtype=np.uint8)
    facts = {
        "input_size": size,
        "background": "random grey",
        "map_scale": {"grad-cam": 0.01, "guided-grad-cam": 0.001, "shap": 0.001},
    } | card
    save_checkpoint(folder, make_card(folder.name, classes, **facts), model.state_dict(), background)
    return folder


def steel_image(height=64, width=64, seed=0, name="sheet.png") -> SteelImage:
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(120, 40, (height, width)), 0, 255).astype(np.uint8)
    return SteelImage(pixels, name, f"{seed:064x}")
