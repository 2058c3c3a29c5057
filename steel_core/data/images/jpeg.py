"""JPEG files (ITU-T T.81), MPO among them."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ImageChops

from steel_core.data.images.raw import MAX_PARTS, Raw, check_size, exif_orientation, open_with_pillow, pixel_values
from steel_core.errors import ImageError

MAX_SCANS = 20
"""Largest number of scans of a JPEG; common encoders write 1 to 12, and each one costs a pass over all pixels."""

_TRUNCATED = "the JPEG ends in the middle of the picture; copy or export it again"
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


def _parse_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """Marker, content, whole bytes and the coded data behind it, of each segment up to the end of the first picture."""
    at = 2
    for _ in range(MAX_PARTS):
        if data[at : at + 2] == b"\xff\xff":
            at = _FILL.match(data, at).end() - 1  # type: ignore[union-attr]
        if at + 2 > len(data):
            raise ImageError(_TRUNCATED)
        marker = data[at + 1]
        if marker == 0xD9 and data[at] == 0xFF:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD8 or length < 2:
            raise ImageError(f"the JPEG is damaged near byte {at:,}; copy or export it again")
        whole = data[at : at + 2 + length]
        if len(whole) != 2 + length:
            raise ImageError(_TRUNCATED)
        at += len(whole)
        coded = b""
        if marker == 0xDA:
            end = _ENTROPY_END.search(data, at)
            if end is None:
                raise ImageError(_TRUNCATED)
            coded = data[at : end.start()]
            at = end.start()
        yield marker, whole[4:], whole, coded
    raise ImageError(f"expected a JPEG of at most {MAX_PARTS:,} segments; export the picture again")


def _is_needed(marker: int, body: bytes) -> bool:
    return (
        marker in (0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD)
        or (marker == 0xE0 and body.startswith(b"JFIF\0"))
        or (marker == 0xEE and body.startswith(b"Adobe"))
    )


def read_jpeg(data: bytes) -> Raw:
    """The first picture of a JPEG or MPO file.

    The picture is decoded twice, the second time with filler behind each run of coded data. Both are equal only if the
    decoder found all rows in the data, since libjpeg makes up what is missing without an error.
    """
    plain, filled = [b"\xff\xd8"], [b"\xff\xd8"]
    notes: list[str] = []
    frame: _Frame | None = None
    scans, interval, orientation = 0, 0, 1
    for marker, body, whole, coded in _parse_segments(data):
        if marker in _FRAMES:
            frame = _Frame.parse(marker, body)
            check_size(frame.width, frame.height)
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
                raise ImageError(_TRUNCATED)
        if _is_needed(marker, body):
            plain += whole, coded
            filled += whole, _RESTART.sub(lambda restart: _FILLER + restart[0], coded), _FILLER if coded else b""
    if frame is None or any(any(bits) for bits in frame.missing.values()):
        raise ImageError(_TRUNCATED)
    image = open_with_pillow(b"".join(plain) + b"\xff\xd9", "JPEG")
    again = open_with_pillow(b"".join(filled) + b"\xff\xd9", "JPEG")
    if ImageChops.difference(image, again).getbbox() is not None:
        raise ImageError(_TRUNCATED)
    if image.mode == "CMYK":
        notes.append("converted from CMYK")
    return Raw(pixel_values(image), orientation=orientation, notes=notes)
