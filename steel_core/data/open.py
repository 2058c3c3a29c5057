"""Open a data set by the layout of its folder, and tell what it holds."""

import os
from pathlib import Path
from typing import Any

from steel_core.data import regions
from steel_core.data.index import DatasetIndex
from steel_core.data.readers.base import READERS
from steel_core.errors import DataError
from steel_core.progress import Progress, no_progress


def open_dataset(root: Path | str, progress: Progress = no_progress) -> DatasetIndex:
    """The index of the data set in a folder, or of a manifest file, whatever its layout.

    The readers are asked in falling order of priority; the first that recognises the layout reads it. A folder named
    "images" beside masks or annotations stands for its parent. No pixels are read, except that labels which only
    masks tell are taken from the masks at the first opening, and remembered in the user's cache.

    Raises:
        DataError: nothing is there, or no reader recognises it; the message lists the layouts that are known.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root.name}: no such folder or file.")
    root = Path(os.path.realpath(root))
    if root.name.lower() == "images" and any((root.parent / beside).is_dir() for beside in ("annotations", "masks")):
        root = root.parent
    readers = sorted((READERS[name]() for name in READERS), key=lambda reader: -reader.priority)
    for reader in readers:
        if reader.matches(root):
            index = reader.read(root, progress)
            if not len(index):
                raise DataError(" ".join([f"{root.name}: expected at least one image.", *index.problems[:3]]))
            return index
    layouts = "; ".join(reader.layout for reader in readers)
    instead = "an empty folder" if root.is_dir() and not any(root.iterdir()) else "none of them"
    raise DataError(f"{root.name}: expected one of these layouts: {layouts}. Found {instead}.")


def find_datasets(place: Path) -> list[Path]:
    """The data sets that a person means by one path: those in its folders, or the one that it is itself."""
    readers = [READERS[name]() for name in READERS]
    if not place.is_dir():
        return [place] if place.is_file() else []
    folders = [folder for folder in sorted(place.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    inside = [folder for folder in folders if any(reader.matches(folder) for reader in readers)]
    # A data set whose folders could be read by themselves, as NEU's images or its train and validation, is one.
    whole = any(reader.matches(place) and all(reader.matches(folder) for folder in inside) for reader in readers)
    return [place] if whole else inside


def describe_dataset(index: DatasetIndex) -> dict[str, Any]:
    """Title, licence, counts by label ("" is none; each of several counts), split, source, boxes and masks."""
    table = index.table
    labels = table["labels"].str.split("|").explode().value_counts()
    cells = table[regions.COLUMN] if regions.COLUMN in table else table["mask"].where(table["mask"] == "", "")
    has_box, has_mask = (cells.str.contains(key, regex=True) for key in ('"box": ', '"(?:runs|polygons)": '))
    return {
        "name": index.spec.name,
        "title": index.spec.title,
        "licence": index.spec.licence,
        "citation": index.spec.citation,
        "n": len(index),
        "classes": list(index.classes),
        "labels": {str(name): int(count) for name, count in labels.sort_index().items()},
        "splits": {str(name): int(count) for name, count in table["split"].value_counts().sort_index().items()},
        "groups": int(table["group"].replace("", None).nunique()),
        "sources": {str(name): int(count) for name, count in table["source"].value_counts().sort_index().items()},
        "with_boxes": int(((table["boxes"] != "") | has_box).sum()),
        "with_masks": int(((table["mask"] != "") | has_mask).sum()),
        "hash": index.hash,
        "problems": list(index.problems),
    }
