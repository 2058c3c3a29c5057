"""Brush strokes of Label Studio: a run-length code of the painted picture, written bit by bit.

The code is that of `@thi.ng/rle-pack`: 32 bits for the number of values, 5 for the bits of a value less 1, four times 4
for the sizes of a count less 1; then, until all values are there, one bit whether a value is repeated or several are
listed, 2 bits which size of a count, the count less 1, and the value or values: red, green, blue and alpha of each
pixel, row by row. Decoded here, because Label Studio's packages bring two dozen others and trust the number of values.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from steel_core.data.images.read import MAX_PIXELS
from steel_core.errors import DataError
from steel_core.types import BoolArray


def pack_brush(rle: Any) -> str:
    """A stroke, a list of numbers, as base64 for a cell of the index; "" where it is none. Checked when decoded."""
    if not isinstance(rle, list) or not all(type(value) is int and 0 <= value <= 255 for value in rle):
        return ""
    return base64.b64encode(bytes(rle)).decode()


def decode_brush(packed: str, size: tuple[int, int]) -> BoolArray:
    """The mask (H, W) of a stroke packed by `pack_brush`: True where there is paint; `size` is (H, W) of its picture.

    Raises:
        DataError: the code is damaged, or of a picture of another size.
    """
    height, width = size
    if not 0 < height * width <= MAX_PIXELS:
        raise DataError(f"expected a picture of 1 to {MAX_PIXELS:,} pixels, found {width} x {height}")
    try:
        bits = _Bits(base64.b64decode(packed, validate=True))
    except (binascii.Error, ValueError) as error:
        raise DataError("expected a brush stroke in base64") from error
    count = bits.read(32)
    if count != 4 * height * width:
        raise DataError(f"a brush stroke of {count:,} values does not fit {width} x {height} pixels of four")
    value_bits = bits.read(5) + 1
    count_bits = [bits.read(4) + 1 for _ in range(4)]
    if value_bits != 8:
        raise DataError(f"expected values of 8 bits in a brush stroke, found {value_bits}")
    painted = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        repeated = bits.read(1)
        end = at + 1 + bits.read(count_bits[bits.read(2)])
        if end > count:
            raise DataError("the brush stroke paints more than its picture")
        painted[at:end] = bits.read(8) if repeated else [bits.read(8) for _ in range(end - at)]
        at = end
    return painted.reshape(height, width, 4)[..., 3] > 0


class _Bits:
    def __init__(self, data: Sequence[int]) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def read(self, count: int) -> int:
        part = self._bits[self._at : self._at + count]
        if len(part) < count:
            raise DataError("the brush stroke ends too early")
        self._at += count
        return int(part, 2)
