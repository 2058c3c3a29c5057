"""From a data set and settings to what a fit needs: groups, splits, images, preprocessing."""

import contextlib
import hashlib
import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

import steel_core
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import group_near_duplicates
from steel_core.data.splits import split_dataset
from steel_core.data.transforms import Preprocessing
from steel_core.errors import DataError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.keys import data_key
from steel_core.inference.tiling import squeeze_warning
from steel_core.metrics import multi_label
from steel_core.progress import Progress, Say
from steel_core.training.cam_layer import with_cam_layer
from steel_core.training.images import ImageTable, check_labels, common_size, measure, rare_defects, read_images
from steel_core.training.new_model import initial_weights, new_model
from steel_core.training.settings import TrainingSettings
from steel_core.types import Int64Array

SHARES = (0.8, 0.1, 0.1)
"""Parts of a data set without splits that serve to train, to validate and to test."""


_SIZE_SAMPLE = 200


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
    """Split and read the images, and settle what the settings leave open.

    Raises:
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible.
        CheckpointError: the initial weights cannot be had.
    """
    several = check_labels(index, config.head)
    new_model(config, len(index.classes))  # a setting that cannot be met is refused before any work
    init_hash = ""
    if weights := initial_weights(config):
        init_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        report(f"starting from {weights.name}, sha256 {init_hash}")
    index, leaks = with_groups_and_splits(index, config.seed, report, progress)
    if several:
        index = replace(index, classes=multi_label.defect_types(index.classes))
    input_size = config.input_size or common_size(index, _sample(index, config.seed).tolist())
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
    leaking = index.leaking_groups()
    warning = ""
    if leaking:
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


def _sample(index: DatasetIndex, seed: int) -> Int64Array:
    rows = np.flatnonzero(index.table["split"] == "train")
    return np.random.default_rng(seed).permutation(rows)[:_SIZE_SAMPLE]
