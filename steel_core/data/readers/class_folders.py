"""One folder a class, the layout of torchvision's ImageFolder."""

import re
from pathlib import Path

import pandas as pd

from steel_core.data.index import SPLITS, DatasetIndex, unknown_spec
from steel_core.data.listing import list_files
from steel_core.data.readers.base import READERS, Reader
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR

CLEAR_FOLDERS = frozenset({"clear", "no defect", "good", "ok"})
"""Folders, with spaces for hyphens and underscores and in lower case, whose sheets have no defect."""

# images/train/scratches/1.png, where "images" may stand before or after the split, and both may be missing.
_FOLDERS = re.compile(
    rf"(images/)?((?P<split>{'|'.join(SPLITS)})/)?(images/)?(?P<label>[^/]+)/[^/]+", re.IGNORECASE | re.DOTALL
)
_NO_CLASS = {"images", "masks", "annotations", "labels", "ground truth", *SPLITS}


@READERS.register("class-folders")
class ClassFoldersReader(Reader):
    """`scratches/1.png` or `train/scratches/1.png`, below the folder or its `images/`."""

    priority = 0
    layout = "one folder a class, perhaps within train, val and test"

    def matches(self, root: Path) -> bool:
        return root.is_dir() and any(split_and_label(path) for path in list_files(root, depth=3)[0])

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        paths, problems = list_files(root, depth=3)
        rows = []
        strays: dict[str, int] = {}
        for path in paths:
            if place := split_and_label(path):
                rows.append({"path": path, "labels": place[1], "split": place[0], "source": root.name})
            else:
                folder = path.rpartition("/")[0] or root.name
                strays[folder] = strays.get(folder, 0) + 1
        problems += [
            f"{folder}: {count} images that lie in no folder of a class or in a deeper one; left out."
            for folder, count in strays.items()
        ]
        return DatasetIndex.build(root, unknown_spec(root.name), pd.DataFrame(rows), problems=problems)


def split_and_label(path: str) -> tuple[str, str] | None:
    """Split and label that the folders of an image tell; None where they tell no class."""
    match = _FOLDERS.fullmatch(path)
    if not match or (plain := match["label"].replace("_", " ").replace("-", " ").lower()) in _NO_CLASS:
        return None
    label = CLEAR if plain in CLEAR_FOLDERS else match["label"].replace("|", " ")
    return SPLITS[match["split"].lower()] if match["split"] else "", label
