"""From a data set and settings to what a fit needs: groups, splits, images, preprocessing; and how long it takes."""

import contextlib
import hashlib
import json
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import steel_core
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import group_near_duplicates
from steel_core.data.splits import split_dataset
from steel_core.data.transforms import Preprocessing
from steel_core.device import choose_device
from steel_core.errors import DataError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.keys import data_key
from steel_core.inference.tiling import squeeze_warning
from steel_core.metrics import multi_label
from steel_core.models.base import BACKBONES
from steel_core.progress import Progress, Say
from steel_core.training.fit import Fit, optimiser_for
from steel_core.training.images import ImageTable, check_labels, common_size, measure, rare_defects, read_images
from steel_core.training.new_model import initial_weights, new_model, with_cam_layer
from steel_core.training.settings import TrainingSettings

SHARES = (0.8, 0.1, 0.1)
"""Parts of a data set without splits that serve to train, to validate and to test."""

_SIZE_SAMPLE = 200
_TIMED_SAMPLE = 20  # images that tell the common size, and what reading one costs
_TIMED_BATCH = 8
_SEARCH_STEPS = 72  # of the search for a learning rate, at most


class Prepared(NamedTuple):
    """What a fit needs.

    Attributes:
        config: settings, with the number of epochs and the Grad-CAM layer.
        parts: positions in the table of the images of "train", "val" and "test".
        leaks: a sentence where the splits that came with the data leak, else "".
        init_hash: sha256 of the file of weights that training starts from, "" from random ones.
    """

    dataset: DatasetIndex
    config: TrainingSettings
    table: ImageTable
    parts: dict[str, Tensor]
    preprocessing: Preprocessing
    leaks: str
    init_hash: str


def prepare(index: DatasetIndex, config: TrainingSettings, report: Say, progress: Progress) -> Prepared:
    """Split and read the images, and settle what the settings leave open. Raises what `train` does."""
    several = check_labels(index, config.head)
    new_model(config, len(index.classes))  # a setting that cannot be met is refused before any work
    init_hash = ""
    if weights := initial_weights(config):
        init_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        report(f"starting from {weights.name}, sha256 {init_hash}")
    index, leaks = with_groups_and_splits(index, config.seed, report, progress)
    if several:
        index = replace(index, classes=multi_label.defect_types(index.classes))
    sample = np.random.default_rng(config.seed).permutation(np.flatnonzero(index.table["split"] == "train"))
    input_size = config.input_size or common_size(index, sample[:_SIZE_SAMPLE].tolist())
    if warning := squeeze_warning(index, input_size):
        report(f"WARNING: {warning}")
    config = config.replace(backbone=with_cam_layer(config.backbone, input_size))
    table = read_images(index, input_size, progress, config.head)
    for problem in table.problems:
        report(f"left out: {problem}")
    parts = {part: table.part(np.flatnonzero(index.table["split"] == part)) for part in ("train", "val", "test")}
    if not len(parts["train"]) or not len(parts["val"]):
        raise DataError(
            f"expected images to train and to validate on, got {len(parts['train'])} and {len(parts['val'])}"
        )
    if config.augmentation.patches:
        table = replace(table, centres=rare_defects(index, table, parts["train"]))
    preprocessing = measure(table, parts["train"], input_size)
    counts = ", ".join(f"{len(rows)} {part}" for part, rows in parts.items())
    report(
        f"{len(table.rows)} images, {len(index.classes)} classes, {counts}; seen at {input_size[0]} x {input_size[1]}, "
        f"mean grey {preprocessing.mean:.3f}, standard deviation {preprocessing.std:.3f}"
    )
    config = config.for_images(len(parts["train"]))
    return Prepared(index, config, table, parts, preprocessing, leaks, init_hash)


def with_groups_and_splits(index: DatasetIndex, seed: int, report: Say, progress: Progress) -> tuple[DatasetIndex, str]:
    """The data set with groups of near-duplicates and splits by group, and a sentence where its own splits leak, or "".

    Splits that came with the data stand: a test split is never trained on. Where there is none to validate on, it is
    taken from the train split.
    """
    index = with_groups(index, report, progress)
    if not (index.table["split"] != "").any():
        return split_dataset(index, SHARES, seed), ""
    warning = ""
    if leaking := index.leaking_groups():
        warning = (
            f"{len(leaking)} groups of near-duplicates lie in more than one of the splits that came with the data: "
            "the figures are better than they would be on new images."
        )
        report(f"WARNING: {warning}")
    if not (index.table["split"] == "val").any():
        report("the data has no validation split; a tenth of its train split serves as one")
        rows = np.flatnonzero(index.table["split"] == "train")
        splits = index.table["split"].to_numpy(dtype=object, copy=True)
        splits[rows] = split_dataset(index.select(rows=rows), (0.9, 0.1, 0.0), seed).table["split"].to_numpy()
        index = replace(index, table=index.table.assign(split=splits))
    return index, warning


def with_groups(index: DatasetIndex, report: Say, progress: Progress) -> DatasetIndex:
    """The data set with groups of near-duplicates, searched for once, unless every image has one."""
    if not (index.table["group"] == "").any():
        return index
    kept = cache_folder() / "groups" / f"{steel_core.__version__}-{data_key(index)[:32]}.json"
    with contextlib.suppress(OSError, ValueError, UsageError):  # not made yet, or damaged
        return index.with_groups(json.loads(kept.read_bytes()))
    report("looking for near-duplicates")
    groups = group_near_duplicates(index, progress=progress)
    with contextlib.suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(kept, json.dumps(groups.tolist()).encode())
    return index.with_groups(groups)


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
    rows = np.linspace(0, len(index) - 1, min(_TIMED_SAMPLE, len(index))).astype(int).tolist()
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
        torch.rand(_TIMED_BATCH, 1, *size).half(), torch.zeros(_TIMED_BATCH, dtype=torch.long), np.arange(_TIMED_BATCH),
        ("",) * _TIMED_BATCH, ("",) * _TIMED_BATCH, (),
    )  # fmt: skip
    config = config.replace(augmentation=config.augmentation.replace(patches=0.0))
    target = choose_device(device)
    model = BACKBONES[config.backbone](max(classes, 2)).train()
    fit = Fit(model, table, Preprocessing(size, 0.5, 0.2), config, target)
    optimiser = optimiser_for(model, 1e-3, config)
    weights = torch.ones(max(classes, 2), device=target)
    for _ in range(2):
        began = time.perf_counter()
        fit.step(optimiser, torch.arange(_TIMED_BATCH), weights)
    return (time.perf_counter() - began) / _TIMED_BATCH
