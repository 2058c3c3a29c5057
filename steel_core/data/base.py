"""The facts of a data set, and the registry of the readers that recognise one by its folder."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steel_core.data.pixels import SUFFIXES
from steel_core.registry import Registry

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex

Progress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words for a split in folder names and manifests, and what each means."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What a data set is and what may be done with it.

    Attributes:
        name: short name for files and URLs.
        title: name for people.
        licence: what its licence allows, in one sentence.
        citation: how to cite it.
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


class Reader(ABC):
    """Recognises one layout of a data set and lists its samples without reading their pixels."""

    priority: int = 0
    """Readers are asked in falling order of priority; the more specific layout first."""

    layout: str = ""
    """The layout in one clause, for the message that says which ones are known."""

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether `root` looks like this layout."""

    @abstractmethod
    def read(self, root: Path, progress: Progress | None = None) -> DatasetIndex:
        """The index of the samples below `root`. Nothing is written there.

        Raises:
            DataError: the layout matches but holds something that cannot be read.
        """


READERS: Registry[type[Reader]] = Registry("reader", "steel_core.data.readers")


def cache_folder() -> Path:
    """Where things are remembered that can be computed again: `$STEEL_CACHE`, or `~/.cache/steel-lens`."""
    return Path(os.environ.get("STEEL_CACHE") or Path.home() / ".cache" / "steel-lens")


# Control characters, backslashes (a separator on Windows) and bytes that are not valid UTF-8.
_UNKEEPABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


def walk(
    root: Path, suffixes: frozenset[str] = SUFFIXES, depth: int = 2, enter: Callable[[str], bool] | None = None
) -> tuple[list[str], list[str]]:
    """Files below `root` with one of the endings, in any case. Hidden entries are passed over.

    A link that leads out of `root`, a linked folder, and a name that is not valid Unicode are left out and reported:
    a data set that was handed over must not reach other files of the machine.

    Args:
        root: folder to list.
        suffixes: endings in lower case.
        depth: how many levels of folders are entered.
        enter: whether to enter a folder of this base name; all, if not given.

    Returns:
        Paths relative to `root`, with "/" between their parts, sorted; and one sentence for each entry left out.
    """
    inside = os.path.realpath(root) + os.sep
    found: list[str] = []
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
                    found.append(prefix + name)

    visit(root, "", depth)
    return sorted(found), problems
