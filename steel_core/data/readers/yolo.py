"""YOLO: a text file for each image with class, centre and size of each box as shares of the picture, and data.yaml."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.listing import list_files
from steel_core.data.readers.annotation_files import (
    build_index,
    clean_class_name,
    order_regions,
    polygon_extent,
    split_from_path,
)
from steel_core.data.readers.base import READERS, Reader
from steel_core.data.regions import COLUMN, format_regions
from steel_core.errors import DataError
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR

_LISTS = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
_MAX_BYTES = 1_000_000


@READERS.register("yolo")
class YoloReader(Reader):
    """`images/train/1.jpg` with `labels/train/1.txt`, or `train/images/1.jpg` with `train/labels/1.txt`.

    Classes are named in `data.yaml` or `classes.txt`. A line holds a class and a box (centre x, y, width, height) or a
    polygon, all as shares. An empty text file means clear; an image without one is unlabelled.
    """

    priority = 43
    layout = "YOLO, data.yaml or classes.txt with images/ and labels/"

    def matches(self, root: Path) -> bool:
        return any((root / name).is_file() for name in _LISTS) and any(root.glob("**/labels"))

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        names = _read_class_names(root)
        images, problems = list_files(root, depth=3)
        texts, more = list_files(root, frozenset({".txt"}), depth=3)
        by_key = {_pair_key(path): path for path in texts if "labels" in path.lower().split("/")}
        rows, bad, missing, good = [], [], [], 0
        for done, image in enumerate(images, start=1):
            text = by_key.get(_pair_key(image))
            split = split_from_path(image.rpartition("/")[0])
            row: dict[str, Any] = {"path": image, "labels": "", "split": split, "source": root.name}
            if text is None:
                missing.append(image)
            else:
                regions, labels, bad_lines = _read_labels(root, text, names)
                bad += bad_lines
                good += len(regions)
                row["labels"] = "|".join(labels) or ("" if bad_lines else CLEAR)
                row |= {COLUMN: format_regions(regions), "masked": any("polygons" in region for region in regions)}
            rows.append(row)
            progress("reading labels", done, len(images))
        if missing:
            problems.append(f"{len(missing):,} images have no text file (the first: {missing[0]}); unlabelled.")
        if bad:
            bad.insert(0, f"{len(bad):,} lines are bad and left out, {good:,} are good and kept.")
        return build_index(root, unknown_spec(root.name), rows, list(names.values()), [*problems, *more, *bad])


def _read_labels(root: Path, text: str, names: dict[int, str]) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    base = PurePosixPath(text).name
    try:
        with (root / text).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "expected a short text in UTF-8"
        return [], [], [f"{base}: cannot be read ({why})."]
    sized: list[tuple[float, dict[str, Any]]] = []
    bad = []
    for line, content in enumerate(lines, start=1):
        if not (words := content.split()):
            continue
        at = f"{base}, line {line}"
        try:
            area, region = _parse_region(words, names)
            sized.append((area, region | {"share": True, "at": at}))
        except (DataError, ValueError) as error:
            why = error if isinstance(error, DataError) else "expected numbers"
            bad.append(f"{at}: {why}; left out.")
    return (*order_regions(sized), bad)


def _parse_region(words: list[str], names: dict[int, str]) -> tuple[float, dict[str, Any]]:
    if not (re.fullmatch(r"[0-9]{1,6}", words[0]) and int(words[0]) in names):
        raise DataError(f"expected a class from 0 to {max(names)}, found {words[0][:20]!r}")
    numbers = [float(word) for word in words[1:]]
    if not all(-0.001 <= value <= 1.001 for value in numbers):
        raise DataError("expected shares from 0 to 1")
    label = names[int(words[0])]
    if len(numbers) == 4:
        x, y, width, height = numbers
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if width <= 0 or height <= 0 or min(corners) < -0.01 or max(corners) > 1.01:
            raise DataError("expected a box with an area, inside the picture")
        return width * height, {"label": label, "box": corners}
    if len(numbers) < 6 or len(numbers) % 2:
        raise DataError(f"expected 4 numbers of a box, or x and y of at least 3 corners, found {len(numbers)}")
    return polygon_extent(numbers), {"label": label, "polygons": [numbers]}


def _read_class_names(root: Path) -> dict[int, str]:
    path = next(root / name for name in _LISTS if (root / name).is_file())
    try:
        text = path.read_text("utf-8-sig")[:_MAX_BYTES]
        content = yaml.safe_load(text) if path.suffix != ".txt" else {"names": text.split("\n")}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path.name}: expected text in UTF-8 with the names of the classes.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise DataError(f"{path.name}: expected names: with a list, or a mapping from numbers, of the classes.")
    cleaned = {key: name for key, value in names.items() if (name := clean_class_name(str(value)))}
    if not cleaned:
        raise DataError(f"{path.name}: expected at least one class.")
    return cleaned


def _pair_key(path: str) -> str:
    parts = [part for part in PurePosixPath(path).with_suffix("").parts if part.lower() not in ("images", "labels")]
    return "/".join(parts)
