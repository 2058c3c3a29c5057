"""A code of what a picture shows, of 32 bytes: copies that were re-encoded, resized, relit or stained are known by it.

Signs of band-passed detail on a grid (after J. Haitsma, T. Kalker, A Highly Robust Audio Fingerprinting System, ISMIR
2002), without the median of each row and column, which streaks share. Marks are filled with the steel around them.
A crop that moves the picture by more than some 2 % of its side, turns and mirror images are not known again.

Legend: G x G cells, N codes.
"""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from steel_core.data.quality.clues import find_marks, grow_mask
from steel_core.data.transforms import resize
from steel_core.types import Grey, Int64Array, UInt8Array

ALIKE = 76
"""Bits of 256 by which codes of one picture may differ. Those of different steel differ by 86 or more in
NEU-CLS (1,440 images), half of the nearest by 100 or more."""

_GRID = 16
_PIXELS = 8  # of a cell, in each direction
_FINE, _COARSE = 2.0, 5.0  # ends of the band, in such pixels
_FLAT = 0.2 / 255  # a picture whose cells spread less than this shows nothing


def encode_content(grey: Grey) -> str:
    """The code of a picture (H, W) in 0 to 1, in base64; "" where it shows nothing."""
    small = resize(grey, _GRID * _PIXELS, _GRID * _PIXELS)
    marks = grow_mask(np.logical_or(*find_marks(small)))
    plain = 1 - marks.astype(np.float32)
    around = cv2.GaussianBlur(small * plain, (0, 0), _COARSE) / np.maximum(
        cv2.GaussianBlur(plain, (0, 0), _COARSE), 1e-3
    )
    filled = np.where(marks, around, small).astype(np.float32)
    band = cv2.GaussianBlur(filled, (0, 0), _FINE) - cv2.GaussianBlur(filled, (0, 0), _COARSE)
    cells = np.asarray(cv2.resize(band, (_GRID, _GRID), interpolation=cv2.INTER_AREA), np.float32)
    cells -= np.median(cells, axis=1, keepdims=True)
    cells -= np.median(cells, axis=0)
    return "" if cells.std() < _FLAT else base64.b64encode(np.packbits(cells > 0).tobytes()).decode()


def stack_codes(codes: Sequence[str]) -> UInt8Array:
    """(N, 32) of codes; ValueError where one is none."""
    rows = [np.frombuffer(base64.b64decode(code, validate=True), np.uint8) for code in codes]
    return np.stack(rows) if rows else np.zeros((0, _GRID**2 // 8), np.uint8)


def count_differences(code: str, codes: UInt8Array) -> Int64Array:
    """(N,) bits by which each of `codes` (N, 32) differs from `code`."""
    return np.asarray(np.bitwise_count(codes ^ stack_codes([code])).sum(axis=1), np.int64)
