"""Annotations that stand in a table, not in a file of their own: boxes, polygons and run-length masks.

The index keeps those of one picture as JSON in one cell of the column "regions", a list of objects such as

    {"label": "patches", "box": [10, 4, 30, 9]}              pixels xmin, ymin, xmax, ymax, half open, counted from 0
    {"label": "patches", "polygons": [[10, 4, 30, 4, 20, 9]]}  x, y, x, y ... of each corner
    {"label": "patches", "runs": "29102 12 29346 24"}        start and length of each run, from 1, down the columns
    {"label": "patches", "brush": "AAAB…", "on": [200, 300]}   stroke of a brush, and height and width it was painted on

With `"share": true` the numbers of a box or polygon are shares of the picture's width and height. "at" says where the
region was written down, for messages. Nothing is decoded before a picture's boxes or masks are asked for.

Run lengths are Severstal's: pixel 1 is at the top left, pixel 2 below it. Legend: H rows, W columns, R runs.

Strokes are Label Studio's, a run-length code of the painted picture that is written bit by bit, as by
`@thi.ng/rle-pack`: 32 bits for the number of values, 5 for the bits of a value less 1, four times 4 for the sizes of a
count less 1; then, until all values are there, one bit whether a value is repeated or several are listed, 2 bits which
size of a count, the count less 1, and the value or values: red, green, blue and alpha of each pixel, row by row.
Decoded here, because Label Studio's packages bring two dozen others and trust the number of values.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from steel_core.data.images.raw import MAX_PIXELS
from steel_core.errors import DataError
from steel_core.types import Box, Float64Array, Mask, RunLengths

COLUMN = "regions"

_NUMBERS = re.compile(r"-?\d{1,12}(\s+-?\d{1,12})*")
_LABEL = r'"label": "(?:[^"\\]|\\.)*"'


def encode_runs(mask: Mask) -> RunLengths:
    """(R, 2) first pixel, counted from 1 down the columns, and length of each run of True in a mask (H, W)."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2)
    return np.stack([edges[:, 0] + 1, edges[:, 1] - edges[:, 0]], axis=1)


def decode_runs(runs: RunLengths, size: tuple[int, int]) -> Mask:
    """The mask (H, W) of sound runs (R, 2); `size` is (H, W). A DataError if the last run ends past the picture."""
    height, width = size
    _check_end(runs, height * width)
    steps = np.zeros(height * width + 1, dtype=np.int8)
    np.add.at(steps, runs[:, 0] - 1, 1)
    np.subtract.at(steps, runs[:, 0] - 1 + runs[:, 1], 1)  # runs may touch, so both may fall on one pixel
    return steps[:-1].cumsum(dtype=np.int8).reshape(width, height).T.astype(bool)


def parse_runs(text: str, pixels: int | None = None) -> RunLengths:
    """(R, 2) runs of a text such as "29102 12 29346 24"; `pixels`: those of the picture, where known.

    A DataError says what is wrong: no whole numbers, an odd count, below 1, unsorted, overlapping, or past the end.
    """
    text = text.strip()
    if not _NUMBERS.fullmatch(text):
        raise DataError(f"expected whole numbers separated by spaces, found {_shorten(text)}")
    numbers = np.array(text.split(), dtype=np.int64)
    if len(numbers) % 2:
        raise DataError(f"expected pairs of start and length, found an odd count of {len(numbers)} numbers")
    runs = numbers.reshape(-1, 2)
    if (runs < 1).any():
        start, length = runs[(runs < 1).any(axis=1)][0]
        raise DataError(f"expected starts and lengths from 1 upwards, found start {start} with length {length}")
    if (wrong := np.flatnonzero(np.diff(runs[:, 0]) < 0)).size:
        before, after = runs[wrong[0], 0], runs[wrong[0] + 1, 0]
        raise DataError(f"expected rising starts, found {after} after {before}")
    if (wrong := np.flatnonzero(runs[1:, 0] < runs[:-1].sum(axis=1))).size:
        (start, length), after = runs[wrong[0]], runs[wrong[0] + 1, 0]
        raise DataError(f"the run of {length} from {start} overlaps the one from {after}")
    if pixels is not None:
        _check_end(runs, pixels)
    return runs


def format_runs(runs: RunLengths) -> str:
    """The text that `parse_runs` reads."""
    return " ".join(map(str, runs.ravel().tolist()))


def fill_polygon(corners: npt.ArrayLike, size: tuple[int, int]) -> Mask:
    """(H, W), True where a pixel's centre lies inside the polygon x, y, x, y ... (even-odd rule); `size` is (H, W)."""
    height, width = size
    points = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    toggles = np.zeros((height, width + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = np.clip(np.ceil(np.array([min(y0, y1), max(y0, y1)]) - 0.5), 0, height).astype(int)
        rows = np.arange(low, high)  # those whose centre line the edge crosses
        if rows.size:
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            toggles[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
    return toggles.cumsum(axis=1)[:, :width] % 2 == 1


def pack_brush(rle: Any) -> str:
    """A stroke, a list of numbers, as base64 for a cell of the index; "" where it is none. Checked when decoded."""
    if not isinstance(rle, list) or not all(type(value) is int and 0 <= value <= 255 for value in rle):
        return ""
    return base64.b64encode(bytes(rle)).decode()


def decode_brush(packed: str, size: tuple[int, int]) -> Mask:
    """The mask (H, W) of a stroke packed by `pack_brush`: True where there is paint; `size` is (H, W) of its picture.

    A DataError says that the code is damaged, or of a picture of another size.
    """
    height, width = size
    if not 0 < height * width <= MAX_PIXELS:
        raise DataError(f"expected a picture of 1 to {MAX_PIXELS:,} pixels, found {width} x {height}")
    try:
        bits = "".join(f"{byte:08b}" for byte in base64.b64decode(packed, validate=True))
    except (binascii.Error, ValueError) as error:
        raise DataError("expected a brush stroke in base64") from error

    here = 0

    def read(count: int) -> int:
        nonlocal here
        here += count
        if here > len(bits):
            raise DataError("the brush stroke ends too early")
        return int(bits[here - count : here], 2)

    count = read(32)
    if count != 4 * height * width:
        raise DataError(f"a brush stroke of {count:,} values does not fit {width} x {height} pixels of four")
    value_bits = read(5) + 1
    count_bits = [read(4) + 1 for _ in range(4)]
    if value_bits != 8:
        raise DataError(f"expected values of 8 bits in a brush stroke, found {value_bits}")
    painted = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        repeated = read(1)
        end = at + 1 + read(count_bits[read(2)])
        if end > count:
            raise DataError("the brush stroke paints more than its picture")
        painted[at:end] = read(8) if repeated else [read(8) for _ in range(end - at)]
        at = end
    return painted.reshape(height, width, 4)[..., 3] > 0


def format_regions(regions: Sequence[Mapping[str, Any]]) -> str:
    """The cell that holds these regions; "" if there are none."""
    return json.dumps(list(regions), ensure_ascii=False) if regions else ""


def replace_labels(cells: Any, label: str) -> Any:
    """A column of cells with every region's label replaced."""
    return cells.str.replace(_LABEL, f'"label": {json.dumps(label)}', regex=True)


def parse_boxes(cell: str, size: tuple[int, int]) -> tuple[list[Box], list[str]]:
    """The box around each region of a cell, and one sentence for each region that is wrong; `size` is (H, W)."""
    boxes, problems = [], []
    for region in _parse_cell(cell):
        try:
            if "box" in region:
                boxes.append(_parse_box(region, size))
            elif (mask := _decode_region(region, size)).any():
                x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
                boxes.append(Box(region["label"], x, y, x + width, y + height))
        except DataError as error:
            problems.append(f"{region.get('at') or 'regions'}: {error}.")
    return boxes, problems


def decode_masks(cell: str, size: tuple[int, int]) -> tuple[dict[str, Mask], list[str]]:
    """The mask (H, W) of each label that has more than boxes; they may overlap. One sentence for each wrong region."""
    masks: dict[str, Mask] = {}
    problems = []
    for region in _parse_cell(cell):
        if "box" in region:
            continue
        try:
            mask = _decode_region(region, size)
            masks[region["label"]] = mask | masks.get(region["label"], np.bool_(False))
        except DataError as error:
            problems.append(f"{region.get('at') or 'regions'}: {error}.")
    return masks, problems


def _parse_cell(cell: str) -> list[dict[str, Any]]:
    try:
        regions = json.loads(cell) if cell else []
    except (ValueError, RecursionError) as error:
        raise DataError(f"regions {_shorten(cell)}: expected a list of objects in JSON.") from error
    if not isinstance(regions, list) or not all(
        isinstance(region, dict) and isinstance(region.get("label"), str) for region in regions
    ):
        raise DataError(f"regions {_shorten(cell)}: expected a list of objects with a label.")
    return regions


def _decode_region(region: Mapping[str, Any], size: tuple[int, int]) -> Mask:
    if isinstance(runs := region.get("runs"), str):
        return decode_runs(parse_runs(runs, size[0] * size[1]), size)
    if isinstance(brush := region.get("brush"), str):
        if region.get("on") != list(size):
            raise DataError(f"a brush stroke on a picture of another size than its {size[1]} x {size[0]} pixels")
        return decode_brush(brush, size)
    polygons = region.get("polygons")
    if not isinstance(polygons, list) or not polygons:
        raise DataError("expected a box, polygons, runs or a brush")
    mask = np.zeros(size, dtype=bool)
    for corners in polygons:
        points = _parse_numbers(corners, "the corners of a polygon")
        if len(points) < 6 or len(points) % 2:
            raise DataError(f"expected x and y of at least 3 corners, found {len(points)} numbers")
        mask |= fill_polygon(_scale_to_pixels(points, region, size), size)
    return mask


def _parse_box(region: Mapping[str, Any], size: tuple[int, int]) -> Box:
    corners = _parse_numbers(region["box"], "the corners of a box")
    if len(corners) != 4:
        raise DataError(f"expected xmin, ymin, xmax, ymax, found {len(corners)} numbers")
    height, width = size
    xmin, ymin, xmax, ymax = (int(x) for x in np.rint(_scale_to_pixels(corners, region, size)))
    if xmin >= xmax or ymin >= ymax:
        raise DataError(f"the box ({xmin}, {ymin}) to ({xmax}, {ymax}) is empty or swapped")
    if xmin < -1 or ymin < -1 or xmax > width + 1 or ymax > height + 1:  # a pixel is what rounding costs
        raise DataError(f"the box ({xmin}, {ymin}) to ({xmax}, {ymax}) lies outside the {width} x {height} pixels")
    return Box(region["label"], max(xmin, 0), max(ymin, 0), min(xmax, width), min(ymax, height))


def _parse_numbers(values: Any, what: str) -> Float64Array:
    if not isinstance(values, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        raise DataError(f"expected numbers for {what}")
    numbers = np.array(values, dtype=np.float64)
    if not (np.abs(numbers) < 1e6).all():
        raise DataError(f"expected finite numbers below a million for {what}")
    return numbers


def _scale_to_pixels(numbers: Float64Array, region: Mapping[str, Any], size: tuple[int, int]) -> Float64Array:
    return numbers * np.resize(size[::-1], len(numbers)) if region.get("share") else numbers


def _check_end(runs: RunLengths, pixels: int) -> None:
    if len(runs) and (end := int(runs.sum(axis=1).max()) - 1) > pixels:
        raise DataError(f"the runs end at pixel {end:,}, past the {pixels:,} pixels of the picture")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
