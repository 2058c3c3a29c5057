"""Which images of a data set the quality of maps is measured on: none that the checkpoint has learnt from."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import find_near_duplicate_pairs, group_near_duplicates
from steel_core.errors import DataError, ImageError
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress
from steel_core.types import BoolArray, Float32Array, IndexArray, Mask, ObjectArray, SteelImage


class PickedImage(NamedTuple):
    """An image that is explained for one class: its grid (H, W), and where that class is, if that is on file."""

    row: int
    file: str
    grid: Float32Array
    target: int
    truth: Mask | None
    group: str


def find_parts_served(predictor: Predictor, index: DatasetIndex, progress: Progress) -> tuple[ObjectArray, list[str]]:
    """(N,) the part of the checkpoint's split each image served in, "unreadable" where it is refused, else ""."""
    parts, problems = np.full(len(index), "", dtype=object), []
    for i in range(len(index)):
        progress("reading images", i, len(index))
        try:
            parts[i] = predictor.card.part_of(index.image(i).sha256)
        except ImageError as error:
            parts[i] = "unreadable"
            problems.append(str(error))
    progress("reading images", len(index), len(index))
    return parts, problems


def group_images(
    predictor: Predictor, index: DatasetIndex, learnt: DatasetIndex | None, progress: Progress
) -> tuple[DatasetIndex, BoolArray]:
    """The data set with groups of near-duplicates, and (N,) which images show steel that the checkpoint learnt from."""
    n = len(index)
    linked = np.zeros(n, dtype=np.bool_)
    pairs = None
    if learnt is not None:
        served = [
            i for i, part in enumerate(find_parts_served(predictor, learnt, progress)[0]) if part in ("train", "val")
        ]
        both = [index, learnt.select(rows=served)]
        root = Path(os.path.commonpath([one.root for one in both]))
        paths = [(one.root / path).relative_to(root).as_posix() for one in both for path in one.table["path"]]
        both_indices = DatasetIndex.build(root, index.spec, pd.DataFrame({"path": paths}))
        pairs = find_near_duplicate_pairs(both_indices, progress)
        linked[pairs["first"][(pairs["first"] < n) & (pairs["second"] >= n)]] = True
        pairs = pairs[pairs["second"] < n]
    if (index.table["group"] == "").any():
        index = index.with_groups(group_near_duplicates(index, progress, pairs))
    return index, linked


def split_rows(
    index: DatasetIndex, parts: ObjectArray, linked: BoolArray, include_learnt: bool, seed: int
) -> tuple[IndexArray, IndexArray]:
    """Rows to choose the rule for regions on, and rows to count, of different groups."""
    groups = index.table["group"].to_numpy()
    readable = parts != "unreadable"
    usable = readable & (include_learnt | ~(np.isin(parts, ["train", "val"]) | linked))
    tuning = readable & (parts == "val")
    if not tuning.any() and usable.any():
        names = np.random.default_rng(seed).permutation(np.unique(groups[usable].astype(str)))
        tuning = usable & np.isin(groups.astype(str), names[: len(names) // 2])
    return np.flatnonzero(tuning), np.flatnonzero(usable & ~np.isin(groups.astype(str), groups[tuning].astype(str)))


def pick_images(
    predictor: Predictor, index: DatasetIndex, rows: IndexArray, count: int, seed: int, left_out: list[str]
) -> list[PickedImage]:
    """Up to `count` images, evenly over the classes, in random order."""
    labels = index.table["labels"].str.partition("|")[0].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(rows)
    turn = pd.Series(labels[shuffled]).groupby(labels[shuffled]).cumcount().to_numpy()
    picked = []
    for i in shuffled[np.argsort(turn, kind="stable")][:count].tolist():
        image, sample = index.image(i), index[i]
        label = sample.label if sample.label in predictor.classes else predictor.predict([image])[0].pred
        grid, _ = predictor.card.preprocessing.to_grid(image)
        try:
            truth = _truth_on_grid(index, i, label, image, grid.shape)
        except DataError as error:
            left_out.append(f"{error} The image counts without it.")
            truth = None
        picked.append(PickedImage(i, sample.path.name, grid, predictor.classes.index(label), truth, sample.group))
    return picked


def _truth_on_grid(index: DatasetIndex, i: int, label: str, image: SteelImage, shape: tuple[int, ...]) -> Mask | None:
    """Where an inspector saw that class, on the grid (H, W) that the network sees; None where nothing is on file."""
    size = (image.height, image.width)
    values = index.mask(i)
    if values is not None:
        if values.shape != size:
            raise DataError(f"{image.name}: expected a mask of {size[0]} x {size[1]} pixels, found {values.shape}.")
        truth = np.isin(values, [value for value, name in index[i].mask_classes.items() if name == label])
    else:
        truth = boxes_to_mask([box for box in index.boxes(i) if box.label == label], size)
    truth = cv2.resize(truth.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return truth if truth.any() else None


def group_by_shape(picked: Sequence[PickedImage]) -> Iterator[list[PickedImage]]:
    """The images of each size of grid, as one batch can hold them, the most frequent size first."""
    by_shape: dict[tuple[int, ...], list[PickedImage]] = {}
    for one in picked:
        by_shape.setdefault(one.grid.shape, []).append(one)
    yield from sorted(by_shape.values(), key=len, reverse=True)
