"""The images of a data set on the grid that a network sees, decoded once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core.data.annotations import mask_to_boxes
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.content import encode_content
from steel_core.data.transforms import Preprocessing, grey_statistics
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.files import cache_folder, scratch_array
from steel_core.metrics import multi_label
from steel_core.progress import Progress
from steel_core.types import Int64Array

_HELD_BYTES = 2 << 30  # of images in memory; more of them lie on the disk


@dataclass(frozen=True)
class ImageTable:
    """The readable, labelled images of a data set on the grid a network sees.

    Attributes:
        grids: (N, 1, H, W) float16 grey in 0 to 1.
        labels: (N,) index of the class; or (N, K) targets of several, as in `steel_core.metrics.multi_label`.
        rows: (N,) row of the data set's table.
        hashes: sha256 of each image's bytes.
        contents: code of what each image shows (`steel_core.data.quality.content`).
        centres: (N, 2) where `Augmentation` may take a patch, see `rare_defects`; None if nowhere.
    """

    grids: Tensor
    labels: Tensor
    rows: Int64Array
    hashes: tuple[str, ...]
    contents: tuple[str, ...]
    problems: tuple[str, ...]
    centres: Tensor | None = None

    def describe_split(self, parts: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a card keeps of how the images were divided, and of those that a checkpoint learns from."""
        return {
            "counts": {part: len(rows) for part, rows in parts.items()},
            "files": {part: [self.hashes[i][:16] for i in rows.tolist()] for part, rows in parts.items()},
            "contents": {part: [self.contents[i] for i in parts[part].tolist()] for part in ("train", "val")},
        }

    def part(self, rows: Int64Array) -> Tensor:
        """Positions (M,) in this table of the data set's rows that are in it."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.rows, rows)))


def is_multi_label(index: DatasetIndex, head: str) -> bool:
    """Whether a head learns several classes an image: a sigmoid does, where an image of the data set has several.

    Raises:
        DataError: an image has no label, or several while the head can name but one.
    """
    unlabelled = int((index.table["labels"] == "").sum())
    if unlabelled:
        raise DataError(f"expected at least one label for each image; {unlabelled} of {len(index)} have none")
    several = int(index.table["labels"].str.contains("|", regex=False).sum())
    if several and head != "sigmoid":
        raise DataError(
            f"expected one label for each image; {several} of {len(index)} have several. A sigmoid head (`--head "
            "sigmoid`) learns each defect type by itself; or clear against defect can be learnt (`--binary`)"
        )
    return bool(several)


def check_labels(index: DatasetIndex, head: str) -> bool:
    """See `is_multi_label`; refuses a data set of one class, too. Reads no image."""
    several = is_multi_label(index, head)
    if len(index.classes) < 2:
        raise DataError(f"expected images of at least 2 classes, got {', '.join(index.classes) or 'none'}")
    return several


def read_images(
    index: DatasetIndex, input_size: tuple[int, int], progress: Progress, head: str = "softmax"
) -> ImageTable:
    """Decode a data set once. An image that cannot be read is reported and left out.

    Raises:
        DataError: see `is_multi_label`; or no image could be read.
        UsageError: there are more than 2 GB of images, and the disk has no room.
    """
    several = is_multi_label(index, head)
    height, width = input_size
    shape, grids = Preprocessing(input_size, 0.0, 1.0), _room((len(index), 1, height, width))
    rows: list[int] = []
    hashes: list[str] = []
    contents: list[str] = []
    problems: list[str] = []
    for i in range(len(index)):
        progress("reading images", i, len(index))
        try:
            image = index.image(i)
        except ImageError as error:
            problems.append(str(error))
            continue
        grid, _ = shape.to_grid(image)
        top, left = (grid.shape[0] - height) // 2, (grid.shape[1] - width) // 2
        middle = grid[top : top + height, left : left + width]  # training batches need one shape
        grids[len(rows), 0] = torch.from_numpy(middle.astype(np.float16))
        rows.append(i)
        hashes.append(image.sha256)
        contents.append(encode_content(image.grey()))
    progress("reading images", len(index), len(index))
    if not rows:
        raise DataError(f"none of the {len(index)} images could be read; the first: {(problems or ['no image'])[0]}")
    cells = index.table["labels"].iloc[rows]
    if several:
        labels = torch.from_numpy(multi_label.encode_targets(list(cells), index.classes)).float()
    else:
        labels = torch.from_numpy(index.labels_encoded()[rows])
    return ImageTable(grids[: len(rows)], labels, np.array(rows), tuple(hashes), tuple(contents), tuple(problems))


def _room(shape: tuple[int, int, int, int]) -> Tensor:
    """Room for images as float16, in memory or, where they are many, in a scratch file of the user's cache."""
    size = math.prod(shape) * torch.float16.itemsize
    if size <= _HELD_BYTES:
        return torch.empty(shape, dtype=torch.float16)
    try:
        return torch.from_numpy(scratch_array(shape, np.float16, cache_folder()))
    except OSError as error:
        raise UsageError(
            f"expected {size / 1e9:.1f} GB on the disk for {shape[0]:,} images, got {error.strerror!r}; the variable "
            "STEEL_CACHE names a folder on another disk"
        ) from error


def rare_defects(index: DatasetIndex, table: ImageTable, positions: Tensor) -> Tensor:
    """Column and row (N, 2) of the largest defect of each image of a rare class, from -1 to 1 over the sides.

    A class is rare if it has less than half as many images as the mean class has. Not a number: the image is of no rare
    class, not among `positions`, or nothing tells where its defect lies.
    """
    centres = torch.full((len(table.rows), 2), math.nan)
    hot = table.labels if table.labels.ndim == 2 else F.one_hot(table.labels, len(index.classes))
    counts = hot[positions].sum(dim=0)
    rare = (counts > 0) & (counts < counts[counts > 0].float().mean() / 2)
    height, width = table.grids.shape[2:]
    for at in positions[(hot[positions].float() @ rare.float()) > 0].tolist():
        row = int(table.rows[at])
        boxes = index.boxes(row)
        if not boxes and (mask := index.mask(row)) is not None:
            boxes = mask_to_boxes(mask)
        if boxes:
            box = max(boxes, key=lambda box: (box.xmax - box.xmin) * (box.ymax - box.ymin))
            size = index.size(row)
            rows, columns = Preprocessing((height, width), 0.0, 1.0).grid_size(*size)[0]
            x, y = (box.xmin + box.xmax) / size[1] - 1, (box.ymin + box.ymax) / size[0] - 1
            centres[at] = torch.tensor([x * columns / width, y * rows / height])  # the middle of the grid is kept
    return centres


def common_size(index: DatasetIndex, rows: Sequence[int], largest: int = 256) -> tuple[int, int]:
    """Median height and width of some images, scaled down so that the shorter side is at most `largest` pixels."""
    sizes = []
    for i in rows:
        try:
            image = index.image(int(i))
        except ImageError:
            continue
        sizes.append((image.height, image.width))
    if not sizes:
        raise DataError(f"none of the first {len(rows)} images could be read")
    height, width = np.median(np.array(sizes), axis=0)
    zoom = min(1.0, largest / min(height, width))
    return round(height * zoom), round(width * zoom)


def measure(table: ImageTable, rows: Tensor, input_size: tuple[int, int]) -> Preprocessing:
    """Input size, mean and standard deviation of the images at those positions."""
    mean, std = grey_statistics(table.grids[i].float().numpy() for i in rows.tolist())
    return Preprocessing(input_size, mean, std)
