"""Near-duplicates: crops of one strip that overlap, copies, and the same picture at another brightness.

Two pictures are linked by the normalised cross-correlation (J. P. Lewis, Fast Normalized Cross-Correlation, 1995) of
their local detail (each pixel less the mean around it, by the spread around it), at the best shift:
1. coarse: every pair of equal size at every shift that leaves at least `MIN_OVERLAP` of the picture in common, on
   pictures of about 24 x 24 cells, by fast Fourier transform, with each overlap's mean and variance from area tables;
2. fine: the pairs that pass are compared within some pixels of the shift found, at full resolution.
Of more than `EVERY_PAIR` pictures, and of pictures of different sizes, an index of landmarks
(`steel_core.data.quality.landmarks`) names the pairs and shifts that are worth the fine look.
"""

import contextlib
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steel_core.data.index import DatasetIndex
from steel_core.data.quality import landmarks
from steel_core.errors import DataError, ImageError
from steel_core.progress import Progress, no_progress
from steel_core.types import AnyArray, Float32Array, Float64Array, Grey, IndexArray, ObjectArray, UInt8Array

MIN_OVERLAP = 0.3
"""Crops that share a smaller part of their area are not looked for."""

CANDIDATE = 0.4
"""Coarse correlation from which a pair is looked at closely."""

LINK = 0.5
"""In NEU-CLS 95 % of the pairs above it lie over 0.8, no two classes are linked; from 0.4 to 0.5 the eye finds a mix.
"""

EVERY_PAIR = 2_000
"""Up to so many pictures of one size every pair is compared; of more, those that the index of landmarks names."""

_SIDE = 200  # geometric mean of the sides, in pixels, that larger pictures are reduced to
_CELLS = 24  # geometric mean of the sides of the coarse picture
_COARSE_SIGMA, _FINE_SIGMA = 12.0, 5.0  # extent of "around", in pixels
_FLOOR = 2.0  # grey levels of 255; detail fainter than this is noise and is not blown up
_PROMISING = 0.3  # correlation at half resolution from which full resolution is tried
_FLAT = 0.15  # a picture whose detail spreads less than this shows nothing to compare
_BATCH = 128  # pairs at a time, so that they stay in the processor's cache
_LEVELS = 32  # of detail, per unit of spread, in 8 bits


def find_near_duplicate_pairs(index: DatasetIndex, progress: Progress = no_progress) -> pd.DataFrame:
    """Every two samples that show the same piece of steel.

    Rotated or mirrored copies are not found, nor pictures at another scale. Pictures that are refused or without any
    detail (a blank plate) are linked to nothing. All are reduced by one factor, the usual one to about 200 x 200.

    Returns:
        One row a pair: `first` and `second`, row numbers with first < second; `score`, the fine correlation, of at
        least `LINK`; `dy` and `dx`, by how many reduced pixels the second's content lies further down and right.
    """
    readable, details = _read_details(index, progress)
    shapes: dict[tuple[int, ...], list[int]] = {}
    for k, (_, fine) in enumerate(details):
        shapes.setdefault(fine.shape, []).append(k)
    pyramids = [_build_pyramid(fine) for _, fine in details]
    links: dict[tuple[int, int], tuple[float, int, int]] = {}

    def compare(a: int, b: int, dy: float, dx: float) -> None:
        score, y, x = _compare(pyramids[a], pyramids[b], dy, dx)
        if score >= max(LINK, links.get((a, b), (0.0,))[0]):
            links[a, b] = score, y, x

    done = len(index)
    for members in shapes.values():
        if len(members) <= EVERY_PAIR:
            coarse = _Coarse(np.stack([details[k][0] for k in members]))
            cell = details[members[0]][1].shape[0] / coarse.height
            for a in range(len(members)):
                for b, dy, dx in coarse.candidates(a):
                    compare(members[a], members[b], dy * cell, dx * cell)
        done += len(members)
        progress("looking for near-duplicates", done, 2 * len(index))
    if len(shapes) > 1 or any(len(members) > EVERY_PAIR for members in shapes.values()):
        for a, b, dy, dx in landmarks.propose_pairs([fine for _, fine in details]).tolist():
            compare(a, b, dy, dx)
    progress("looking for near-duplicates", 2 * len(index), 2 * len(index))
    rows = [(readable[a], readable[b], *links[a, b]) for a, b in sorted(links)]
    return pd.DataFrame(rows, columns=["first", "second", "score", "dy", "dx"])


def _read_details(index: DatasetIndex, progress: Progress) -> tuple[list[int], list[tuple[Grey, UInt8Array]]]:
    sizes = []
    for i in range(0, len(index), max(1, len(index) // 200)):
        with contextlib.suppress(ImageError, DataError):
            sizes.append(math.prod(index.size(i)))
    reduce = _SIDE / math.sqrt(float(np.median(sizes))) if sizes else 1.0

    def prepare(i: int) -> tuple[Grey, UInt8Array] | None:
        try:
            return _extract_details(index.image(i).grey() * np.float32(255), reduce)
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


class _Coarse:
    """Normalised cross-correlation of many small planes of one size, at every shift with enough overlap."""

    def __init__(self, planes: Float32Array) -> None:
        count_of_planes, self.height, self.width = planes.shape
        # Padding for the shifts that leave enough overlap; farther ones wrap around, and are not allowed below.
        self.padded = [
            fft.next_fast_len(side + int((1 - MIN_OVERLAP) * side), real=True) for side in (self.height, self.width)
        ]
        shifts = [np.rint(np.fft.fftfreq(side, 1 / side)).astype(int) for side in self.padded]
        self.shifts = shifts
        rows, columns = (np.maximum(side - abs(s), 0) for s, side in zip(shifts, planes.shape[1:], strict=True))
        count = np.outer(rows, columns)
        allowed = count >= MIN_OVERLAP * self.height * self.width
        count = np.maximum(count, 1)
        total, squares = _overlap_sums(planes, shifts), _overlap_sums(planes**2, shifts)
        variance = squares - total**2 / count
        shows = variance > count * _FLAT**2
        scale = np.where(allowed & shows, 1 / np.sqrt(np.where(shows, variance, 1)), 0)
        # With these, correlation = (sum of products) * scale_a * scale_b - offset_a * offset_b.
        self.scale = scale.astype(np.float32)
        self.offset = (total / np.sqrt(count) * scale).astype(np.float32)
        # The other picture sees the same overlap from the opposite shift.
        back = np.ix_(np.arange(count_of_planes), -np.arange(self.padded[0]), -np.arange(self.padded[1]))
        self.back_scale, self.back_offset = self.scale[back], self.offset[back]
        self.spectrum = fft.rfft2(planes, s=self.padded)
        self.conjugate = self.spectrum.conj()

    def candidates(self, a: int) -> list[tuple[int, int, int]]:
        """Each later plane b that resembles plane a, and the shift (dy, dx) in cells: a[p + shift] is like b[p]."""
        candidates = []
        for start in range(a + 1, len(self.spectrum), _BATCH):
            batch = slice(start, start + _BATCH)
            values = fft.irfft2(self.spectrum[a] * self.conjugate[batch], s=self.padded, overwrite_x=True)
            values *= self.back_scale[batch]
            values *= self.scale[a]
            values -= self.offset[a] * self.back_offset[batch]
            values = values.reshape(len(values), -1)
            best = values.argmax(axis=1)
            for k in np.flatnonzero(values[np.arange(len(values)), best] >= CANDIDATE):
                y, x = divmod(int(best[k]), self.padded[1])
                candidates.append((start + int(k), int(self.shifts[0][y]), int(self.shifts[1][x])))
        return candidates


def _overlap_sums(planes: Float32Array, shifts: list[IndexArray]) -> Float64Array:
    table = np.pad(planes.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    (top, bottom), (left, right) = (
        (np.clip(s, 0, side), np.clip(side + s, 0, side)) for s, side in zip(shifts, planes.shape[1:], strict=True)
    )
    return (
        table[:, bottom][:, :, right]
        - table[:, top][:, :, right]
        - table[:, bottom][:, :, left]
        + table[:, top][:, :, left]
    )


def _extract_details(grey: Grey, reduce: float) -> tuple[Grey, UInt8Array]:
    if reduce < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=reduce, fy=reduce, interpolation=cv2.INTER_AREA), np.float32)
    grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1), np.float32)  # takes the edge off pixel noise
    step = _CELLS / np.sqrt(grey.size)
    size = [max(2, round(side * step)) for side in grey.shape[::-1]]
    coarse = np.asarray(cv2.resize(_local_detail(grey, _COARSE_SIGMA), size, interpolation=cv2.INTER_AREA), np.float32)
    fine = np.clip(_local_detail(grey, _FINE_SIGMA) * _LEVELS + 128, 0, 255).astype(np.uint8)
    return coarse, fine


def _local_detail(grey: Grey, sigma: float) -> Grey:
    difference = grey - cv2.GaussianBlur(grey, (0, 0), sigma)
    return difference / np.sqrt(cv2.GaussianBlur(difference**2, (0, 0), sigma) + _FLOOR**2)


def _build_pyramid(fine: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    return fine, np.asarray(cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _compare(a: tuple[Any, Any], b: tuple[Any, Any], dy: float, dx: float) -> tuple[float, int, int]:
    score, y, x = _search(a[1], b[1], round(dy / 2), round(dx / 2), 4)
    if score < _PROMISING:
        return 0.0, 2 * y, 2 * x
    _, y, x = _search(a[0], b[0], 2 * y, 2 * x, 2)
    return _grain_correlation(*_overlap(a[0], b[0], y, x)), y, x


def _grain_correlation(a: Grey, b: Grey) -> float:
    """Correlation without the mean of each row and column: any two straight streaks agree, grain does not."""
    a, b = (part - part.mean(0) - part.mean(1, keepdims=True) + part.mean() for part in (a, b))
    spread = float(a.std() * b.std())
    return float((a * b).mean()) / spread if spread else 0.0


def _overlap(a: AnyArray, b: AnyArray, dy: int, dx: int) -> tuple[AnyArray, AnyArray]:
    """The parts of two planes where a[p + shift] meets b[p]."""
    top, left = max(dy, 0), max(dx, 0)
    bottom, right = max(min(a.shape[0], b.shape[0] + dy), top), max(min(a.shape[1], b.shape[1] + dx), left)
    return a[top:bottom, left:right], b[top - dy : bottom - dy, left - dx : right - dx]


def _search(a: UInt8Array, b: UInt8Array, dy: int, dx: int, reach: int) -> tuple[float, int, int]:
    view, other = _overlap(a, b, dy, dx)
    inner = other[reach:-reach, reach:-reach]
    if view.size < 0.8 * MIN_OVERLAP * min(a.size, b.size):  # the coarse look rounds to cells
        return 0.0, dy, dx
    if inner.size == 0 or inner.std() < _FLAT * _LEVELS or view.std() < _FLAT * _LEVELS:
        return 0.0, dy, dx
    _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(view, inner, cv2.TM_CCOEFF_NORMED))
    return float(score), dy + y - reach, dx + x - reach
