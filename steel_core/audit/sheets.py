"""The images an audit looks at: read once, on the grid the network sees, with what is known about their defects."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import needs_tiling
from steel_core.models.card import Card
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, BoolArray, Grey, Int64Array, Mask, SteelImage, StrArray

_LEARNT = ("train", "val")
_SERVED = "served to train or tune this checkpoint and were not looked at"
_SAME_STEEL = "show the same steel as one that it learnt from and were not looked at"


@dataclass(frozen=True, eq=False)
class Sheets:
    """Images, and what is on file about them."""

    grids: tuple[Grey, ...]  # grey (H, W) in 0 to 1, of each image at the size the network sees
    labels: tuple[tuple[str, ...], ...]  # class names of each image; empty where unlabelled
    defects: tuple[Mask | None, ...]  # (H, W) bool, where the defect is; None where nothing tells
    groups: StrArray  # (N,) the group of near-duplicates of each
    rows: Int64Array  # (N,) row of the data set's table
    paths: tuple[str, ...]  # of each file, as the data set's table has it
    sizes: tuple[tuple[int, int], ...]  # height and width of each image as it came, in pixels
    hashes: tuple[str, ...]  # sha256 of each file
    remarks: tuple[str, ...]  # sentences about images that were not taken, or not taken as they are
    data: str
    data_hash: str  # sha256 of labels and files

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def names(self) -> tuple[str, ...]:
        """Base name of each file."""
        return tuple(PurePath(path).name for path in self.paths)

    @property
    def first_labels(self) -> StrArray:
        """(N,) the first label of each image, "" where unlabelled."""
        return np.array([labels[0] if labels else "" for labels in self.labels], dtype=str)

    def labels_or_predicted(self, classes: Sequence[str], preds: Int64Array) -> StrArray:
        """(N,) the first label of each image, the class predicted where it is unlabelled."""
        return np.where(self.first_labels == "", np.array(classes)[preds], self.first_labels)

    def lacks(self, label: str) -> BoolArray:
        """(N,) whether an image is labelled, and not with this class."""
        return np.array([bool(labels) and label not in labels for labels in self.labels], dtype=bool)

    def select(self, rows: Sequence[int] | Int64Array) -> Sheets:
        picked = [int(i) for i in rows]
        lists = ("grids", "labels", "defects", "paths", "sizes", "hashes")
        kept: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in picked) for name in lists}
        return replace(self, groups=self.groups[picked], rows=self.rows[picked], **kept)


def read_sheets(
    predictor: Predictor,
    index: DatasetIndex,
    part: str = "held-out",
    limit: int = 300,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Sheets:
    """Read at most `limit` images, drawn evenly from the classes.

    What the checkpoint was trained or tuned on is left out with its copies (`Card.part_of`), and what lies in one group
    of near-duplicates with such a file. The index is in its classes
    (`steel_core.evaluation.evaluation.match_classes`); `part` is "held-out", "train", "val", "test" or "all".

    Raises:
        DataError: no image is left.
    """
    taken: list[tuple[Grey, tuple[str, ...], Mask | None, str, int, tuple[int, int], str]] = []
    unread: list[str] = []
    left_out: Counter[str] = Counter()
    sorter = _Sorter(predictor.card, index, part)
    for i in _draw_rows(index, part, seed):
        if len(taken) >= limit:
            break
        sample = index[i]
        try:
            image = index.image(i)
            if why := sorter.why_not(i, image):
                left_out[why] += 1
                continue
            grid, _ = predictor.card.preprocessing.to_grid(image)
            defect = read_defect_mask(index, i, (image.height, image.width), grid.shape)
        except (ImageError, DataError) as error:
            unread.append(str(error))
            continue
        size = image.height, image.width
        taken.append((grid, sample.labels, defect, sample.group or f"row {i}", i, size, image.sha256))
        progress("reading images", len(taken), min(limit, len(index)))
    remarks = []
    if long := sum(needs_tiling(predictor, *size) for *_, size, _ in taken):
        remarks.append(f"{long} images are long strips or very large: an audit tests them at one look, not in tiles")
    remarks += [f"{left_out[why]} images {why}" for why in (_SERVED, _SAME_STEEL) if left_out[why]]
    if part == "held-out" and predictor.card.split.files and not predictor.card.split.contents:
        remarks.append("Altered copies of images it learnt from count as unseen: its card keeps hashes of files alone")
    if unread:
        remarks.append(f"Could not be read: {len(unread)} ({'; '.join(one.rstrip('.') for one in unread[:3])})")
    if not taken:
        raise DataError(f"no image is left to look at ({'; '.join(remarks) or f'part {part} is empty'})")
    progress("reading images", 1, 1)
    grids, labels, defects, groups, rows, sizes, hashes = zip(*taken, strict=True)
    digest = hashlib.sha256(
        "\n".join(sorted(f"{h} {'|'.join(own)}" for h, own in zip(hashes, labels, strict=True))).encode()
    )
    return Sheets(
        grids,
        labels,
        defects,
        np.array(groups, dtype=str),
        np.array(rows),
        tuple(index.table["path"].iloc[list(rows)]),
        sizes,
        hashes,
        tuple(f"{sentence}." for sentence in remarks),
        index.spec.name,
        digest.hexdigest(),
    )


class _Sorter:
    """Which images of a data set are in the part asked for."""

    def __init__(self, card: Card, index: DatasetIndex, part: str) -> None:
        self.card, self.index, self.part = card, index, part
        self._learnt_groups: dict[str, bool] = {}

    def why_not(self, i: int, image: SteelImage) -> str:
        """Why an image is not in the part, "" where it is."""
        seen_in, sample = self.card.part_of(image), self.index[i]
        if self.part == "held-out":
            if seen_in in _LEARNT:
                return _SERVED
            return _SAME_STEEL if sample.group and self._is_learnt(sample.group) else ""
        return "" if self.part in ("all", seen_in or sample.split) else "lie in another part"

    def _is_learnt(self, group: str) -> bool:
        """Whether the checkpoint learnt from a file of a group of near-duplicates."""
        if group not in self._learnt_groups:
            rows = self.index.select(rows=(self.index.table["group"] == group).to_numpy())
            with suppress(DataError):  # a file that cannot be read is told where its turn comes
                self._learnt_groups[group] = any(self.card.part_of_file(h) in _LEARNT for h in rows.file_hashes())
        return self._learnt_groups.setdefault(group, False)


def read_learnt(
    predictor: Predictor, index: DatasetIndex, limit: int = 300, seed: int = 0, progress: Progress = no_progress
) -> Sheets | None:
    """At most `limit` of the images that the checkpoint learnt from, None where the data set holds none of them.

    Where the card knows none of the files, those of the split "train" stand for them.
    """
    try:
        return read_sheets(predictor, index, "train", limit, seed, progress)
    except DataError:
        return None


def _draw_rows(index: DatasetIndex, part: str, seed: int) -> list[int]:
    """Rows in random order, the classes taking turns; unlabelled images are a class of their own."""
    rng = np.random.default_rng(seed)
    labels = index.labels_encoded()
    # Rows of the wanted split come first, so that a large training part need not be hashed to be left out.
    split = index.table["split"].to_numpy()
    wanted = {"held-out": "test"}.get(part, part)
    turns: list[tuple[bool, int, float, int]] = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        for turn, i in enumerate(sorted(own, key=lambda i: split[i] != wanted)):
            turns.append((bool(split[i] != wanted), turn, rng.random(), int(i)))
    return [i for *_, i in sorted(turns)]


def read_defect_mask(index: DatasetIndex, i: int, size: tuple[int, int], grid: tuple[int, ...]) -> Mask | None:
    """Where the defect of a sample is, on the grid; None where nothing tells."""
    if index[i].labels == (CLEAR,):
        return np.zeros(grid, bool)
    mask = index.mask(i)
    if mask is None and (boxes := index.boxes(i)):
        mask = boxes_to_mask(boxes, size).astype(np.uint8)
    if mask is None or mask.shape != size or not mask.any():
        return None
    if mask.shape == grid:
        return np.asarray(mask > 0)
    # Every pixel of the grid that the defect touches.
    return np.asarray(cv2.resize((mask > 0).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) > 0)
