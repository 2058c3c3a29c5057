"""Fixtures that several parts share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import Card, load_checkpoint, save_checkpoint
from steel_core.types import SteelImage

ROOT = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("STEEL_DATA", ROOT.parent / "shared" / "data"))

if "OMP_NUM_THREADS" not in os.environ:  # more threads than cores make torch wait for itself
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


def pytest_collection_modifyitems(items):
    """Skip, and say so, what this machine lacks."""
    for item in items:
        if item.get_closest_marker("real_data") and not (REAL_DATA / "neu-cls").is_dir():
            item.add_marker(pytest.mark.skip(reason="the real images are not here; set STEEL_DATA"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with neu-cls and neu-seg."""
    return REAL_DATA


def make_checkpoint(folder: Path, classes=("clear", "defect"), size=(64, 64), seed=0, **card) -> Path:
    """An untrained checkpoint with a background, for tests of everything around the weights."""
    torch.manual_seed(seed)
    model = BACKBONES["squeezenet-reduced"](len(classes))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    rng = np.random.default_rng(seed)
    background = rng.integers(90, 160, (6, *size), dtype=np.uint8)
    facts = {
        "name": folder.name,
        "title": "A test",
        "backbone": "squeezenet-reduced",
        "head": "softmax",
        "classes": tuple(classes),
        "input_size": size,
        "mean": 0.5,
        "std": 0.2,
        "background": "random grey",
        "map_scale": {"grad-cam": 0.01, "guided-grad-cam": 0.001, "shap": 0.001},
    } | card
    save_checkpoint(folder, Card(**facts), model.state_dict(), background)
    return folder


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder):
    return load_checkpoint(checkpoint_folder)


def steel_image(height=64, width=64, seed=0, name="sheet.png") -> SteelImage:
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(120, 40, (height, width)), 0, 255).astype(np.uint8)
    return SteelImage(pixels, name, f"{seed:064x}")
