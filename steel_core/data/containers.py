"""What a JPEG, PNG, BMP or TIFF file holds, checked byte by byte before and after a decoder sees it.

Decoders are lenient: they fill the missing half of a photograph with grey and say nothing. Here each container is
walked first, so that a file is refused unless every row it promises is really in it. The decoder then gets only the
parts that make up the picture; comments, profiles, thumbnails and later pages never reach it.

Sources: ITU-T T.81 (JPEG), W3C PNG third edition, TIFF 6.0 (Adobe, 1992), Microsoft BITMAPINFOHEADER.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageChops

from steel_core.errors import ImageError

# tifffile reports odd tags through `logging`; without a handler Python would print them to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

MAX_SIDE = 65_535
"""Largest height or width in pixels."""

MAX_ASPECT = 200
"""Largest ratio of the longer to the shorter side."""

MAX_SCANS = 20
"""Largest number of scans of a JPEG; common encoders write 1 to 12, and each one costs a pass over all pixels."""


MAX_PARTS = 65_536
"""Largest number of segments, chunks, strips or tiles of a file; each one costs time, whatever it holds."""


@dataclass(slots=True)
class Raw:
    """A picture as its file stores it.

    Attributes:
        values: (H, W) or (H, W, C), C = 2 grey and alpha, 3 RGB, 4 RGB and alpha; unsigned, signed or float.
        bits: significant bits of a value, counted from the lowest; None where the file does not tell.
        orientation: EXIF orientation, 1 to 8.
        white_is_zero: whether 0 means white.
        premultiplied: whether the colours are already multiplied by alpha.
        notes: what was decided on the way, for people.
    """

    values: npt.NDArray[Any]
    bits: int | None = None
    orientation: int = 1
    white_is_zero: bool = False
    premultiplied: bool = False
    notes: list[str] = field(default_factory=list)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses a header's size before anything is allocated for it.

    Raises:
        ImageError: a side is zero or too long, the shape is absurd, or there are more than `max_pixels` pixels.
    """
    size = f"{width:,} x {height:,} pixels"
    if width < 1 or height < 1:
        raise ImageError(f"expected at least one pixel, but the header says {size}")
    if width * height > max_pixels:
        raise ImageError(f"expected at most {max_pixels / 1e6:g} megapixels, but the header says {size}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"expected sides of at most {MAX_SIDE:,} pixels, but the header says {size}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"expected one side at most {MAX_ASPECT} times the other, but the header says {size}")


def exif_orientation(exif: bytes) -> int:
    """Orientation (tag 274 of the first directory) of an EXIF block; 1 where there is none or it is malformed."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start) if start + 2 <= len(exif) else (0,)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if (tag, kind) == (274, 3):
            return value if 1 <= value <= 8 else 1
    return 1


def _pillow(data: bytes, kind: str) -> Image.Image:
    """The picture, loaded by Pillow's decoder of that kind and no other."""
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error, zlib.error, OverflowError) as error:
        raise ImageError(f"the {kind} data are damaged and cannot be decoded; export the picture again") from error
    return image


def _values(image: Image.Image) -> npt.NDArray[Any]:
    """(H, W), or (H, W, C) with alpha last, of a Pillow image of any mode."""
    if image.has_transparency_data and image.mode in ("P", "PA", "L", "RGB", "1"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    return np.asarray(image)


# JPEG ----------------------------------------------------------------------------------------------------------------

_TRUNCATED_JPEG = "the JPEG ends in the middle of the picture; copy or export it again"
_ENTROPY_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FILL = re.compile(rb"\xff+")
_RESTARTS = [bytes((0xFF, marker)) for marker in range(0xD0, 0xD8)]
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15

# Bytes without a marker among them. Put behind a complete run of coded data they are skipped; behind a run that was
# cut off they are decoded as picture, which shows.
_FILLER = hashlib.shake_128(b"steel lens").digest(64).replace(b"\xff", b"\x55")


@dataclass(slots=True)
class _Frame:
    """Frame header of a JPEG, and what its scans have brought so far.

    Attributes:
        width: columns, in pixels.
        height: rows, in pixels.
        progressive: whether scans bring parts of the coefficients.
        sampling: component -> horizontal and vertical sampling factor.
        missing: component -> for each of its 64 frequencies the number of low bits still to come; 99 = all.
    """

    width: int
    height: int
    progressive: bool
    sampling: dict[int, tuple[int, int]]
    missing: dict[int, list[int]]

    @classmethod
    def parse(cls, marker: int, body: bytes) -> _Frame:
        if marker > 0xC2:
            raise ImageError("expected a baseline or progressive JPEG, but it is lossless, arithmetic or hierarchical")
        if len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise ImageError("the JPEG's frame header is damaged; copy or export it again")
        precision, height, width, count = struct.unpack_from(">BHHB", body)
        if precision != 8:
            raise ImageError(f"expected a JPEG of 8 bits, but it has {precision}; save it as PNG or TIFF")
        parts = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body), 3)}
        if count not in (1, 3, 4) or len(parts) != count or not all(1 <= f <= 4 for p in parts.values() for f in p):
            raise ImageError("expected a JPEG of 1, 3 or 4 colour components, but its frame header names others")
        return cls(width, height, marker == 0xC2, parts, {part: [99] * 64 for part in parts})

    def enter_scan(self, body: bytes) -> int:
        """Notes which coefficients a scan brings (T.81, G.1.1.1) and returns its number of coded units (A.2)."""
        count = body[0] if body else 0
        scan = [body[1 + 2 * i] for i in range(count)] if len(body) == 4 + 2 * count else []
        if not scan or not all(part in self.sampling for part in scan):
            raise ImageError("the header of a JPEG scan is damaged; copy or export the picture again")
        first, last, low = (body[-3], min(body[-2], 63), body[-1] & 15) if self.progressive else (0, 63, 0)
        for part in scan:
            self.missing[part][first : last + 1] = [low] * (last + 1 - first)
        h_max = max(h for h, _ in self.sampling.values())
        v_max = max(v for _, v in self.sampling.values())
        h, v = self.sampling[scan[0]] if len(scan) == 1 else (1, 1)
        return math.ceil(math.ceil(self.width * h / h_max) / 8) * math.ceil(math.ceil(self.height * v / v_max) / 8)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """Marker, content, whole bytes and the coded data behind it, of each segment up to the end of the first picture."""
    at = 2
    for _ in range(MAX_PARTS):
        if data[at : at + 2] == b"\xff\xff":
            at = _FILL.match(data, at).end() - 1  # type: ignore[union-attr]
        if at + 2 > len(data):
            raise ImageError(_TRUNCATED_JPEG)
        marker = data[at + 1]
        if marker == 0xD9 and data[at] == 0xFF:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD8 or length < 2:
            raise ImageError(f"the JPEG is damaged near byte {at:,}; copy or export it again")
        whole = data[at : at + 2 + length]
        if len(whole) != 2 + length:
            raise ImageError(_TRUNCATED_JPEG)
        at += len(whole)
        coded = b""
        if marker == 0xDA:
            end = _ENTROPY_END.search(data, at)
            if end is None:
                raise ImageError(_TRUNCATED_JPEG)
            coded = data[at : end.start()]
            at = end.start()
        yield marker, whole[4:], whole, coded
    raise ImageError(f"expected a JPEG of at most {MAX_PARTS:,} segments; export the picture again")


def _needed(marker: int, body: bytes) -> bool:
    """Whether a decoder needs the segment: tables, frame and scan headers, and how the colours are coded."""
    return (
        marker in (0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD)
        or (marker == 0xE0 and body.startswith(b"JFIF\0"))
        or (marker == 0xEE and body.startswith(b"Adobe"))
    )


def read_jpeg(data: bytes, max_pixels: int) -> Raw:
    """The first picture of a JPEG or MPO file.

    The picture is decoded twice, the second time with filler behind each run of coded data. Both are equal only if the
    decoder found all rows in the data, since libjpeg makes up what is missing without an error.

    Raises:
        ImageError: the file is cut off, damaged, too large or of an unsupported coding.
    """
    plain, filled = [b"\xff\xd8"], [b"\xff\xd8"]
    notes: list[str] = []
    frame: _Frame | None = None
    scans, interval, orientation = 0, 0, 1
    for marker, body, whole, coded in _jpeg_segments(data):
        if marker in _FRAMES:
            frame = _Frame.parse(marker, body)
            check_size(frame.width, frame.height, max_pixels)
        elif marker == 0xDD:
            interval = int.from_bytes(body, "big")
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(body[6:])
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            notes.append("first picture of a file that may hold several (MPO)")
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageError(f"expected a JPEG of at most {MAX_SCANS} scans; save it as baseline JPEG or PNG")
            units = frame.enter_scan(body) if frame else 0
            restarts = math.ceil(units / interval) - 1 if interval else 0
            if not restarts <= sum(map(coded.count, _RESTARTS)) <= restarts + 1:  # some encoders end on one
                raise ImageError(_TRUNCATED_JPEG)
        if _needed(marker, body):
            plain += whole, coded
            filled += whole, _RESTART.sub(lambda restart: _FILLER + restart[0], coded), _FILLER if coded else b""
    if frame is None or any(any(bits) for bits in frame.missing.values()):
        raise ImageError(_TRUNCATED_JPEG)
    image = _pillow(b"".join(plain) + b"\xff\xd9", "JPEG")
    again = _pillow(b"".join(filled) + b"\xff\xd9", "JPEG")
    if ImageChops.difference(image, again).getbbox() is not None:
        raise ImageError(_TRUNCATED_JPEG)
    if image.mode == "CMYK":
        notes.append("converted from CMYK")
    return Raw(_values(image), orientation=orientation, notes=notes)


# PNG -----------------------------------------------------------------------------------------------------------------

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 1 << 16


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Type, content and whole bytes of each chunk up to IEND, its checksum proven."""
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


def _png_head(content: memoryview) -> tuple[int, ...]:
    """Width, height, bit depth, colour type, compression, filter and interlace method."""
    head = struct.unpack(">IIBBBBB", content) if len(content) == 13 else (0,) * 7
    if head[2] not in _PNG_DEPTHS.get(head[3], ()) or head[4] or head[5] or head[6] > 1:
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


def read_png(data: bytes, max_pixels: int) -> Raw:
    """The still picture of a PNG file.

    Raises:
        ImageError: the file is cut off, a checksum is wrong, rows are missing, or it is too large.
    """
    head: tuple[int, ...] = ()
    kept: list[memoryview] = []
    rows: list[memoryview] = []
    notes: list[str] = []
    orientation, significant = 1, 16
    for kind, content, whole in _png_chunks(data):
        if bool(head) == (kind == b"IHDR"):
            raise ImageError("expected a PNG with one header at its start; the file is damaged, export it again")
        if kind == b"IHDR":
            head = _png_head(content)
            check_size(head[0], head[1], max_pixels)
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
    _check_rows(rows, sum(h * (1 + -(-w * depth * _PNG_CHANNELS[colour] // 8)) for w, h in sizes))
    clean = data[:8] + b"".join(kept)
    if depth < 16 or colour == 0:
        values = _values(_pillow(clean, "PNG"))
    else:
        values = _png_colour_16(clean, _PNG_CHANNELS[colour])  # Pillow would keep 8 of the 16 bits
    bits = _png_bits(values, significant) if depth == 16 and significant < 16 else None
    return Raw(values, bits, orientation, notes=notes)


def _png_bits(values: npt.NDArray[Any], significant: int) -> int:
    """Depth of 16-bit values whose sBIT chunk names fewer bits.

    The standard moves them to the top; cameras that write right-aligned values set the same chunk.
    """
    top, used = int(values.max()), int(np.bitwise_or.reduce(values, axis=None))
    moved_up = top >= 4096 and used % (1 << (16 - significant)) == 0
    return 16 if top >> significant or moved_up else significant


def _png_colour_16(data: bytes, channels: int) -> npt.NDArray[Any]:
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ImageError("the PNG data are damaged and cannot be decoded; export the picture again")
    order = {2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV gives blue first, and grey threefold
    return values[..., order]


# BMP -----------------------------------------------------------------------------------------------------------------


def read_bmp(data: bytes, max_pixels: int) -> Raw:
    """An uncompressed Windows bitmap.

    Raises:
        ImageError: the file is cut off, compressed, too large, or its header contradicts itself.
    """
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
    check_size(width, abs(height), max_pixels)
    if depth not in (1, 4, 8, 16, 24, 32):
        raise ImageError(f"expected a BMP of 1, 4, 8, 16, 24 or 32 bits, but its header says {depth}")
    if not (compression == 0 or (compression in (3, 6) and depth in (16, 32))):
        raise ImageError("expected an uncompressed BMP, but it is compressed; save it as PNG")
    if offset < 14 + header or offset + (width * depth + 31) // 32 * 4 * abs(height) > len(data):
        raise ImageError(
            f"the BMP's header promises {width:,} x {abs(height):,} pixels of {depth} bits, but the file ends before"
            " that; copy or export it again"
        )
    return Raw(_values(_pillow(data, "BMP")))


# TIFF ----------------------------------------------------------------------------------------------------------------

_TIFF_MODELS = {0: "white is zero", 1: "grey", 2: "RGB", 3: "palette"}
_TIFF_BROKEN = "the TIFF's header is damaged; export the picture again"
_TIFF_ERRORS = (
    tifffile.TiffFileError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(slots=True)
class _Layout:
    """What the first page of a TIFF says about its pixels, in plain types."""

    width: int
    height: int
    samples: int
    bits: int
    sample_format: int
    planar: bool
    model: int
    compression: int
    predictor: int
    tile: tuple[int, int] | None  # rows, columns
    rows_per_strip: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    alpha: int | None  # ExtraSamples: 0 unspecified, 1 premultiplied, 2 not premultiplied
    colours: npt.NDArray[Any] | None
    top: int | None
    orientation: int
    order: str
    more_pages: bool

    @property
    def predicted(self) -> bool:
        """Whether differences are stored; the tag means nothing to the other compressions."""
        return self.predictor != 1 and self.compression in (5, 8, 32_946)


def _tiff_layout(data: bytes) -> _Layout:
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
                predictor=int(page.predictor),
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
    except _TIFF_ERRORS as error:
        raise ImageError(_TIFF_BROKEN) from error


def read_tiff(data: bytes, max_pixels: int) -> Raw:
    """The first page of a TIFF or BigTIFF file, in strips or tiles, chunky or planar.

    Raises:
        ImageError: the file is cut off or damaged, too large, or of a kind that is not read.
    """
    page = _tiff_layout(data)
    check_size(page.width, page.height, max_pixels)
    if page.model not in _TIFF_MODELS:
        raise ImageError("expected a grey, RGB or palette TIFF, but it has another colour model; save it as PNG")
    colours = 3 if page.model == 2 else 1
    if page.samples - colours not in (0, 1):
        raise ImageError(f"expected a TIFF of {colours} channels, with or without alpha, but it has {page.samples}")
    if page.width * page.height * page.samples * page.bits > 64 * max_pixels:
        raise ImageError(f"expected a TIFF of at most {max_pixels * 8 / 1e6:g} MB unpacked; save it with fewer bits")
    values = _tiff_values(data, page)
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


def _tiff_dtype(page: _Layout) -> np.dtype[Any]:
    """Type of the page's numbers as stored; uint8 or uint16 for those packed to fewer bits."""
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(page.sample_format, "")
    if page.bits in {"u": (8, 16, 32), "i": (8, 16, 32), "f": (16, 32, 64)}.get(kind, ()):
        dtype = np.dtype(f"{page.order}{kind}{page.bits // 8}")
    elif kind == "u" and 1 <= page.bits < 16:
        dtype = np.dtype(np.uint8 if page.bits < 8 else np.uint16)
    else:
        raise ImageError(f"expected a TIFF of 1 to 16 bits, 32-bit or float numbers, but it has {page.bits} bits")
    if page.compression not in _TIFF_CODECS:
        raise ImageError("expected a TIFF uncompressed or with LZW, deflate or PackBits; save it as one of these")
    if page.predicted and (page.predictor != 2 or kind == "f" or page.bits % 8):
        raise ImageError("expected a TIFF without a floating-point predictor; save it uncompressed")
    return dtype


def _tiff_grid(data: bytes, page: _Layout) -> tuple[int, int, Iterator[tuple[int, int, int]]]:
    """Rows and columns of a strip or tile, and the plane, first row and first column of each of them."""
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


def _tiff_values(data: bytes, page: _Layout) -> npt.NDArray[Any]:
    """(H, W, C) numbers of the page, every strip or tile proven to hold all of its rows."""
    stored = _tiff_dtype(page)
    native = stored.newbyteorder("=")
    rows, columns, places = _tiff_grid(data, page)
    samples = 1 if page.planar else page.samples
    stride = -(-columns * samples * page.bits // 8)
    out = np.empty((page.height, page.width, page.samples), native)
    for (plane, top, left), offset, count in zip(places, page.offsets, page.counts, strict=True):
        high = rows if page.tile else min(rows, page.height - top)
        piece = _TIFF_CODECS[page.compression](data[offset : offset + count], high * stride)
        if len(piece) < high * stride:
            raise ImageError("a strip or tile of the TIFF lacks rows; copy or export it again")
        if page.bits == 8 * stored.itemsize:
            block = np.frombuffer(piece, stored, high * columns * samples).astype(native)
        else:
            block = _unpack_bits(piece, high, stride, columns * samples, page.bits)
        block = block.reshape(high, columns, samples)
        if page.predicted:
            block = np.cumsum(block, axis=1, dtype=native)
        target = out[top : top + high, left : left + columns, plane : plane + samples]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return out


def _unpack_bits(piece: bytes, rows: int, stride: int, count: int, bits: int) -> npt.NDArray[np.uint16]:
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
        return _pillow(head + padded + struct.pack("<H", len(entries)) + table + b"\0\0\0\0", "TIFF").tobytes()

    return unpack


_TIFF_CODECS: dict[int, Callable[[bytes, int], bytes]] = {
    1: lambda piece, size: piece[:size],
    5: _libtiff(5),
    8: _inflate,
    32_773: _libtiff(32_773),
    32_946: _inflate,
}
