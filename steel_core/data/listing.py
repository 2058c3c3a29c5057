"""Files below a folder that was handed over: what may be opened, and what is left out."""

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from steel_core.data.images.read import SUFFIXES

# Control characters, backslashes (a separator on Windows) and bytes that are not valid UTF-8.
_UNKEEPABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


def list_files(
    root: Path, suffixes: frozenset[str] = SUFFIXES, depth: int = 2, enter: Callable[[str], bool] | None = None
) -> tuple[list[str], list[str]]:
    """Files below `root` with one of the endings, in any case, sorted; and one sentence for each entry left out.

    Paths are relative, with "/" between their parts. Hidden entries are passed over. A link that leads out of `root`, a
    linked folder, and a name that is not valid Unicode are left out: a data set that was handed over must not reach
    other files of the machine. `depth` levels of folders are entered, those that `enter` takes by their base name.
    """
    inside = os.path.realpath(root) + os.sep
    paths: list[str] = []
    problems: list[str] = []

    def visit(folder: Path | str, prefix: str, levels: int) -> None:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            problems.append(f"{prefix or root.name}: cannot be listed ({error.strerror}).")
            return
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            wanted = name[name.rfind(".") :].lower() in suffixes  # a Path for each file would take half the time
            if entry.is_symlink() and (
                entry.is_dir() or (wanted and not os.path.realpath(entry.path).startswith(inside))
            ):
                problems.append(f"{prefix}{name!a}: a link to a folder, or out of the data set's folder; left out.")
            elif entry.is_dir():
                if levels and (enter is None or enter(name)):
                    visit(entry.path, f"{prefix}{name}/", levels - 1)
            elif wanted and entry.is_file():
                if _UNKEEPABLE.search(prefix + name):
                    problems.append(f"{prefix}{name!a}: the name holds characters that cannot be kept; left out.")
                else:
                    paths.append(prefix + name)

    visit(root, "", depth)
    return sorted(paths), problems


def is_inside(root: str, path: str) -> bool:
    """Whether a relative path stays in the real folder `root`, links followed; remembered until `forget_folders`."""
    folder, _, _ = path.rpartition("/")
    if not _folder_inside(root, folder) or path.startswith(("/", "\\")) or path.endswith("/.."):
        return False
    full = f"{root}/{path}"
    return not os.path.islink(full) or os.path.realpath(full).startswith(f"{root.rstrip(os.sep)}{os.sep}")  # noqa: PTH114


@lru_cache(maxsize=100_000)
def _folder_inside(root: str, folder: str) -> bool:
    real = os.path.realpath(f"{root}/{folder}")
    return real == root or real.startswith(f"{root.rstrip(os.sep)}{os.sep}")


def forget_folders() -> None:
    """Look at each folder anew, as its links may have changed since."""
    _folder_inside.cache_clear()
