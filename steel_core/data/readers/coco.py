"""COCO (T.-Y. Lin et al., ECCV 2014), read and written without pycocotools: it keeps no account of bad annotations."""

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.readers.annotation_files import (
    ImageNames,
    build_index,
    clean_class_name,
    find_json_files,
    order_regions,
    parse_number,
    read_json,
    split_from_path,
)
from steel_core.data.readers.base import READERS, Reader
from steel_core.data.regions import COLUMN, encode_runs, format_regions, format_runs
from steel_core.errors import DataError, ImageError
from steel_core.files import write_bytes
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, Mask, RunLengths

_LISTS = ("images", "annotations", "categories")
_KEYS = re.compile(rb'"(images|annotations|categories|licenses)"\s*:\s*\[')


@READERS.register("coco")
class CocoReader(Reader):
    """One or more files with images, annotations and categories, such as `annotations/instances_train2017.json`.

    Boxes, polygons and run-length masks (lists and compressed texts) are understood; a region with a mask keeps the
    mask alone. An image that is listed without annotations is clear, as COCO means it; their number is reported.
    """

    priority = 44
    layout = "COCO, a JSON file with images, annotations and categories beside the images"

    def matches(self, root: Path) -> bool:
        return root.is_dir() and bool(find_json_files(root, b"{", _KEYS))

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        names = ImageNames(root)
        problems = list(names.problems)
        rows: dict[str, dict[str, Any]] = {}
        classes: dict[str, None] = {}
        for file in find_json_files(root, b"{", _KEYS):
            try:
                file_rows, labels, bad = _read_file(root, file, names)
            except DataError as error:
                problems.append(str(error))
                continue
            classes |= dict.fromkeys(labels)
            problems += bad
            for path, row in file_rows.items():
                if path in rows:
                    problems.append(f"{PurePosixPath(file).name}: {PurePosixPath(path).name} is already in another.")
                else:
                    rows[path] = row
        if clear := [row["path"] for row in rows.values() if row["labels"] == CLEAR]:
            problems.append(f"{len(clear):,} images have no annotation (the first: {clear[0]}); taken as clear.")
        return build_index(root, unknown_spec(root.name), list(rows.values()), classes, problems)


def _read_file(root: Path, file: str, names: ImageNames) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
    base, near = PurePosixPath(file).name, file.rpartition("/")[0]
    content = read_json(root / file)
    lists = [entries for key in _LISTS if isinstance(content, dict) and isinstance(entries := content.get(key), list)]
    if len(lists) < len(_LISTS):
        raise DataError(f"{base}: expected lists of images, annotations and categories.")
    images, annotations, categories = lists
    labels = {
        entry["id"]: clean_class_name(entry.get("name"))
        for entry in categories
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and clean_class_name(entry.get("name"))
    }
    paths: dict[int, str] = {}
    regions: dict[int, list[tuple[float, dict[str, Any]]]] = {}
    unknown: set[int] = set()
    bad: list[str] = []
    for place, entry in enumerate(images, start=1):
        try:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int) or entry["id"] in paths:
                raise DataError("expected an id of its own")
            paths[entry["id"]] = names.find(str(entry.get("file_name")), near)
            regions[entry["id"]] = []
        except DataError as error:
            bad.append(f"{base}, image number {place}: {error}; left out.")
    good = 0
    for place, entry in enumerate(annotations, start=1):
        at = f"{base}, annotation number {place}"
        image = entry.get("image_id") if isinstance(entry, dict) else None
        try:
            if not isinstance(image, int) or image not in paths:
                raise DataError(f"there is no image of the id {image!r}")
            unknown.add(image)  # until the annotation is understood
            if entry.get("category_id") not in labels:
                raise DataError(f"there is no category of the id {entry.get('category_id')!r}")
            area, region = _parse_region(entry)
            regions[image].append((area, {"label": labels[entry["category_id"]], **region, "at": at}))
            unknown.discard(image)
            good += 1
        except DataError as error:
            bad.append(f"{at}: {error}; left out.")
    if bad:
        bad.insert(0, f"{base}: {len(bad):,} entries are bad and left out, {good:,} annotations are good and kept.")
    rows = {}
    for key, path in paths.items():
        ordered, in_image = order_regions(regions[key])
        rows[path] = {
            "path": path,
            "labels": "|".join(in_image) or ("" if key in unknown else CLEAR),
            "split": split_from_path(file),
            "source": root.name,
            COLUMN: format_regions(ordered),
            "masked": any("box" not in region for region in ordered),
        }
    return rows, list(labels.values()), bad


def _parse_region(entry: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Area, for the order of the labels, and the box, polygons or runs."""
    mask = entry.get("segmentation")
    if isinstance(mask, dict):
        runs = decode_coco_counts(mask.get("counts"))
        if not len(runs):
            raise DataError("its mask is empty")
        return float(runs[:, 1].sum()), {"runs": format_runs(runs)}
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        if not mask:
            raise DataError("expected a bbox of x, y, width, height, or a segmentation")
        box = [0, 0, 0, 0]
    x, y, width, height = map(parse_number, box)
    if mask:
        if not isinstance(mask, list) or not all(isinstance(part, list) and len(part) >= 6 for part in mask):
            raise DataError("expected polygons of at least 3 corners")
        return width * height, {"polygons": [[parse_number(value) for value in part] for part in mask]}
    if width <= 0 or height <= 0:
        raise DataError(f"expected a width and height above 0, found {width:g} x {height:g}")
    return width * height, {"box": [x, y, x + width, y + height]}


def decode_coco_counts(counts: Any) -> RunLengths:
    """(R, 2) runs, counted from 1, of COCO's counts of pixels off, on, off ... down the columns.

    Counts are a list, or a text of 5 bits a character, least significant first, each count from the third on as the
    difference from the one two before (pycocotools, maskApi.c, rleToString). A DataError says that they are malformed.
    """
    if isinstance(counts, str):
        values: list[int] = []
        value = shift = 0
        for character in counts:
            bits = ord(character) - 48
            if not 0 <= bits < 64 or shift > 40:
                raise DataError("its run-length text is malformed")
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                value -= (1 << shift) if bits & 16 else 0
                values.append(value + (values[-2] if len(values) > 2 else 0))
                value = shift = 0
        if shift:
            raise DataError("its run-length text breaks off")
        counts = values
    if not isinstance(counts, list) or not all(isinstance(count, int) and 0 <= count < 2**40 for count in counts):
        raise DataError("expected run lengths of whole numbers from 0 upwards")
    edges = np.cumsum(np.array([*counts, *([] if len(counts) % 2 == 0 else [0])], dtype=np.int64)).reshape(-1, 2)
    runs = np.stack([edges[:, 0] + 1, edges[:, 1] - edges[:, 0]], axis=1)
    return runs[runs[:, 1] > 0]


def write_coco(index: DatasetIndex, path: Path, progress: Progress = no_progress) -> list[str]:
    """Writes images, boxes and masks as one COCO file. Categories are the classes but "clear", numbered from 1.

    A class of which an image has a mask is written as one annotation with run lengths; the others with their boxes. An
    image with a label without either is left out, because COCO would mean "nothing there"; so are unlabelled and
    refused images. Returns one sentence for each image that was left out.
    """
    names = [name for name in index.classes if name != CLEAR]
    numbers = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    left_out: list[str] = []
    to_root = os.path.relpath(index.root, os.path.realpath(path.parent))
    for i, sample in enumerate(index):
        try:
            height, width = index.size(i)
            shapes = [(label, _mask_to_coco(mask)) for label, mask in index.masks(i).items() if mask.any()]
            masked = {label for label, _ in shapes}
            shapes += [
                (box.label, {"bbox": [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin]})
                for box in index.boxes(i)
                if box.label not in masked
            ]
            if not sample.labels:
                raise DataError("unlabelled")
            if nowhere := set(sample.labels) - {label for label, _ in shapes} - {CLEAR}:
                raise DataError(f"it is not known where {', '.join(sorted(nowhere))} lies")
        except (ImageError, DataError) as error:
            left_out.append(f"{sample.path.name}: {error}; left out.")
            continue
        name = os.path.normpath(f"{to_root}/{index.table['path'].iloc[i]}").replace(os.sep, "/")
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        for label, shape in shapes:
            _, _, w, h = shape["bbox"]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": len(images), "category_id": numbers[label]}
                | {"iscrowd": int("segmentation" in shape), "area": w * h}
                | shape
            )
        progress("writing", i + 1, len(index))
    content = {
        "info": {"description": index.spec.title, "url": "", "contributor": index.spec.citation},
        "licenses": [{"id": 1, "name": index.spec.licence, "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    write_bytes(path, json.dumps(content, ensure_ascii=False).encode())
    return left_out


def _mask_to_coco(mask: Mask) -> dict[str, Any]:
    runs = encode_runs(mask)
    edges = np.stack([runs[:, 0] - 1, runs.sum(axis=1) - 1], axis=1).ravel()
    segmentation = {"counts": np.diff([0, *edges, mask.size]).tolist(), "size": list(mask.shape)}
    box = list(cv2.boundingRect(mask.astype(np.uint8)))
    return {"segmentation": segmentation, "bbox": box, "area": int(mask.sum())}
