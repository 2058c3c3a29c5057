"""What the readers of one annotation file for many images share: its JSON, and the way from a name to an image."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from steel_core.data.listing import walk
from steel_core.data.spec import SPLITS
from steel_core.errors import DataError

MAX_JSON_BYTES = 1_000_000_000
"""A longer annotation file is refused."""


_FOLDERS = {"annotations", "labels", *SPLITS}


class ImageNames:
    """Finds the image below a root that an annotation means by a name. Nothing outside the root is ever found."""

    def __init__(self, root: Path) -> None:
        self.paths, self.problems = walk(root, depth=4)
        self._all = set(self.paths)
        self._by_name: dict[str, list[str]] = {}
        for path in self.paths:
            self._by_name.setdefault(PurePosixPath(path).name, []).append(path)

    def find(self, name: str, near: str = "") -> str:
        """Path of the image relative to the root.

        It is looked for beside the annotation (`near`, its folder), in `images/`, and anywhere, if the base name is
        there only once.

        Raises:
            DataError: there is none, or there are several.
        """
        name = name.replace("\\", "/")
        for prefix in (f"{near}/" if near else "", "", "images/", f"{near}/images/"):
            if prefix + name in self._all:
                return prefix + name
        found = self._by_name.get(PurePosixPath(name).name, [])
        ending = [path for path in found if f"/{path}".endswith(f"/{name}")] or found
        if len(ending) == 1:
            return ending[0]
        raise DataError(f"there {'is no image' if not found else f'are {len(found)} images'} {name!r}")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is too large, or no JSON; the message says on which line.
    """
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


def json_files(root: Path, start: bytes, keys: re.Pattern[bytes]) -> list[str]:
    """JSON files in `root`, its `annotations/` or the folders of its splits, relative to it.

    Args:
        root: folder to search.
        start: the first byte that is no space.
        keys: what the first 4,096 bytes hold.
    """
    found = []
    for path in walk(root, frozenset({".json"}), 2, lambda name: name.lower() in _FOLDERS)[0]:
        try:
            with (root / path).open("rb") as file:
                head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        except OSError:
            continue
        if head.startswith(start) and keys.search(head):
            found.append(path)
    return found


def split_of(path: str) -> str:
    """The split that the folders or the words of a file name tell, as in train/_annotations.json or val2017.json."""
    words = path.lower().replace("_", "/").replace("-", "/").replace(".", "/").split("/")
    return next((SPLITS[word.rstrip("0123456789")] for word in words if word.rstrip("0123456789") in SPLITS), "")


def class_name(value: Any) -> str:
    """A name that the index can hold; "" if it is none."""
    return " ".join(value.replace("|", " ").replace("=", " ").split()) if isinstance(value, str) else ""


def number(value: Any) -> float:
    """A finite number.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"expected a number, found {str(value)[:40]!r}")
    return float(value)


def plain_name(url: str) -> str:
    """The file name in a URL or path, as Label Studio keeps it."""
    return unquote(url.rpartition("?d=")[2].partition("?")[0])
