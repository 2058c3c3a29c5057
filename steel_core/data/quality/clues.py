"""What may give a label away without a look at the defect: the file, the light, the lens, marks, borders, places.

All is measured at the picture's own size, as resizing hides compression, noise and lines of one pixel, and on the
steel: where masks or boxes tell the defect, its tiles are left out. Numbers of the whole picture are medians or
quartiles over tiles without marks, so that neither an untold defect on a part of it nor a stain moves them.

Legend: H rows, W columns; P x P cells of a thumbnail.
"""

import hashlib
import io
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from steel_core.data.index import DatasetIndex
from steel_core.data.quality.measured_table import MeasuredTable
from steel_core.data.quality.properties import read_defect
from steel_core.errors import DataError, ImageError
from steel_core.types import AnyArray, BoolArray, Float32Array, Grey

CELLS = 12
"""P, the cells of a thumbnail in each direction."""

_TILES = 8  # in each direction
_CELLS_OF_LIGHT = 9
_LEAST_TILE = 12  # pixels
_WAVES = 64  # pixels; the windows in which waves are looked for
_BORDER = 0.015  # share of the shorter side
_LEAST_MARK = 0.002  # share of the picture
_CERTAIN = 4.0  # standard errors
_RIM = 0.03  # share of the shorter side


@dataclass(frozen=True)
class Clue:
    """One thing that is measured: `words` for people.

    `made`: no defect of steel makes it. `sharp`: 1, or less where other clues move it, too, and say more.
    """

    words: str
    made: bool = False
    sharp: float = 1.0


FILE_FACTS = {
    "file format": Clue("the format of the file", made=True),
    "colour mode": Clue("the colour mode of the file", made=True),
    "picture size": Clue("the size of the picture", made=True),
    "encoder": Clue("the camera or program that wrote the file", made=True),
}

CLUES = {
    "compression": Clue("traces of JPEG compression", made=True),
    "border at the top": Clue("a line at the upper border", made=True, sharp=0.85),
    "border at the bottom": Clue("a line at the lower border", made=True, sharp=0.85),
    "border at the left": Clue("a line at the left border", made=True, sharp=0.85),
    "border at the right": Clue("a line at the right border", made=True, sharp=0.85),
    "vignette": Clue("light that falls off towards the corners"),
    "light from top": Clue("light that changes from top to bottom"),
    "light from left": Clue("light that changes from left to right"),
    "waves": Clue("a regular pattern of stripes over the whole picture"),
    "bright marks": Clue("bright marks on the steel", sharp=0.9),
    "dark marks": Clue("dark marks on the steel", sharp=0.9),
    "brightness": Clue("brightness", sharp=0.7),
    "contrast": Clue("contrast", sharp=0.65),
    "sharpness": Clue("sharpness", sharp=0.7),
    "noise": Clue("noise", sharp=0.7),
}

MARKS = ("bright marks", "dark marks")

PLACE = Clue("what stands at one place of the picture", made=True, sharp=0.8)

_THUMBNAIL = tuple(f"cell {i}" for i in range(CELLS**2))
_KNOWN = "defect_known"


def thumbnails_of(table: Any) -> Float32Array:
    """(N, P * P) thumbnails in a table that `CLUE_TABLE` measured."""
    return np.asarray(table[list(_THUMBNAIL)], np.float32)


def describe_file(data: bytes) -> dict[str, str]:
    """Facts of an encoded picture that say nothing about steel; its pixels are not decoded."""
    with suppress(Exception), Image.open(io.BytesIO(data)) as picture:  # what Pillow does not know has no facts
        tables = getattr(picture, "quantization", None)
        exif = picture.getexif()
        encoder = [str(exif[tag]).strip("\0 ") for tag in (271, 272, 305) if tag in exif]  # make, model, software
        encoder += [f"{name} {picture.info[name]}" for name in ("dpi", "gamma", "compression") if name in picture.info]
        if tables:
            encoder.append(f"JPEG tables {hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:6]}")
        return {
            "file format": str(picture.format),
            "colour mode": picture.mode,
            "picture size": f"{picture.width} x {picture.height}",
            "encoder": ", ".join(encoder),
        }
    return {}


def measure_clues(grey: Grey, steel: BoolArray) -> dict[str, float]:
    """The numbers `CLUES` of a picture (H, W), of which `steel` (H, W) is no defect as far as that is told."""
    bright, dark = find_marks(grey)
    tiles = _stack_tiles(grey, _TILES)
    use = _choose_tiles(steel, bright | dark, _TILES)
    spreads = tiles[use].std(axis=1)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = _stack_tiles(np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel)), _TILES)[use].mean(axis=1)
    detail = _stack_tiles(cv2.Laplacian(grey, cv2.CV_32F), _TILES)[use].std(axis=1)
    grain = max(float(np.median(spreads)), 1 / 255)
    return {
        "compression": _measure_blocks(grey),
        **_measure_borders(grey, grain),
        **_measure_shading(grey, bright | dark | ~steel),
        "waves": _measure_waves(grey),
        "bright marks": float((bright & steel).mean()),
        "dark marks": float((dark & steel).mean()),
        "brightness": float(np.median(tiles[use])),
        "contrast": float(np.quantile(spreads, 0.25)),
        "sharpness": float(np.median(detail / np.maximum(spreads, 1 / 255))),
        "noise": float(np.quantile(noise, 0.25)),
    }


def find_marks(grey: Grey) -> tuple[BoolArray, BoolArray]:
    """Bright and dark pieces (H, W) that stand out from the steel around them, on even and on uneven surfaces.

    The background is a wide median, so that slow light does not count; a piece reaches 4 robust standard deviations of
    what is left, so that texture does not, and covers 0.2 % of the picture.
    """
    height, width = grey.shape
    zoom = min(1.0, 128 / min(height, width))
    small = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA) if zoom < 1 else grey
    eight = np.clip(np.rint(cv2.GaussianBlur(small, (0, 0), 1.5) * 255), 0, 255).astype(np.uint8)
    wide = min(2 * (min(small.shape) * 3 // 8) + 1, 255)
    over = eight.astype(np.float32) - cv2.medianBlur(eight, wide)
    spread = max(1.4826 * float(np.median(np.abs(over))), 2.0)
    bright, dark = (
        cv2.resize(_keep_large(sign * over, spread), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        for sign in (1, -1)
    )
    return bright, dark


def make_thumbnail(grey: Grey) -> Float32Array:
    """(P * P) means of cells, from those around them, in robust standard deviations; at most 6. Slow light is gone."""
    cells = cv2.resize(grey, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    around = cv2.medianBlur(np.asarray(cells, np.float32), 5)
    away = (cells - around).ravel()
    return np.asarray(np.clip(away / max(1.4826 * float(np.median(np.abs(away))), 1 / 255), -6, 6), np.float32)


def _measure_sample(index: DatasetIndex, i: int) -> dict[str, Any]:
    try:
        image = index.image(i)
        grey = image.grey()
        facts = describe_file(index.path(i).read_bytes())
    except (ImageError, DataError, OSError):
        return {}
    clues = clue_row(grey, read_defect(index, i, grey.shape))
    if facts.get("file format") == "JPEG":  # its tables tell how it was compressed, and the texture does not count
        clues["compression"] = _CERTAIN
    return clues | facts


def clue_row(grey: Grey, defect: BoolArray | None) -> dict[str, Any]:
    """The numbers of a row of `CLUE_TABLE`, of a picture (H, W) and its defect (H, W), None where nothing tells it."""
    return {
        **measure_clues(grey, np.ones(grey.shape, bool) if defect is None else ~grow_mask(defect)),
        _KNOWN: float(defect is not None),
        **dict(zip(_THUMBNAIL, make_thumbnail(grey).tolist(), strict=True)),
    }


def grow_mask(mask: BoolArray) -> BoolArray:
    """A defect or mark (H, W) with its rim, which masks and boxes cut short."""
    rim = 2 * max(1, round(_RIM * min(mask.shape))) + 1
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((rim, rim), np.uint8)) > 0)


CLUE_TABLE = MeasuredTable("clues", (*CLUES, _KNOWN, *_THUMBNAIL), _measure_sample, tuple(FILE_FACTS))
"""Every clue of every sample of a data set; missing where a picture is refused."""


def _keep_large(over: Float32Array, spread: float) -> Any:
    """Pieces above 2 spreads that reach 4 somewhere and are large enough."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((over > 2.5 * spread).astype(np.uint8), connectivity=8)
    peak = np.zeros(len(stats), bool)
    peak[np.unique(pieces[over > 4 * spread])] = True
    keep = peak & (stats[:, cv2.CC_STAT_AREA] >= _LEAST_MARK * over.size)
    keep[0] = False
    return keep[pieces].astype(np.uint8)


def _stack_tiles(values: AnyArray, most: int) -> AnyArray:
    """(T, pixels) tiles of a picture (H, W), at most so many in each direction, without the last pixels of a side."""
    rows, columns = (max(1, min(most, side // _LEAST_TILE)) for side in values.shape)
    height, width = values.shape[0] // rows, values.shape[1] // columns
    cut = values[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return cut.swapaxes(1, 2).reshape(rows * columns, height * width)


def _choose_tiles(steel: BoolArray, marks: BoolArray, most: int) -> BoolArray:
    """(T,) tiles of steel without marks; with marks, or all, where there are not enough."""
    sound = _stack_tiles(steel, most).all(axis=1)
    plain = sound & ~_stack_tiles(marks, most).any(axis=1)
    enough = plain if plain.sum() >= 4 else sound
    return np.asarray(enough if enough.any() else np.ones_like(enough), bool)


def _measure_blocks(grey: Grey) -> float:
    """Whether steps at the seams of 8 x 8 blocks are stronger than inside: Student's t over blocks, 0 to 4 (certain).

    How much stronger they are depends on the texture, and would tell one defect from another.
    """
    excess = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        blocks = steps[: len(steps) // 8 * 8].reshape(-1, 8)
        excess += (blocks[:, 7] - blocks[:, 1:6].mean(axis=1)).tolist()
    if len(excess) < 8:
        return 0.0
    error = float(np.std(excess)) / math.sqrt(len(excess))
    return float(np.clip(np.mean(excess) / max(error, 1e-6), 0, _CERTAIN))


def _measure_borders(grey: Grey, grain: float) -> dict[str, float]:
    """How much each side's outermost pixels differ from those just inside, in units of the grain."""
    wide = max(2, round(_BORDER * min(grey.shape)))
    sides = {"top": grey, "bottom": grey[::-1], "left": grey.T, "right": grey.T[::-1]}
    return {
        f"border at the {name}": float(turned[:wide].mean() - turned[wide : 4 * wide].mean()) / grain
        for name, turned in sides.items()
    }


def _measure_shading(grey: Grey, left_out: BoolArray) -> dict[str, float]:
    """Slow light over the picture, fitted to medians of tiles of plain steel, relative to their mean."""
    plain = ~_stack_tiles(left_out, _CELLS_OF_LIGHT).any(axis=1)
    keep = plain if plain.sum() >= 20 else np.ones_like(plain)
    rows, columns = (max(1, min(_CELLS_OF_LIGHT, side // _LEAST_TILE)) for side in grey.shape)
    y, x = (axis.ravel()[keep] for axis in np.meshgrid(_middles(rows), _middles(columns), indexing="ij"))
    light = np.median(_stack_tiles(grey, _CELLS_OF_LIGHT)[keep], axis=1)
    design = np.stack([np.ones(len(light)), y, x, y**2 + x**2], axis=1)
    fit = np.linalg.lstsq(design, light / max(float(light.mean()), 1 / 255), rcond=None)[0]
    return {"vignette": float(fit[3]), "light from top": float(fit[1]), "light from left": float(fit[2])}


def _middles(count: int) -> AnyArray:
    return (2 * np.arange(count) + 1) / count - 1


def _measure_waves(grey: Grey) -> float:
    """How far the strongest wave stands above the waves of about its length, as a logarithm.

    The mean over overlapping windows: a pattern has one length and direction in all of them, a scratch or texture not.
    """
    side = min(_WAVES, *grey.shape)
    if side < 16:
        return 0.0
    tops, lefts = (np.unique(np.linspace(0, full - side, 4).astype(int)) for full in grey.shape)
    parts = np.stack([grey[top : top + side, left : left + side] for top in tops for left in lefts])
    parts = (parts - parts.mean(axis=(1, 2), keepdims=True)) * np.outer(np.hanning(side), np.hanning(side))
    logs = np.log(np.abs(np.fft.rfft2(parts)) ** 2 + 1e-9).mean(axis=0)
    return max(float(logs[ring].max() - np.median(logs[ring])) for ring in _rings(side))


@lru_cache(maxsize=8)
def _rings(side: int) -> list[tuple[AnyArray, ...]]:
    """Places of a half spectrum, by whole frequency from 4 cycles on."""
    y, x = np.meshgrid(np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1), indexing="ij")
    radius = np.hypot(y, x).astype(int)
    return [np.nonzero(radius == r) for r in range(4, side // 2)]
