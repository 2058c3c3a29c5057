"""The NEU surface defect database (NEU-CLS), and its boxes (NEU-DET)."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from steel_core.data.images.read import SUFFIXES
from steel_core.data.index import SPLITS, DatasetIndex, DatasetSpec
from steel_core.data.listing import list_files
from steel_core.data.readers.base import READERS, Reader
from steel_core.progress import Progress, no_progress

CODES = {
    "Cr": "crazing",
    "In": "inclusion",
    "Pa": "patches",
    "PS": "pitted surface",
    "RS": "rolled-in scale",
    "Sc": "scratches",
}

SPEC = DatasetSpec(
    name="neu-cls",
    title="NEU surface defect database",
    licence="For research only; the images may not be passed on.",
    citation=(
        "K. Song, Y. Yan, Applied Surface Science 285, 2013, 858-864. "
        "Boxes: Y. He, K. Song, Q. Meng, Y. Yan, IEEE Trans. Instrumentation and Measurement 69(4), 2020, 1493-1504."
    ),
    redistributable=False,
)

# Both spellings of a class in file and folder names: Cr_1.bmp (NEU-CLS) and crazing_1.jpg (NEU-DET), lower case.
_SPELLINGS = {code.lower(): code for code in CODES} | {name.replace(" ", "_"): code for code, name in CODES.items()}
_NAME = re.compile(rf"({'|'.join(_SPELLINGS)})_(\d+)", re.IGNORECASE)
_FOLDERS = {*SPLITS, *_SPELLINGS, *CODES.values()}


@READERS.register("neu")
class NeuReader(Reader):
    """`Cr_1.bmp` or `crazing_1.jpg`, in one folder or `images/`, by split or class or not; boxes in `annotations/`."""

    priority = 40
    layout = "NEU-CLS or NEU-DET, with images such as Cr_1.bmp or crazing_1.jpg in the folder or in images/"

    def matches(self, root: Path) -> bool:
        if not root.is_dir():
            return False
        paths, _ = _list_files(root, "images")
        return sum(_code(path) is not None for path in paths) > 0.9 * len(paths)

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        paths, problems = _list_files(root, "images")
        annotations, more = _list_files(root, "annotations", frozenset({".xml"}))
        boxes = {_key(path): path for path in annotations}
        rows = []
        for path in paths:
            if code := _code(path):
                row = {"path": path, "labels": CODES[code], "split": _split(path), "source": SPEC.name}
                rows.append(row | {"boxes": boxes.get(_key(path), "")})
            else:
                problems.append(f"{PurePosixPath(path).name}: expected a name such as Cr_1 or crazing_1; left out.")
        return DatasetIndex.build(root, SPEC, pd.DataFrame(rows), tuple(CODES.values()), [*problems, *more])


def _list_files(root: Path, folder: str, suffixes: frozenset[str] = SUFFIXES) -> tuple[list[str], list[str]]:
    return list_files(root, suffixes, depth=3, enter=lambda name: name.lower() in {folder, *_FOLDERS})


def _code(path: str) -> str | None:
    match = _NAME.fullmatch(PurePosixPath(path).stem)
    return _SPELLINGS[match[1].lower()] if match else None


def _split(path: str) -> str:
    return next((SPLITS[part] for part in path.lower().split("/")[:-1] if part in SPLITS), "")


def _key(path: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(PurePosixPath(path).stem)
    return (_split(path), _SPELLINGS[match[1].lower()], match[2]) if match else ("", "", path)
