"""One type of index for every data set: a table of relative paths and labels, read from any known layout."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from steel_core.data import regions
from steel_core.data.annotations import read_boxes, read_mask
from steel_core.data.images.read import image_size, read_image
from steel_core.data.listing import is_inside
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, DEFECT, BoolArray, Box, Int64Array, Sample, SteelImage, UInt8Array

COLUMNS = ("path", "labels", "split", "group", "source", "boxes", "mask", "mask_classes")
"""The columns every index has, in this order; all hold text, "" where there is nothing to say.

path: image, relative to the root, with "/" between its parts. labels: class names joined by "|", the largest defect
first where the layout tells. group: samples of one group never lie in two splits. boxes, mask: annotation files,
relative to the root. mask_classes: what the mask's values mean, as in "1=inclusion|2=patches". A further column
"regions" holds annotations that stand in a table; see `steel_core.data.regions`.
"""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words for a split in folder names and manifests, and what each means."""

_JOINED = 100_000  # cells that are hashed at a time

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What a data set is and what may be done with it.

    Attributes:
        redistributable: whether its images may be copied into a checkpoint or a report that is passed on.
    """

    name: str
    title: str
    licence: str
    citation: str
    redistributable: bool


def unknown_spec(name: str) -> DatasetSpec:
    """The facts of a data set that states none: its licence is unknown, so its images are not passed on."""
    return DatasetSpec(name, name, "Not stated; ask the owner of the images.", "", redistributable=False)


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """The samples of a data set. Images, boxes and masks are read when they are asked for.

    What reads them raises an ImageError for a picture that is refused, and a DataError for a path outside `root`, a
    file or a mask that cannot be read, or a region that is wrong.

    Attributes:
        root: absolute folder that the table's paths start from.
        classes: every class, in the order of a classifier's outputs.
        table: one row a sample, with `COLUMNS` first and the layout's further columns after them; all text. It is
            shared between indexes: never change it in place.
        problems: one sentence for each file or row that was left out or looks wrong.
    """

    root: Path
    spec: DatasetSpec
    classes: tuple[str, ...]
    table: pd.DataFrame
    problems: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        root: Path,
        spec: DatasetSpec,
        table: pd.DataFrame,
        classes: Sequence[str] | None = None,
        problems: Sequence[str] = (),
    ) -> DatasetIndex:
        """The index of a table that has at least the column "path"; the other columns are filled in.

        `classes` are in the order of a classifier's outputs; the labels that occur, sorted, if not given. A label
        that is not among them raises a DataError.
        """
        columns = [*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]
        table = table.reset_index(drop=True).reindex(columns=columns, fill_value="")
        text = pd.Series([""], dtype=str).dtype
        for name in columns:  # a column that is text already is not copied: it may have a million rows
            if table[name].dtype != text or table[name].hasnans:
                table[name] = table[name].fillna("").astype(str)
        present = {label for cell in table["labels"].unique() for label in cell.split("|")} - {""}
        if classes is None:
            classes = sorted(present)
        if unknown := sorted(present - set(classes)):
            raise DataError(
                f"{spec.name}: expected the classes {', '.join(classes)}; the labels also hold {', '.join(unknown)}."
            )
        leaks = [f"Group {name!r} lies in more than one split; its samples leak." for name in _straddling(table)]
        return cls(Path(os.path.realpath(root)), spec, tuple(classes), table, (*problems, *leaks))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Sample:
        return self._make_sample([self.table[name].iloc[i] for name in COLUMNS])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._make_sample, zip(*(self.table[name] for name in COLUMNS), strict=True))

    def select(self, rows: Sequence[int] | npt.ArrayLike) -> DatasetIndex:
        """The samples of these row numbers, in this order, or those marked by one boolean for each row."""
        picked = np.asarray(rows)
        table = self.table.iloc[picked if picked.dtype == np.bool_ else picked.astype(np.intp)]
        return dataclasses.replace(self, table=table.reset_index(drop=True))

    def binary(self) -> DatasetIndex:
        """The same samples labelled "clear" or "defect"; unlabelled ones stay so."""
        labels = self.table["labels"]
        table = self.table.assign(
            labels=labels.where(labels.isin(["", CLEAR]), DEFECT),
            mask_classes=self.table["mask_classes"].str.replace(r"=[^|]*", f"={DEFECT}", regex=True),
        )
        if regions.COLUMN in table:
            table[regions.COLUMN] = regions.replace_labels(table[regions.COLUMN], DEFECT)
        return dataclasses.replace(self, classes=(CLEAR, DEFECT), table=table)

    def with_splits(self, splits: Sequence[str] | npt.ArrayLike) -> DatasetIndex:
        """The same samples with the split of each replaced: train, val, test or "". DataError: a group is parted."""
        table = self.table.assign(split=pd.Series(np.asarray(splits), dtype=str))
        if len(np.asarray(splits)) != len(self) or not table["split"].isin([*SPLITS.values(), ""]).all():
            raise UsageError(f"expected train, val, test or nothing for each of {len(self)} samples.")
        if straddling := _straddling(table):
            raise DataError(f"group {straddling[0]!r} would lie in more than one split; keep it together.")
        return dataclasses.replace(self, table=table)

    def without_splits(self) -> DatasetIndex:
        return dataclasses.replace(self, table=self.table.assign(split=""))

    def with_groups(self, groups: Sequence[str] | npt.ArrayLike) -> DatasetIndex:
        """The same samples with the group of each replaced; "" for a sample that is a group of its own."""
        if len(np.asarray(groups)) != len(self):
            raise UsageError(f"expected one group name for each of {len(self)} samples.")
        return dataclasses.replace(self, table=self.table.assign(group=pd.Series(np.asarray(groups), dtype=str)))

    def leaking_groups(self) -> list[str]:
        return _straddling(self.table)

    def labels_encoded(self) -> Int64Array:
        """(N,) number of each sample's first label in `classes`; -1 where unlabelled. N samples."""
        first = self.table["labels"].str.partition("|")[0] if len(self) else self.table["labels"]
        return pd.Index(list(self.classes), dtype=str).get_indexer(pd.Index(first)).astype(np.int64)

    def path(self, i: int) -> Path:
        return self._checked_path(self.table["path"].array[i])

    def image(self, i: int) -> SteelImage:
        return read_image(self.path(i))

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of the picture of sample `i` in pixels, from its header."""
        return image_size(self.path(i))

    def boxes(self, i: int) -> list[Box]:
        """The sound boxes of sample `i`; what is wrong with the others is logged, and listed by `check_boxes`."""
        boxes, problems = self._read_boxes(i)
        for problem in problems:
            _log.warning(problem)
        return boxes

    def check_boxes(self, progress: Progress = no_progress) -> list[str]:
        """Reads every annotation with boxes; one sentence, with file and line, for each that is wrong."""
        problems: list[str] = []
        for i in range(len(self)):
            problems += self._read_boxes(i)[1]
            progress("reading boxes", i + 1, len(self))
        return problems

    def mask(self, i: int) -> UInt8Array | None:
        """(H, W) class number (of `Sample.mask_classes`) of each pixel, 0 where nothing is; None without a mask.

        Where the masks of two classes overlap, which only `masks` tells in full, the smaller lies on top.
        """
        sample = self[i]
        if sample.mask:
            return read_mask(sample.mask)
        layers = self._decode_masks(i)
        if layers is None:
            return None
        numbers = {label: value for value, label in sample.mask_classes.items()}
        painted = np.zeros(self.size(i), dtype=np.uint8)
        for label, layer in sorted(layers.items(), key=lambda item: -int(item[1].sum())):
            painted[layer] = numbers[label]
        return painted

    def masks(self, i: int) -> dict[str, BoolArray]:
        """The exact mask (H, W) of each class that sample `i` has one of; they may overlap."""
        sample = self[i]
        if not sample.mask:
            return self._decode_masks(i) or {}
        numbers = read_mask(sample.mask)
        masks: dict[str, BoolArray] = {}
        for value in np.unique(numbers[numbers > 0]).tolist():
            label = sample.mask_classes.get(value, f"class {value}")
            masks[label] = (numbers == value) | masks.get(label, np.bool_(False))
        return masks

    @cached_property
    def hash(self) -> str:
        """SHA-256 of classes and table, not of the files (`content_hash`); the same wherever the data lie."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for name in self.table.columns:
            digest.update(f"\1{name}\0".encode())
            for start in range(0, len(self), _JOINED):
                cells = pa.array(self.table[name].iloc[start : start + _JOINED], pa.string())
                whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(cells)], pa.int32()), cells), "\0")
                digest.update((b"\0" if start else b"") + whole[0].as_py().encode())
        return digest.hexdigest()

    def file_hashes(self, progress: Progress = no_progress) -> list[str]:
        """SHA-256 of the bytes of each image, in hexadecimal."""
        hashes: list[str] = []
        for path in self.table["path"]:
            try:
                with (self.root / path).open("rb") as file:
                    hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
            except OSError as error:
                raise DataError(f"{Path(path).name}: cannot be read ({error.strerror}).") from error
            progress("hashing files", len(hashes), len(self))
        return hashes

    def content_hash(self, progress: Progress = no_progress) -> str:
        """SHA-256 of `hash` and the bytes of all images, in hexadecimal."""
        return hashlib.sha256("\n".join([self.hash, *self.file_hashes(progress)]).encode()).hexdigest()

    def _make_sample(self, cells: Sequence[str]) -> Sample:
        path, labels, split, group, source, boxes, mask, mask_classes = cells
        return Sample(
            path=self._checked_path(path),
            labels=tuple(labels.split("|")) if labels else (),
            split=split,
            group=group,
            source=source,
            boxes=self.root / boxes if boxes else None,
            mask=self.root / mask if mask else None,
            mask_classes=parse_mask_classes(mask_classes),
        )

    def _checked_path(self, path: str) -> Path:
        if not is_inside(str(self.root), path):
            name = path.rpartition("/")[2]
            raise DataError(f"{name}: a path or a link that leads out of the folder of the data set.")
        return self.root / path

    def _cell(self, i: int) -> str:
        return str(self.table[regions.COLUMN].iloc[i]) if regions.COLUMN in self.table else ""

    def _decode_masks(self, i: int) -> dict[str, BoolArray] | None:
        """Empty for a clear sheet among masks, None where there can be none."""
        cell, sample = self._cell(i), self[i]
        if not sample.mask_classes or not (cell or sample.labels == (CLEAR,)):
            return None
        layers, problems = regions.decode_masks(cell, self.size(i)) if cell else ({}, [])
        if problems:  # a mask with a hole would call defects clear
            raise DataError(problems[0])
        return layers

    def _read_boxes(self, i: int) -> tuple[list[Box], list[str]]:
        path = self[i].boxes
        if path is None:
            try:
                cell = self._cell(i)
                return regions.parse_boxes(cell, self.size(i)) if cell else ([], [])
            except (DataError, ImageError) as error:
                return [], [str(error)]
        if self.classes != (CLEAR, DEFECT):
            return read_boxes(path, self.classes)
        boxes, problems = read_boxes(path)
        return [dataclasses.replace(box, label=DEFECT) for box in boxes], problems


def parse_mask_classes(cell: str) -> dict[int, str]:
    """What "1=inclusion|2=patches" says; a DataError if it is not of that form, or a value is not within 1 to 255."""
    classes: dict[int, str] = {}
    for part in filter(None, cell.split("|")):
        value, separator, label = part.partition("=")
        if not (separator and label and value.isdecimal() and 1 <= int(value) <= 255):
            raise DataError(f"mask_classes {cell!r}: expected 1 to 255 with names, as in 1=inclusion|2=patches.")
        classes[int(value)] = label
    return classes


def format_mask_classes(classes: dict[int, str]) -> str:
    """The cell that `parse_mask_classes` reads."""
    return "|".join(f"{value}={label}" for value, label in sorted(classes.items()))


def _straddling(table: pd.DataFrame) -> list[str]:
    placed = table.loc[(table["group"] != "") & (table["split"] != ""), ["group", "split"]].drop_duplicates()
    return sorted(placed["group"][placed["group"].duplicated()].unique())
