"""PNG files (ISO/IEC 15948), each checksum and row checked."""

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from steel_core.data.images.raw import MAX_PARTS, Raw, check_size, exif_orientation, open_with_pillow, pixel_values
from steel_core.errors import ImageError
from steel_core.types import AnyArray

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 1 << 16


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    at, view = 8, memoryview(data)
    for _ in range(MAX_PARTS):
        length = int.from_bytes(view[at : at + 4], "big")
        whole = view[at : at + 12 + length]
        if len(whole) != 12 + length:
            raise ImageError("the PNG ends in the middle of the picture; copy or export it again")
        kind, content = bytes(whole[4:8]), whole[8:-4]
        if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
            raise ImageError("a checksum in the PNG is wrong, so the file is damaged; copy or export it again")
        yield kind, content, whole
        if kind == b"IEND":
            return
        at += len(whole)
    raise ImageError(f"expected a PNG of at most {MAX_PARTS:,} chunks; export the picture again")


def _parse_head(content: memoryview) -> tuple[int, ...]:
    head = struct.unpack(">IIBBBBB", content) if len(content) == 13 else (0,) * 7
    if head[2] not in _DEPTHS.get(head[3], ()) or head[4] or head[5] or head[6] > 1:
        raise ImageError("the PNG's header names a bit depth or coding that does not exist; export it again")
    return head


def _check_rows(parts: list[memoryview], expected: int) -> None:
    """Proves, in little memory, that the compressed parts hold exactly the bytes of all rows."""
    unpack, total = zlib.decompressobj(), 0
    try:
        for block in (part[at : at + _BLOCK] for part in parts for at in range(0, len(part), _BLOCK)):
            rest = bytes(block)
            while rest and not unpack.eof and total <= expected:
                total += len(unpack.decompress(rest, _BLOCK))
                rest = unpack.unconsumed_tail
    except zlib.error:
        raise ImageError("the compressed data of the PNG are damaged; copy or export it again") from None
    if total != expected or not unpack.eof:
        raise ImageError(
            f"expected {expected:,} bytes of rows in the PNG, but {'more' if total > expected else f'only {total:,}'}"
            " came; copy or export it again"
        )


def read_png(data: bytes) -> Raw:
    head: tuple[int, ...] = ()
    kept: list[memoryview] = []
    rows: list[memoryview] = []
    notes: list[str] = []
    orientation, significant = 1, 16
    for kind, content, whole in _chunks(data):
        if bool(head) == (kind == b"IHDR"):
            raise ImageError("expected a PNG with one header at its start; the file is damaged, export it again")
        if kind == b"IHDR":
            head = _parse_head(content)
            check_size(head[0], head[1])
        elif kind == b"IDAT":
            rows.append(content)
        elif kind == b"eXIf":
            orientation = exif_orientation(bytes(content))
        elif kind == b"sBIT" and content and 8 < max(content) <= 16:
            significant = max(content[:3])
        elif kind == b"acTL":
            notes.append("still picture of an animated PNG")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (kind == b"tRNS" and head[2] < 16):
            kept.append(whole)
    if not rows:
        raise ImageError("expected picture data in the PNG, but it holds none; export it again")
    width, height, depth, colour, _, _, interlaced = head
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes if x < width and y < height]
    _check_rows(rows, sum(h * (1 + -(-w * depth * _CHANNELS[colour] // 8)) for w, h in sizes))
    clean = data[:8] + b"".join(kept)
    if depth < 16 or colour == 0:
        values = pixel_values(open_with_pillow(clean, "PNG"))
    else:
        values = _decode_colour_16(clean, _CHANNELS[colour])  # Pillow would keep 8 of the 16 bits
    bits = _significant_bits(values, significant) if depth == 16 and significant < 16 else None
    return Raw(values, bits, orientation, notes=notes)


def _significant_bits(values: AnyArray, significant: int) -> int:
    """Depth of 16-bit values whose sBIT chunk names fewer bits: moved to the top, as the standard says, or not."""
    top, used = int(values.max()), int(np.bitwise_or.reduce(values, axis=None))
    moved_up = top >= 4096 and used % (1 << (16 - significant)) == 0
    return 16 if top >> significant or moved_up else significant


def _decode_colour_16(data: bytes, channels: int) -> AnyArray:
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ImageError("the PNG data are damaged and cannot be decoded; export the picture again")
    order = {2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV gives blue first, and grey threefold
    return values[..., order]
