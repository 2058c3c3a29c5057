"""Severstal: Steel Defect Detection (Kaggle, 2019): strips of 256 x 1600 with run-length masks in train.csv."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from steel_core.data.images.read import image_size
from steel_core.data.index import DatasetIndex, DatasetSpec, format_mask_classes
from steel_core.data.listing import list_files
from steel_core.data.readers.annotation_files import build_index, order_regions
from steel_core.data.readers.base import READERS, Reader
from steel_core.data.readers.text_table import TextTable, read_text_table
from steel_core.data.regions import COLUMN, format_regions, parse_runs
from steel_core.errors import DataError, ImageError
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR

SPEC = DatasetSpec(
    name="severstal",
    title="Severstal: Steel Defect Detection",
    licence="For the Kaggle competition of 2019 and research; the images may not be passed on.",
    citation="PAO Severstal, Kaggle: Severstal Steel Defect Detection, 2019.",
    redistributable=False,
)
TABLE = "train.csv"
_JOINED, _APART = ("imageid_classid", "encodedpixels"), ("imageid", "classid", "encodedpixels")
_FOLDERS = {"train_images", "images", "train"}


@READERS.register("severstal")
class SeverstalReader(Reader):
    """`train.csv` beside `train_images/`, in either of its forms.

    - `ImageId_ClassId,EncodedPixels`: a row for each image and class; an empty one says that this class is absent.
    - `ImageId,ClassId,EncodedPixels`: a row for each mask. If no row is empty, the images that have none are clear, as
      Kaggle's file means it; their number is reported.

    Class 3 is called "defect 3". A bad row is left out and reported; its class still labels the image, if legible,
    and the mask of such an image is refused when it is asked for, because a part of it is unknown.
    """

    priority = 45
    layout = "Severstal, train.csv with ImageId, ClassId and EncodedPixels beside train_images/"

    def matches(self, root: Path) -> bool:
        try:
            with (root / TABLE).open("rb") as file:
                head = file.read(200).replace(b"\0", b"").lower()  # UTF-16 has a zero beside each letter
        except OSError:
            return False
        return b"imageid" in head and b"encodedpixels" in head

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        table = read_text_table(root / TABLE)
        names = tuple(name.lower() for name in table.header)
        if names not in (_JOINED, _APART):
            raise DataError(
                f"{TABLE}, line 1: expected ImageId_ClassId,EncodedPixels or ImageId,ClassId,EncodedPixels, "
                f"found {','.join(table.header)}."
            )
        paths, problems = list_files(root, depth=1, enter=lambda name: name.lower() in _FOLDERS)
        images = {PurePosixPath(path).name: path for path in paths}
        rows = _Rows(table, names == _JOINED, images, root)
        listed_clear = names == _JOINED or rows.empty
        unlisted = [name for name in images if name not in rows.mentioned]
        classes = {number: f"defect {number}" for number in sorted(rows.classes)}
        cell = format_mask_classes(classes)
        records = []
        for name, path in images.items():
            regions, labels = order_regions(rows.sized.get(name, []))
            known = (name in rows.mentioned or not listed_clear) and name not in rows.illegible
            label, values = ("|".join(labels) or CLEAR, cell) if known else ("", "")
            row = {"path": path, "labels": label, "source": SPEC.name, "mask_classes": values}
            records.append(row | {COLUMN: format_regions(regions)})
        if unlisted:
            what = "unlabelled" if listed_clear else "taken as clear, as this form of the table means it"
            problems.append(f"{TABLE}: {len(unlisted):,} images are not in it (the first: {unlisted[0]}); {what}.")
        bad = [*table.bad, *rows.bad]
        if bad:
            problems.append(f"{TABLE}: {len(bad):,} rows are bad and left out, {rows.good:,} are good and kept.")
        return build_index(root, SPEC, records, list(classes.values()), [*table.notes, *problems, *bad])


class _Rows:
    """What the rows say about each image.

    Attributes:
        sized: pixels and region of each mask of an image, bad ones included, so that they are refused and not taken for
            background.
        illegible: images with a row whose class cannot be read.
    """

    def __init__(self, table: TextTable, joined: bool, images: dict[str, str], root: Path) -> None:
        self.sized: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        self.mentioned: set[str] = set()
        self.illegible: set[str] = set()
        self.classes: set[int] = set()
        self.good, self.empty = 0, False
        self.bad: list[str] = []
        self._usual: int | None = None
        self._images, self._root = images, root
        for image, number, runs, at in _split_cells(table, joined):
            self.mentioned.add(image)
            try:
                if not image or image not in images:
                    raise DataError(f"there is no image {image!r}")
                if not (re.fullmatch(r"[0-9]{1,3}", number) and 1 <= int(number) <= 255) and (number or runs):
                    self.illegible.add(image)
                    raise DataError(f"expected a class from 1 to 255, found {number!r}")
                if not runs:
                    self.empty = True
                    self.classes |= {int(number)} if number else set()
                else:
                    self._add_mask(image, int(number), runs, at)
                self.good += 1
            except DataError as error:
                self.bad.append(f"{at}: {error}.")

    def _add_mask(self, image: str, number: int, runs: str, at: str) -> None:
        self.classes.add(number)
        region = {"label": f"defect {number}", "runs": runs, "at": at}
        sized = self.sized.setdefault(image, [])
        sized.append((0, region))
        lengths = parse_runs(runs)
        sized[-1] = (int(lengths[:, 1].sum()), region)
        end = int(lengths[-1].sum()) - 1
        if self._usual is None:
            self._usual = self._count_pixels(image)
        if end > self._usual and end > (pixels := self._count_pixels(image)):
            raise DataError(f"the runs end at pixel {end:,}, past the {pixels:,} pixels of {image}")

    def _count_pixels(self, image: str) -> int:
        """The first image's, and where a mask ends past that; the others are checked when used."""
        try:
            height, width = image_size(self._root / self._images[image])
        except ImageError as error:
            raise DataError(str(error)) from error
        return height * width


def _split_cells(table: TextTable, joined: bool) -> Iterator[tuple[str, str, str, str]]:
    for cells, line in zip(table.rows, table.lines, strict=True):
        *names, runs = (cell.strip() for cell in cells)
        image, number = names[0].rpartition("_")[::2] if joined else names
        yield image, number, runs, f"{TABLE}, line {line}"
