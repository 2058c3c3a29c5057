"""Images with PNG masks of the same name, such as NEU-Seg."""

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from steel_core.data.annotations import read_mask
from steel_core.data.index import SPLITS, DatasetIndex, DatasetSpec, format_mask_classes, unknown_spec
from steel_core.data.listing import list_files
from steel_core.data.readers.annotation_files import build_index
from steel_core.data.readers.base import READERS, Reader
from steel_core.errors import DataError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, DEFECT

NEU_SEG = DatasetSpec(
    name="neu-seg",
    title="NEU-Seg, pixel masks of NEU images",
    licence="For research only; the images may not be passed on.",
    citation="Y. He, K. Song, Q. Meng, Y. Yan, IEEE Trans. Instrumentation and Measurement 69(4), 2020, 1493-1504.",
    redistributable=False,
)
NEU_SEG_CLASSES = {1: "inclusion", 2: "patches", 3: "scratches"}


@READERS.register("image-masks")
class ImageMasksReader(Reader):
    """`images/1.jpg` with `masks/1.png`; folders train, val and test below both are taken as splits.

    A mask's values are named by `classes.json` beside the two folders ({"1": "inclusion"}), by NEU-Seg's own list
    where the folder's name starts with neu-seg, or else "defect" where all masks hold 0 and 255 alone, and "class 1"
    and so on. An image's labels are the classes in its mask, the largest first; an empty mask means "clear", a missing
    or unreadable one leaves the image unlabelled. Every mask is read once for that; the values are remembered in
    the user's cache (`$STEEL_CACHE`, or `~/.cache/steel-lens`) until a mask changes.
    """

    priority = 30
    layout = "images/ with masks/ of the same names"

    def matches(self, root: Path) -> bool:
        return (root / "images").is_dir() and (root / "masks").is_dir()

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        images, problems = list_files(root / "images")
        masks, more = list_files(root / "masks", frozenset({".png"}))
        problems += more
        by_stem = {_stem(mask): mask for mask in masks}
        values, unread = _read_values(root, masks, progress)
        problems += unread
        present = {value for in_mask in values.values() for value in in_mask}
        names = _read_names(root, present)
        unnamed = present - set(names)
        problems += [f"masks: the value {value} has no name in classes.json." for value in sorted(unnamed)]
        names |= {value: f"class {value}" for value in unnamed}

        cell = format_mask_classes(names)
        rows = []
        for path in images:
            mask = by_stem.pop(_stem(path), "")
            in_mask = values.get(mask)
            if not mask:
                problems.append(f"{PurePosixPath(path).name}: no mask of this name; unlabelled.")
            rows.append(
                {
                    "path": f"images/{path}",
                    "labels": "" if in_mask is None else "|".join(names[value] for value in in_mask) or CLEAR,
                    "split": SPLITS.get(path.lower().split("/")[0], ""),
                    "source": root.name,
                    "mask": mask and f"masks/{mask}",
                    "mask_classes": cell if mask else "",
                }
            )
        problems += [f"{PurePosixPath(mask).name}: no image of this name." for mask in by_stem.values()]
        spec = NEU_SEG if _is_neu_seg(root) else unknown_spec(root.name)
        return build_index(root, spec, rows, [names[value] for value in sorted(names)], problems)


def _read_names(root: Path, values: set[int]) -> dict[int, str]:
    path = root / "classes.json"
    if path.is_file():
        try:
            names = {int(value): name for value, name in json.loads(path.read_text("utf-8")).items()}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(f'{path.name}: expected a JSON object such as {{"1": "inclusion"}}.') from error
        for value, name in names.items():
            if not (1 <= value <= 255 and isinstance(name, str) and name and "|" not in name):
                raise DataError(f"{path.name}: expected values of 1 to 255 with names, found {value}: {name!r}.")
        return names
    if _is_neu_seg(root):
        return dict(NEU_SEG_CLASSES)
    return {255: DEFECT} if values == {255} else {value: f"class {value}" for value in values}


def _read_values(root: Path, masks: list[str], progress: Progress) -> tuple[dict[str, list[int]], list[str]]:
    """The non-zero values in each mask, the most frequent first, and a sentence for each mask that was refused."""
    stats = [(root / "masks" / mask).stat() for mask in masks]
    state = json.dumps([str(root), [[m, s.st_mtime_ns, s.st_size] for m, s in zip(masks, stats, strict=True)]])
    cache = cache_folder() / f"masks-{hashlib.sha256(state.encode()).hexdigest()[:32]}.json"
    try:
        kept = json.loads(cache.read_text("utf-8"))
        return dict(zip(masks, kept["values"], strict=True)), []
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not remembered, or damaged: read the masks

    def read(mask: str) -> list[int] | str:
        try:
            counts = np.bincount(read_mask(root / "masks" / mask).ravel(), minlength=256)
        except DataError as error:
            return f"{error} The image is left unlabelled."
        present = np.flatnonzero(counts[1:]) + 1
        return [int(value) for value in present[np.argsort(-counts[present], kind="stable")]]

    values: dict[str, list[int]] = {}
    problems: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (mask, result) in enumerate(zip(masks, pool.map(read, masks), strict=True), start=1):
            if isinstance(result, str):
                problems.append(result)
            else:
                values[mask] = result
            progress("reading masks", done, len(masks))
    if not problems:
        with contextlib.suppress(UsageError):  # a cache that cannot be written only costs time
            write_bytes(cache, json.dumps({"values": [values[mask] for mask in masks]}).encode())
    return values, problems


def _is_neu_seg(root: Path) -> bool:
    return root.name.lower().replace("_", "-").startswith("neu-seg")


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))
