"""Uncompressed BMP files (Microsoft, BITMAPINFOHEADER and its successors)."""

import struct

from steel_core.data.images.raw import Raw, check_size, open_with_pillow, pixel_values
from steel_core.errors import ImageError


def read_bmp(data: bytes) -> Raw:
    if len(data) < 26:
        raise ImageError("the BMP ends in its header; copy or export it again")
    offset, header = struct.unpack_from("<II", data, 10)
    compression = 0
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
    elif 40 <= header <= len(data) - 14:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise ImageError(f"expected a BMP header of 12 or at least 40 bytes, but it says {header:,}; export it again")
    check_size(width, abs(height))
    if depth not in (1, 4, 8, 16, 24, 32):
        raise ImageError(f"expected a BMP of 1, 4, 8, 16, 24 or 32 bits, but its header says {depth}")
    if not (compression == 0 or (compression in (3, 6) and depth in (16, 32))):
        raise ImageError("expected an uncompressed BMP, but it is compressed; save it as PNG")
    if offset < 14 + header or offset + (width * depth + 31) // 32 * 4 * abs(height) > len(data):
        raise ImageError(
            f"the BMP's header promises {width:,} x {abs(height):,} pixels of {depth} bits, but the file ends before"
            " that; copy or export it again"
        )
    return Raw(pixel_values(open_with_pillow(data, "BMP")))
