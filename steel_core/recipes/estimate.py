"""How long a training will take, judged by one step that is timed."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F

from steel_core.data.index import DatasetIndex
from steel_core.device import choose_device
from steel_core.models.base import BACKBONES
from steel_core.recipes.train import SHARES
from steel_core.recipes.training import TrainConfig, common_size

_SAMPLE = 20  # images that tell the common size, and what reading one costs
_BATCH = 8
_SEARCH_STEPS = 72  # of the search for a learning rate, at most


def seconds_to_train(index: DatasetIndex, config: TrainConfig, device: str = "auto") -> float:
    """Seconds at the most: reading, all epochs, and the search for a learning rate; it may well stop earlier.

    Args:
        index: the data set.
        config: settings.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        DataError: none of the images looked at can be read.
        UsageError: the backbone is unknown.
    """
    split = index.table["split"]
    images = int((split == "train").sum()) or round(SHARES[0] * len(index))
    rows = np.linspace(0, len(index) - 1, min(_SAMPLE, len(index))).astype(int).tolist()
    began = time.perf_counter()
    size = config.input_size or common_size(index, rows)
    reading = (time.perf_counter() - began) / len(rows) * len(index)
    step = _seconds_an_image(config.backbone, len(index.classes), size, device)
    config = config.for_images(images)
    searched = 0 if config.learning_rate or config.pretrained else _SEARCH_STEPS * config.batch_size
    looked_at = images * config.epochs + searched
    return reading + step * looked_at


def _seconds_an_image(backbone: str, classes: int, size: tuple[int, int], device: str) -> float:
    """Forward and backward, after one step that is not timed."""
    target = choose_device(device)
    model = BACKBONES[backbone](max(classes, 2)).train().to(target)
    inputs = torch.randn(_BATCH, 3, *size, device=target).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(_BATCH, dtype=torch.long, device=target)
    for _ in range(2):
        began = time.perf_counter()
        F.cross_entropy(model(inputs), labels).backward()
        if target.type == "cuda":
            torch.cuda.synchronize(target)
    return (time.perf_counter() - began) / _BATCH
