"""An index as COCO, for the tools of others. As a manifest: `steel_core.data.manifest.write_manifest`."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from steel_core.data.index import DatasetIndex
from steel_core.data.regions import encode_runs
from steel_core.errors import DataError, ImageError
from steel_core.files import write_bytes
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, Mask


def write_coco(index: DatasetIndex, path: Path, progress: Progress = no_progress) -> list[str]:
    """Writes images, boxes and masks as one COCO file. Categories are the classes but "clear", numbered from 1.

    A class of which an image has a mask is written as one annotation with run lengths; the others with their boxes. An
    image with a label without either is left out, because COCO would mean "nothing there"; so are unlabelled and
    refused images. Returns one sentence for each image that was left out.

    Raises:
        UsageError: the file cannot be written.
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
    edges = np.concatenate([[0], np.stack([runs[:, 0] - 1, runs.sum(axis=1) - 1], axis=1).ravel()])
    counts = np.diff(np.concatenate([edges, [mask.size]])).tolist()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "segmentation": {"counts": counts, "size": list(mask.shape)},
        "bbox": [int(x) for x in box],
        "area": int(mask.sum()),
    }
