"""What the decoders of all formats share: the raw picture that they give, the limits, and the checks.

Decoders are lenient: they fill the missing half of a photograph with grey and say nothing. Here each container is
walked first and refused unless every row is in it; the decoder gets only the parts that make up the picture. What is
refused raises an `ImageError` that says why.
"""

import io
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from steel_core.errors import ImageError
from steel_core.types import AnyArray

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535
MAX_ASPECT = 200
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
    """

    values: AnyArray
    bits: int | None = None
    orientation: int = 1
    white_is_zero: bool = False
    premultiplied: bool = False
    notes: list[str] = field(default_factory=list)


def check_size(width: int, height: int) -> None:
    """Refuses a header's size before anything is allocated for it."""
    size = f"{width:,} x {height:,} pixels"
    if width < 1 or height < 1:
        raise ImageError(f"expected at least one pixel, but the header says {size}")
    if width * height > MAX_PIXELS:
        raise ImageError(f"expected at most {MAX_PIXELS / 1e6:g} megapixels, but the header says {size}")
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


def open_with_pillow(data: bytes, kind: str) -> Image.Image:
    """The picture, loaded by Pillow's decoder of that kind and no other."""
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error, zlib.error, OverflowError) as error:
        raise ImageError(f"the {kind} data are damaged and cannot be decoded; export the picture again") from error
    return image


def pixel_values(image: Image.Image) -> AnyArray:
    """(H, W), or (H, W, C) with alpha last, of a Pillow image of any mode."""
    if image.has_transparency_data and image.mode in ("P", "PA", "L", "RGB", "1"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    return np.asarray(image)
