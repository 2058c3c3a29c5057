"""Numbers that describe a picture (H, W) in 0 to 1 without any model: of its light, detail, noise, size and defect.

Legend: H rows, W columns.
"""

import hashlib
import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.progress import Progress, no_progress
from steel_core.types import BoolArray, Grey

_PART = 2048
_COARSE = 2.0  # pixels; detail that a lens out of focus leaves standing


def brightness(grey: Grey) -> float:
    """Mean, 0 (black) to 1 (white)."""
    return float(grey.mean())


def contrast(grey: Grey) -> float:
    """Standard deviation, 0 to 0.5."""
    return float(grey.std())


def sharpness(grey: Grey) -> float:
    """Fine detail as a share of coarse detail: what a lens out of focus takes away, and light and steel do not.

    Root mean square of the gradient (Scharr), divided by that of the picture blurred by 2 pixels. Usual measures (the
    variance of the Laplacian) call every uniform plate blurry, because they grow with contrast; this ratio does not.
    A blank picture has 0.
    """
    fine, coarse = _rms_gradient(grey), _rms_gradient(np.asarray(cv2.GaussianBlur(grey, (0, 0), _COARSE), np.float32))
    return fine / coarse if coarse > 1e-6 else 0.0


def noise(grey: Grey) -> float:
    """Standard deviation of pixel noise. Source: J. Immerkær, Fast Noise Variance Estimation, CVIU 64(2), 1996."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    inner = cv2.filter2D(grey, cv2.CV_32F, kernel)[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(inner).mean()) if inner.size else 0.0


def clipped(grey: Grey) -> float:
    """Share of the pixels that are pure black or pure white, to half a grey level of 8 bits."""
    return float(np.count_nonzero((grey < 0.5 / 255) | (grey > 254.5 / 255))) / grey.size


_OF_PIXELS = (brightness, contrast, sharpness, noise, clipped)

_OF_DEFECT = ("defect_area", "defect_row", "defect_column")

PROPERTIES = (*(measure.__name__ for measure in _OF_PIXELS), "height", "width", *_OF_DEFECT)
"""The columns of `measure_properties`, all numbers; those of the defect are NaN where nothing tells them."""


def picture_properties(grey: Grey) -> dict[str, float]:
    """The properties of the pixels of one grey picture (H, W) in 0 to 1."""
    return {measure.__name__: measure(grey) for measure in _OF_PIXELS}


def defect_properties(mask: BoolArray) -> dict[str, float]:
    """Share of the picture (H, W) that is defective, and its centre, 0 (top, left) to 1; NaN where there is none."""
    places = [axis.mean() + 0.5 if axis.size else math.nan for axis in np.nonzero(mask)]
    row, column = (float(place) / side for place, side in zip(places, mask.shape, strict=True))
    return dict(zip(_OF_DEFECT, (np.count_nonzero(mask) / mask.size, row, column), strict=True))


def measure_properties(index: DatasetIndex, progress: Progress = no_progress) -> pd.DataFrame:
    """The properties of every sample, one row each with the columns `PROPERTIES`, float64.

    They are computed at the first call, in parts of 2,048 samples, and kept as Parquet in the user's cache until the
    index or a file's time or size changes; an interrupted call goes on where it stopped. A picture that is refused has
    missing values (NaN) throughout; the defect's are missing where a sample has neither mask nor boxes.
    """
    folder = properties_folder(index)
    parts = []
    for start in range(0, len(index), _PART):
        rows = range(start, min(start + _PART, len(index)))
        kept, part = _cached_part(index, rows)
        if part is None:
            part = _measure_part(index, rows)
            with suppress(UsageError):  # a cache that cannot be written only costs time
                for old in folder.glob(f"{start:09d}-*.parquet"):
                    old.unlink(missing_ok=True)
                sink = io.BytesIO()
                part.to_parquet(sink, index=False)
                write_bytes(kept, sink.getvalue())
        parts.append(part)
        progress("measuring pictures", rows.stop, len(index))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(PROPERTIES), dtype=float)


def cached_properties(index: DatasetIndex) -> pd.DataFrame | None:
    """What `measure_properties` would load, with the same argument; None where it would have to measure."""
    if not properties_folder(index).is_dir():
        return None
    parts = []
    for start in range(0, len(index), _PART):
        _, part = _cached_part(index, range(start, min(start + _PART, len(index))))
        if part is None:
            return None
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else None


def properties_folder(index: DatasetIndex) -> Path:
    """The folder in which the properties of a data set are kept; it changes when a part of them is added."""
    return cache_folder() / "properties" / index.hash[:32]


def _cached_part(index: DatasetIndex, rows: range) -> tuple[Path, pd.DataFrame | None]:
    kept = properties_folder(index) / f"{rows.start:09d}-{_stamp(index, rows)}.parquet"
    with suppress(OSError, ValueError):
        part = pd.read_parquet(kept)
        if list(part.columns) == list(PROPERTIES) and len(part) == len(rows):
            return kept, part
    return kept, None


def _measure_part(index: DatasetIndex, rows: range) -> pd.DataFrame:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return pd.DataFrame(
            list(pool.map(partial(_measure_sample, index), rows)), columns=list(PROPERTIES), dtype=float
        )


def _measure_sample(index: DatasetIndex, i: int) -> dict[str, float]:
    try:
        grey = index.image(i).grey()
    except (ImageError, DataError):
        return {}
    row = {**picture_properties(grey), "height": float(grey.shape[0]), "width": float(grey.shape[1])}
    with suppress(DataError):  # a mask that cannot be read tells nothing
        defect = index.mask(i)
        if defect is None and (boxes := index.boxes(i)):
            defect = boxes_to_mask(boxes, grey.shape).astype(np.uint8)
        if defect is not None and defect.shape == grey.shape:
            row |= defect_properties(defect > 0)
    return row


def _stamp(index: DatasetIndex, rows: range) -> str:
    digest = hashlib.sha256(str(index.root).encode())
    for path in index.table["path"].iloc[rows.start : rows.stop]:
        with suppress(OSError):
            state = os.stat(index.root / path)  # noqa: PTH116 - a Path's costs twice the time
            digest.update(f"{state.st_mtime_ns}:{state.st_size};".encode())
    return digest.hexdigest()[:16]


def _rms_gradient(grey: Grey) -> float:
    across, down = (cv2.Scharr(grey, cv2.CV_32F, dx, dy, scale=1 / 32) for dx, dy in ((1, 0), (0, 1)))
    return math.sqrt(float(np.mean(across**2 + down**2)))
