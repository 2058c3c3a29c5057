"""TIFF files (TIFF 6.0, Adobe, 1992; BigTIFF), one decoder for each compression that is read."""

import io
import itertools
import logging
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from steel_core.data.images.raw import MAX_PARTS, MAX_PIXELS, Raw, check_size, open_with_pillow
from steel_core.errors import ImageError
from steel_core.types import AnyArray, UInt16Array

# tifffile reports odd tags through `logging`; without a handler Python would print them to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(slots=True)
class _Layout:
    width: int
    height: int
    samples: int
    bits: int
    sample_format: int
    planar: bool
    model: int
    compression: int
    predictor: int  # 1 where no differences are stored
    tile: tuple[int, int] | None  # rows, columns
    rows_per_strip: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    alpha: int | None  # ExtraSamples: 0 unspecified, 1 premultiplied, 2 not premultiplied
    colours: AnyArray | None
    top: int | None
    orientation: int
    order: str
    more_pages: bool


def _read_layout(data: bytes) -> _Layout:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            bits = page.tags.valueof(258, 1)
            tops = page.tags.valueof(281)
            bits = bits if isinstance(bits, tuple) else (bits,)
            if len(set(bits)) != 1:
                raise ImageError("expected a TIFF with the same bit depth in every channel")
            if page.imagedepth != 1:
                raise ImageError("expected a flat TIFF, but its first page is a volume")
            if int(page.tags.valueof(266, 1)) != 1:
                raise ImageError("expected a TIFF with the high bit first (FillOrder 1); save it as PNG")
            formats = page.tags.valueof(339, 1)
            return _Layout(
                width=int(page.imagewidth),
                height=int(page.imagelength),
                samples=int(page.samplesperpixel),
                bits=int(bits[0]),
                sample_format=int(formats[0] if isinstance(formats, tuple) else formats),
                planar=int(page.planarconfig or 1) == 2 and int(page.samplesperpixel) > 1,
                model=int(page.tags.valueof(262)),
                compression=int(page.compression),
                predictor=int(page.predictor) if page.compression in (5, 8, 32_946) else 1,  # others ignore the tag
                tile=(int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None,
                rows_per_strip=int(page.rowsperstrip or 0),
                offsets=tuple(int(i) for i in page.dataoffsets),
                counts=tuple(int(i) for i in page.databytecounts),
                alpha=int(page.extrasamples[0]) if page.extrasamples else None,
                colours=page.colormap,
                top=int(min(tops)) if isinstance(tops, tuple) else (int(tops) if tops is not None else None),
                orientation=int(page.tags.valueof(274, 1)),
                order=file.byteorder,
                more_pages=file.pages.is_multipage,
            )
    except ImageError:
        raise
    except Exception as error:  # tifffile raises whatever a damaged header makes it stumble over
        raise ImageError("the TIFF's header is damaged; export the picture again") from error


def read_tiff(data: bytes) -> Raw:
    """The first page of a TIFF or BigTIFF file, in strips or tiles, chunky or planar."""
    page = _read_layout(data)
    check_size(page.width, page.height)
    if page.model not in range(4):  # white is zero, grey, RGB, palette
        raise ImageError("expected a grey, RGB or palette TIFF, but it has another colour model; save it as PNG")
    colours = 3 if page.model == 2 else 1
    if page.samples - colours not in (0, 1):
        raise ImageError(f"expected a TIFF of {colours} channels, with or without alpha, but it has {page.samples}")
    if page.width * page.height * page.samples * page.bits > 64 * MAX_PIXELS:
        raise ImageError(f"expected a TIFF of at most {MAX_PIXELS * 8 / 1e6:g} MB unpacked; save it with fewer bits")
    values = _read_values(data, page)
    notes = ["first page of a TIFF that holds several"] if page.more_pages else []
    if page.samples > colours and page.alpha not in (1, 2):
        values = values[..., :colours]
        notes.append("an extra channel of unknown meaning was left out")
    if values.shape[2] == 1:
        values = values[..., 0]
    bits = page.bits if page.bits not in (16, 32, 64) and page.sample_format == 1 else None
    if page.bits == 16 and page.top and 255 <= page.top < 65_535 and page.top & (page.top + 1) == 0:
        bits = page.top.bit_length() if int(values.max()) <= page.top else None
    if page.model == 3:
        if page.colours is None or page.colours.shape != (3, 1 << page.bits) or page.samples != 1:
            raise ImageError("the TIFF's palette does not fit its pixels; export the picture again")
        palette = page.colours if page.colours.max() < 256 else page.colours >> 8
        values, bits = palette.T.astype(np.uint8)[values], 8
    orientation = page.orientation if 1 <= page.orientation <= 8 else 1
    return Raw(values, bits, orientation, page.model == 0, page.alpha == 1, notes)


def _stored_dtype(page: _Layout) -> np.dtype[Any]:
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(page.sample_format, "")
    if page.bits in {"u": (8, 16, 32), "i": (8, 16, 32), "f": (16, 32, 64)}.get(kind, ()):
        dtype = np.dtype(f"{page.order}{kind}{page.bits // 8}")
    elif kind == "u" and 1 <= page.bits < 16:
        dtype = np.dtype(np.uint8 if page.bits < 8 else np.uint16)
    else:
        raise ImageError(f"expected a TIFF of 1 to 16 bits, 32-bit or float numbers, but it has {page.bits} bits")
    if page.compression not in _CODECS:
        raise ImageError("expected a TIFF uncompressed or with LZW, deflate or PackBits; save it as one of these")
    if page.predictor != 1 and (page.predictor != 2 or kind == "f" or page.bits % 8):
        raise ImageError("expected a TIFF without a floating-point predictor; save it uncompressed")
    return dtype


def _part_grid(data: bytes, page: _Layout) -> tuple[int, int, Iterator[tuple[int, int, int]]]:
    rows, columns = page.tile or (min(page.rows_per_strip, page.height) or page.height, page.width)
    if min(rows, columns) < 1 or rows * columns > page.width * page.height + (1 << 20):
        raise ImageError("the TIFF's strips or tiles do not fit its size; export the picture again")
    planes = range(page.samples if page.planar else 1)
    grid = (planes, range(0, page.height, rows), range(0, page.width, columns))
    parts = math.prod(map(len, grid))
    if parts > MAX_PARTS:
        raise ImageError(f"expected at most {MAX_PARTS:,} strips or tiles, but the TIFF has {parts:,}; export it again")
    if not len(page.offsets) == len(page.counts) == parts:
        raise ImageError("the TIFF's strips or tiles do not fit its size; export the picture again")
    ends = [offset + count for offset, count in zip(page.offsets, page.counts, strict=True)]
    if not all(page.offsets) or max(ends) > len(data) or sum(page.counts) > len(data):
        raise ImageError("the TIFF's header promises more data than the file holds; copy or export it again")
    return rows, columns, itertools.product(*grid)


def _read_values(data: bytes, page: _Layout) -> AnyArray:
    """(H, W, C) numbers of the page, every strip or tile proven to hold all of its rows."""
    stored = _stored_dtype(page)
    native = stored.newbyteorder("=")
    rows, columns, places = _part_grid(data, page)
    samples = 1 if page.planar else page.samples
    stride = -(-columns * samples * page.bits // 8)
    out = np.empty((page.height, page.width, page.samples), native)
    for (plane, top, left), offset, count in zip(places, page.offsets, page.counts, strict=True):
        high = rows if page.tile else min(rows, page.height - top)
        piece = _CODECS[page.compression](data[offset : offset + count], high * stride)
        if len(piece) < high * stride:
            raise ImageError("a strip or tile of the TIFF lacks rows; copy or export it again")
        if page.bits == 8 * stored.itemsize:
            block = np.frombuffer(piece, stored, high * columns * samples).astype(native)
        else:
            block = _unpack_bits(piece, high, stride, columns * samples, page.bits)
        block = block.reshape(high, columns, samples)
        if page.predictor == 2:
            block = np.cumsum(block, axis=1, dtype=native)
        target = out[top : top + high, left : left + columns, plane : plane + samples]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return out


def _unpack_bits(piece: bytes, rows: int, stride: int, count: int, bits: int) -> UInt16Array:
    """(rows, count) numbers of `bits` bits, packed high bit first, each row starting on a byte."""
    packed = np.frombuffer(piece, np.uint8, rows * stride).reshape(rows, stride)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    out = np.empty((rows, count), np.uint16)
    for row in range(rows):  # row by row, as one byte a bit is a lot
        out[row] = np.unpackbits(packed[row], count=count * bits).reshape(count, bits) @ weights
    return out


def _inflate(piece: bytes, size: int) -> bytes:
    """At most `size` bytes, so that a small strip cannot unpack to gigabytes."""
    try:
        return zlib.decompressobj().decompress(piece, size)
    except zlib.error:
        raise ImageError("the compressed data of the TIFF are damaged; copy or export it again") from None


_LIBTIFF_BYTES = 80_000_000  # below the size at which Pillow warns of a decompression bomb


def _libtiff(compression: int) -> Callable[[bytes, int], bytes]:
    """Decoder of one strip by the libtiff inside Pillow: the strip is passed as a one-row picture of its own."""

    def unpack(piece: bytes, size: int) -> bytes:
        if size > _LIBTIFF_BYTES:
            raise ImageError("expected smaller strips in a compressed TIFF; save it uncompressed")
        entries = [(256, 4, size), (257, 4, 1), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
        entries += [(273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(piece))]
        padded = piece + b"\0" * (len(piece) % 2)
        table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        head = struct.pack("<4sI", b"II*\0", 8 + len(padded))
        return open_with_pillow(head + padded + struct.pack("<H", len(entries)) + table + b"\0\0\0\0", "TIFF").tobytes()

    return unpack


_CODECS: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda piece, size: piece[:size],
    5: _libtiff(5),
    8: _inflate,
    32_773: _libtiff(32_773),
    32_946: _inflate,
}
