"""What the readers of annotation files share: JSON, the way from a name to an image, regions in order, the index."""

import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from steel_core.data.index import SPLITS, DatasetIndex, DatasetSpec, format_mask_classes
from steel_core.data.listing import list_files
from steel_core.errors import DataError
from steel_core.types import CLEAR

MAX_JSON_BYTES = 1_000_000_000

_FOLDERS = {"annotations", "labels", *SPLITS}


class ImageNames:
    """Finds the image below a root that an annotation means by a name. Nothing outside the root is ever found."""

    def __init__(self, root: Path) -> None:
        self.paths, self.problems = list_files(root, depth=4)
        self._all = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        for path in self.paths:
            self._by_name.setdefault(PurePosixPath(path).name, []).append(path)

    def find(self, name: str, near: str = "") -> str:
        """Path of the image relative to the root: in `near`, `images/`, or anywhere, if its name is there only once.

        A DataError says that there is none, or that there are several.
        """
        name = name.replace("\\", "/")
        for prefix in (f"{near}/" if near else "", "", "images/", f"{near}/images/"):
            if prefix + name in self._all:
                return prefix + name
        same_name = self._by_name.get(PurePosixPath(name).name, [])
        ending = [path for path in same_name if f"/{path}".endswith(f"/{name}")] or same_name
        if len(ending) == 1:
            return ending[0]
        raise DataError(f"there {f'are {len(same_name)} images' if same_name else 'is no image'} {name!r}")


def read_json(path: Path) -> Any:
    """What a JSON file holds; a DataError if it is too large, or no JSON, which says on which line."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path.name}: expected at most {MAX_JSON_BYTES // 10**6} MB.")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror}).") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name}, line {error.lineno}: not well-formed JSON.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not well-formed JSON.") from error


def find_json_files(root: Path, start: bytes, keys: re.Pattern[bytes]) -> list[str]:
    """JSON files in `root`, its `annotations/` or its split folders, by their first byte and what 4,096 hold."""
    matching = []
    for path in list_files(root, frozenset({".json"}), 2, lambda name: name.lower() in _FOLDERS)[0]:
        try:
            with (root / path).open("rb") as file:
                head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        except OSError:
            continue
        if head.startswith(start) and keys.search(head):
            matching.append(path)
    return matching


def split_from_path(path: str) -> str:
    """The split that the folders or the words of a file name tell, as in train/_annotations.json or val2017.json."""
    words = path.lower().replace("_", "/").replace("-", "/").replace(".", "/").split("/")
    return next((SPLITS[word.rstrip("0123456789")] for word in words if word.rstrip("0123456789") in SPLITS), "")


def clean_class_name(value: Any) -> str:
    """A name that the index can hold; "" if it is none."""
    return " ".join(value.replace("|", " ").replace("=", " ").split()) if isinstance(value, str) else ""


def parse_number(value: Any) -> float:
    """A finite number; a DataError if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"expected a number, found {str(value)[:40]!r}")
    return float(value)


def order_regions(sized: Sequence[tuple[float, dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The regions of one image from pairs with their areas, the largest first, and their labels in that order."""
    regions = [region for _, region in sorted(sized, key=lambda pair: -pair[0])]
    return regions, list(dict.fromkeys(region["label"] for region in regions))


def polygon_extent(corners: Sequence[float]) -> float:
    """Area of the box around a polygon x, y, x, y ...; for the order of the labels."""
    xs, ys = corners[::2], corners[1::2]
    return (max(xs) - min(xs)) * (max(ys) - min(ys))


def build_index(
    root: Path, spec: DatasetSpec, rows: Sequence[dict[str, Any]], classes: Collection[str], problems: Sequence[str]
) -> DatasetIndex:
    """The index of rows whose classes are known; "clear" comes first where a row is labelled so and they lack it.

    A row that is `masked` gets mask classes that number the classes from 1; a mask has room for 255 of them.
    """
    cell = format_mask_classes({value: name for value, name in enumerate(classes, start=1) if value < 256})
    for row in rows:
        if row.pop("masked", False):
            row["mask_classes"] = cell
    has_clear = any(row["labels"] == CLEAR for row in rows)
    in_order = list(dict.fromkeys([*([CLEAR] if has_clear else []), *classes]))
    return DatasetIndex.build(root, spec, pd.DataFrame(rows), in_order, problems)
