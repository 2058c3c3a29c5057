"""Near-duplicates: crops of one strip that overlap, copies, and the same picture at another brightness.

Two pictures are linked by the steel around marks, not by a stain, stamp or pattern of stripes that they share. What is
compared is their local detail (each pixel less the mean around it, by the spread around it), of which marks are left
out, and waves that stand out of the spectrum are cut down to what is usual:
1. an index of landmarks (`steel_core.data.quality.landmarks`) names pairs and shifts that are worth a look;
2. these are compared within some pixels of the shift by normalised cross-correlation (J. P. Lewis, Fast Normalized
   Cross-Correlation, 1995), at half and then at full resolution;
3. the overlap is cut into tiles, and most of them must agree: one strong piece of detail carries no link.
"""

import contextlib
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steel_core.data.index import DatasetIndex
from steel_core.data.quality import landmarks
from steel_core.data.quality.clues import find_marks, grow_mask
from steel_core.errors import DataError, ImageError
from steel_core.progress import Progress, no_progress
from steel_core.types import AnyArray, Float64Array, Grey, IndexArray, ObjectArray, UInt8Array

MIN_OVERLAP = 0.3
"""Crops that share a smaller part of their area are not looked for."""

LINK = 0.5
"""In NEU-CLS no two classes are linked (1,517 pairs), and no marks link pictures of different steel.
"""

_SIDE = 200  # geometric mean of the sides, in pixels, that larger pictures are reduced to
_LEAST_SIDE = 96  # that smaller ones are enlarged to, so that landmarks have room
_SIGMA = 5.0  # extent of "around", in pixels
_FLOOR = 2.0  # grey levels of 255; detail fainter than this is noise and is not blown up
_LOUDEST = 3.0  # times the usual size of waves of its length that a wave may have
_PROMISING = 0.3  # correlation at half resolution from which full resolution is tried
_FLAT = 0.15  # a picture whose detail spreads less than this shows nothing to compare
_LEVELS = 32  # of detail, per unit of spread, in 8 bits
_NONE = 128  # no detail, or a mark
_TILES = 4  # of an overlap in each direction
_LEAST_TILE = 12  # pixels
_AGREEING = 0.35  # quantile of the tiles' correlations that must reach `LINK`


def find_near_duplicate_pairs(index: DatasetIndex, progress: Progress = no_progress) -> pd.DataFrame:
    """Every two samples that show the same piece of steel.

    Rotated or mirrored copies are not found, nor pictures at another scale. Pictures that are refused or without any
    detail (a blank plate) are linked to nothing. All are zoomed by one factor, the usual one to at most 200 x 200.

    Returns:
        One row a pair: `first` and `second`, row numbers with first < second; `score`, the correlation that most
        tiles reach, of at least `LINK`; `dy` and `dx`, by how many such pixels the second's content lies further
        down and right.
    """
    readable, details = _read_details(index, progress)
    pyramids = [_build_pyramid(detail) for detail in details]
    links: dict[tuple[int, int], tuple[float, int, int]] = {}
    for a, b, dy, dx in landmarks.propose_pairs(details).tolist():
        score, y, x = _compare(pyramids[a], pyramids[b], dy, dx)
        if score >= LINK:
            links[a, b] = score, y, x
    progress("looking for near-duplicates", 2 * len(index), 2 * len(index))
    rows = [(readable[a], readable[b], *links[a, b]) for a, b in sorted(links)]
    return pd.DataFrame(rows, columns=["first", "second", "score", "dy", "dx"])


def _read_details(index: DatasetIndex, progress: Progress) -> tuple[list[int], list[UInt8Array]]:
    sizes = []
    for i in range(0, len(index), max(1, len(index) // 200)):
        with contextlib.suppress(ImageError, DataError):
            sizes.append(math.prod(index.size(i)))
    side = math.sqrt(float(np.median(sizes))) if sizes else float(_SIDE)
    zoom = min(max(side, _LEAST_SIDE), _SIDE) / side

    def prepare(i: int) -> UInt8Array | None:
        try:
            return _extract_detail(index.image(i).grey(), zoom)
        except (ImageError, DataError) as error:
            logging.getLogger(__name__).warning("left out of the search for near-duplicates: %s", error)
            return None

    readable, details = [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for i, detail in enumerate(pool.map(prepare, range(len(index)))):
            if detail is not None:
                readable.append(i)
                details.append(detail)
            progress("looking for near-duplicates", i + 1, 2 * len(index))
    return readable, details


def group_near_duplicates(
    index: DatasetIndex, progress: Progress = no_progress, pairs: pd.DataFrame | None = None
) -> ObjectArray:
    """(N,) group name of each sample: those that are linked, straight or over others, share that of the first's path.

    Samples that the index puts into one group stay together. `pairs` are searched anew if not given.
    """
    if pairs is None:
        pairs = find_near_duplicate_pairs(index, progress)
    rows = pd.Series(range(len(index)))
    known = rows[(index.table["group"] != "").to_numpy()]
    first_of_group = known.groupby(index.table["group"].iloc[known.index].to_numpy()).transform("first")
    start = np.concatenate([pairs["first"].to_numpy(int), known.to_numpy(int)])
    end = np.concatenate([pairs["second"].to_numpy(int), first_of_group.to_numpy(int)])
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(len(index), len(index)))
    _, component = connected_components(graph, directed=False)
    return index.table["path"].groupby(component).transform("first").to_numpy(object)


def _extract_detail(grey: Grey, zoom: float) -> UInt8Array:
    """Local detail (H, W) of a picture in 0 to 1; `_NONE` in marks."""
    if zoom != 1:
        kind = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        grey = np.asarray(cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=kind), np.float32)
    bright, dark = find_marks(grey)
    marks = grow_mask(bright | dark)
    smooth = cv2.GaussianBlur(grey * np.float32(255), (0, 0), 1)  # takes the edge off pixel noise
    difference = smooth - cv2.GaussianBlur(smooth, (0, 0), _SIGMA)
    detail = difference / np.sqrt(cv2.GaussianBlur(difference**2, (0, 0), _SIGMA) + _FLOOR**2)
    detail[marks] = 0
    levels = np.clip(_soften_waves(detail) * _LEVELS + _NONE, 0, 255).astype(np.uint8)
    levels[levels == _NONE] += 1
    levels[marks] = _NONE
    return levels


def _soften_waves(detail: Grey) -> Grey:
    """A plane (H, W) without waves that are much stronger than others of their length: stripes pasted over a sheet."""
    spectrum = fft.rfft2(detail)
    size = np.abs(spectrum) + np.float32(1e-6)
    rings = _number_rings(*detail.shape)
    usual = np.exp(np.bincount(rings.ravel(), np.log(size).ravel()) / np.maximum(np.bincount(rings.ravel()), 1))
    spectrum *= np.minimum(1, _LOUDEST * usual.astype(np.float32)[rings] / size)
    return np.asarray(fft.irfft2(spectrum, s=detail.shape), np.float32)


@lru_cache(maxsize=8)
def _number_rings(height: int, width: int) -> IndexArray:
    """Waves of a half spectrum by whole number of cycles over the longer side."""
    longer = max(height, width)
    down, across = np.fft.fftfreq(height) * longer, np.fft.rfftfreq(width) * longer
    return np.hypot(*np.meshgrid(down, across, indexing="ij")).astype(int)


def _build_pyramid(fine: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    return fine, np.asarray(cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _compare(a: tuple[Any, Any], b: tuple[Any, Any], dy: float, dx: float) -> tuple[float, int, int]:
    score, y, x = _search(a[1], b[1], round(dy / 2), round(dx / 2), 4)
    if score < _PROMISING:
        return 0.0, 2 * y, 2 * x
    _, y, x = _search(a[0], b[0], 2 * y, 2 * x, 2)
    return _correlate_tiles(*_overlap(a[0], b[0], y, x)), y, x


def _correlate_tiles(a: UInt8Array, b: UInt8Array) -> float:
    """The correlation that most tiles of two overlapping planes reach, outside the marks of either.

    Without the mean of each row and column: any two straight streaks agree, grain does not.
    """
    known = (a != _NONE) & (b != _NONE)
    rows, columns = (max(1, min(_TILES, side // _LEAST_TILE)) for side in a.shape)
    height, width = a.shape[0] // rows, a.shape[1] // columns

    def sum_tiles(values: AnyArray) -> Float64Array:
        tiles = values[: rows * height, : columns * width].reshape(rows, height, columns, width)
        return np.asarray(tiles.sum((1, 3)), np.float64)

    def find_grain(plane: UInt8Array) -> Grey:
        grain = np.where(known, plane.astype(np.float32) - _NONE, 0)
        across, down = (
            grain.sum(axis, keepdims=True) / np.maximum(known.sum(axis, keepdims=True), 1) for axis in (0, 1)
        )
        return np.asarray(np.where(known, grain - across - down, 0), np.float32)

    grain_a, grain_b = find_grain(a), find_grain(b)
    counts = sum_tiles(known)
    number = np.maximum(counts, 1)
    mean_a, mean_b = sum_tiles(grain_a) / number, sum_tiles(grain_b) / number
    spread_a = np.sqrt(np.maximum(sum_tiles(grain_a**2) / number - mean_a**2, 0))
    spread_b = np.sqrt(np.maximum(sum_tiles(grain_b**2) / number - mean_b**2, 0))
    shows = (counts >= height * width / 2) & (np.maximum(spread_a, spread_b) > _FLAT * _LEVELS)
    if shows.sum() < shows.size / 4:
        return 0.0
    correlations = (sum_tiles(grain_a * grain_b) / number - mean_a * mean_b) / np.maximum(spread_a * spread_b, 1)
    return float(np.quantile(correlations[shows], _AGREEING))


def _overlap(a: AnyArray, b: AnyArray, dy: int, dx: int) -> tuple[AnyArray, AnyArray]:
    """The parts of two planes where a[p + shift] meets b[p]."""
    top, left = max(dy, 0), max(dx, 0)
    bottom, right = max(min(a.shape[0], b.shape[0] + dy), top), max(min(a.shape[1], b.shape[1] + dx), left)
    return a[top:bottom, left:right], b[top - dy : bottom - dy, left - dx : right - dx]


def _search(a: UInt8Array, b: UInt8Array, dy: int, dx: int, reach: int) -> tuple[float, int, int]:
    view, other = _overlap(a, b, dy, dx)
    inner = other[reach:-reach, reach:-reach]
    if view.size < 0.8 * MIN_OVERLAP * min(a.size, b.size):  # landmarks vote roughly
        return 0.0, dy, dx
    if inner.size == 0 or inner.std() < _FLAT * _LEVELS or view.std() < _FLAT * _LEVELS:
        return 0.0, dy, dx
    _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(view, inner, cv2.TM_CCOEFF_NORMED))
    return float(score), dy + y - reach, dx + x - reach
