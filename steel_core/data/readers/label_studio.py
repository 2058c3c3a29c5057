"""Label Studio's JSON export: a list of tasks, each with an image and annotations in per cent of its size."""

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from steel_core.data.images.read import SUFFIXES
from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.readers.annotation_files import (
    ImageNames,
    build_index,
    clean_class_name,
    find_json_files,
    order_regions,
    parse_number,
    polygon_extent,
    read_json,
)
from steel_core.data.readers.base import READERS, Reader
from steel_core.data.regions import COLUMN, format_regions, pack_brush
from steel_core.errors import DataError
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR

_KEYS = re.compile(rb'"(annotations|completions)"\s*:\s*\[|"data"\s*:\s*\{')
_UPLOAD = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


@READERS.register("label-studio")
class LabelStudioReader(Reader):
    """A JSON export beside the images, or in a folder above them.

    Rectangles (turned ones as polygons), polygons, brush strokes and choices are read. The mask of a damaged stroke is
    refused when it is asked for. Of several annotations the last that was not cancelled counts, or one marked as ground
    truth. An annotation without any region or choice means clear; a task without an annotation, unlabelled.
    """

    priority = 42
    layout = "Label Studio, its JSON export beside the images"

    def matches(self, root: Path) -> bool:
        return root.is_dir() and bool(find_json_files(root, b"[", _KEYS))

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        names = ImageNames(root)
        problems = list(names.problems)
        rows: dict[str, dict[str, Any]] = {}
        classes: set[str] = set()
        for file in find_json_files(root, b"[", _KEYS):
            base, near = PurePosixPath(file).name, file.rpartition("/")[0]
            content = read_json(root / file)
            for place, task in enumerate(content if isinstance(content, list) else [], start=1):
                at = f"{base}, task number {place}"
                try:
                    path = _find_image(task, names, near)
                    if path in rows:
                        raise DataError(f"{PurePosixPath(path).name} is already in another task")
                except DataError as error:
                    problems.append(f"{at}: {error}; left out.")
                    continue
                labels, regions, bad = _parse_annotation(task, at)
                problems += bad
                classes |= {label for label in labels if label != CLEAR}
                rows[path] = {
                    "path": path,
                    "labels": "|".join(labels),
                    "source": root.name,
                    COLUMN: format_regions(regions),
                    "masked": any("box" not in region for region in regions),
                }
        return build_index(root, unknown_spec(root.name), list(rows.values()), sorted(classes), problems)


def _find_image(task: Any, names: ImageNames, near: str) -> str:
    data = task.get("data") if isinstance(task, dict) else None
    texts = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    candidates = [unquote(text.rpartition("?d=")[2].partition("?")[0]) for text in texts]  # paths or URLs
    name = next((name for name in candidates if PurePosixPath(name).suffix.lower() in SUFFIXES), None)
    if name is None:
        raise DataError("expected an image in its data")
    if "://" in name or name.startswith("/"):
        name = PurePosixPath(name).name
    try:
        return names.find(name, near)
    except DataError:
        base = PurePosixPath(name).name
        if _UPLOAD.match(base):
            return names.find(base[9:], near)
        raise


def _parse_annotation(task: dict[str, Any], at: str) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    versions = task.get("annotations", task.get("completions"))
    valid = [
        entry
        for entry in (versions if isinstance(versions, list) else [])
        if isinstance(entry, dict) and not entry.get("was_cancelled") and isinstance(entry.get("result"), list)
    ]
    if not valid:
        return [], [], []
    chosen = next((entry for entry in valid if entry.get("ground_truth")), valid[-1])
    labels: list[str] = []
    sized: list[tuple[float, dict[str, Any]]] = []
    bad: list[str] = []
    for place, result in enumerate(chosen["result"], start=1):
        where = f"{at}, result number {place}"
        try:
            if not isinstance(result, dict) or not isinstance(value := result.get("value"), dict):
                raise DataError("expected an object with a value")
            kind = str(result.get("type"))
            names = list(map(clean_class_name, entries)) if isinstance(entries := value.get(kind), list) else []
            if kind == "choices":
                labels += filter(None, names)
                continue
            if not names or not all(names):
                raise DataError(f"expected a class in its {kind[:40]}")
            sized += [_parse_region(kind, value, name, result, where) for name in names]
        except DataError as error:
            bad.append(f"{where}: {error}; left out.")
    regions, in_image = order_regions(sized)
    labels = list(dict.fromkeys([*in_image, *labels]))
    if not labels and not bad:
        labels = [CLEAR]
    return labels, regions, bad


def _parse_region(
    kind: str, value: dict[str, Any], label: str, result: dict[str, Any], at: str
) -> tuple[float, dict[str, Any]]:
    if kind == "polygonlabels" and isinstance(value.get("points"), list):
        points = [point for point in value["points"] if isinstance(point, list) and len(point) == 2]
        if len(points) < 3 or len(points) < len(value["points"]):
            raise DataError("expected at least 3 corners of x and y")
        corners = [parse_number(part) / 100 for point in points for part in point]
        return polygon_extent(corners), {"label": label, "polygons": [corners], "share": True, "at": at}
    if kind == "brushlabels":
        on = [result.get("original_height"), result.get("original_width")]
        # Its area is not known before it is decoded.
        return 0.0, {"label": label, "brush": pack_brush(value.get("rle")), "on": on, "at": at}
    if kind != "rectanglelabels":
        raise DataError(f"expected rectangles, polygons, brushes or choices, found {kind[:40]!r}")
    x, y, width, height = (parse_number(value.get(key)) / 100 for key in ("x", "y", "width", "height"))
    if width <= 0 or height <= 0:
        raise DataError("expected a width and height above 0")
    if not (angle := math.radians(parse_number(value.get("rotation", 0)))):
        return width * height, {"label": label, "box": [x, y, x + width, y + height], "share": True, "at": at}
    # A rectangle is turned about its top left corner, in pixels, not in shares.
    columns, rows = parse_number(result.get("original_width")), parse_number(result.get("original_height"))
    corners = []
    for right, down in ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height)):
        dx, dy = right * columns, down * rows
        corners += [
            x + (dx * math.cos(angle) - dy * math.sin(angle)) / columns,
            y + (dx * math.sin(angle) + dy * math.cos(angle)) / rows,
        ]
    return width * height, {"label": label, "polygons": [corners], "share": True, "at": at}
