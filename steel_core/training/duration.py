"""How long a training will take, judged by one step that is timed."""

import time

import numpy as np
import torch

from steel_core.data.index import DatasetIndex
from steel_core.data.transforms import Preprocessing
from steel_core.device import choose_device
from steel_core.errors import UsageError
from steel_core.models.base import BACKBONES
from steel_core.training.cam_layer import with_cam_layer
from steel_core.training.fit import Fit, optimiser_for
from steel_core.training.images import ImageTable, check_labels, common_size
from steel_core.training.prepare import SHARES
from steel_core.training.settings import TrainingSettings

_SAMPLE = 20  # images that tell the common size, and what reading one costs
_BATCH = 8
_SEARCH_STEPS = 72  # of the search for a learning rate, at most


def seconds_to_train(index: DatasetIndex, config: TrainingSettings, device: str = "auto") -> float:
    """Seconds for reading, all epochs, and the search for a learning rate, at the pace of this moment.

    A run that stops early takes less, one that must begin anew with another learning rate up to twice as long.

    Raises:
        DataError: the labels cannot be trained on, or none of the images looked at can be read.
        UsageError: the backbone is unknown, or cannot see images of this size.
    """
    check_labels(index, config.head)  # what training would refuse is refused here
    kind = BACKBONES[config.backbone]
    if config.start == "imagenet" and not kind.has_pretrained():
        raise UsageError(f"{kind.config.title}: no ImageNet weights are known; start from random ones")
    images = images_to_train(index)
    rows = np.linspace(0, len(index) - 1, min(_SAMPLE, len(index))).astype(int).tolist()
    began = time.perf_counter()
    size = config.input_size or common_size(index, rows)
    reading = (time.perf_counter() - began) / len(rows) * len(index)
    backbone = with_cam_layer(config.backbone, size)
    step = _seconds_an_image(config.replace(backbone=backbone), len(index.classes), size, device)
    config = config.for_images(images)
    searched = 0 if config.learning_rate or config.pretrained else _SEARCH_STEPS * config.batch_size
    looked_at = images * config.epochs + searched
    return reading + step * looked_at


def images_to_train(index: DatasetIndex) -> int:
    """How many images the train split has, or will have where it is still to be made."""
    return int((index.table["split"] == "train").sum()) or round(SHARES[0] * len(index))


def _seconds_an_image(config: TrainingSettings, classes: int, size: tuple[int, int], device: str) -> float:
    """One step of training on noise, after one that is not timed."""
    table = ImageTable(
        torch.rand(_BATCH, 1, *size).half(), torch.zeros(_BATCH, dtype=torch.long), np.arange(_BATCH),
        ("",) * _BATCH, (),
    )  # fmt: skip
    config = config.replace(augmentation=config.augmentation.replace(patches=0.0))
    target = choose_device(device)
    model = BACKBONES[config.backbone](max(classes, 2)).train()
    fit = Fit(model, table, Preprocessing(size, 0.5, 0.2), config, target)
    optimiser = optimiser_for(model, 1e-3, config)
    weights = torch.ones(max(classes, 2), device=target)
    for _ in range(2):
        began = time.perf_counter()
        fit.step(optimiser, torch.arange(_BATCH), weights)
    return (time.perf_counter() - began) / _BATCH
