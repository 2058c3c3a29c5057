"""Pictures from untrusted files: `read_image` returns all of a picture at its true brightness, or says why not.

Only JPEG (with MPO), PNG, BMP and TIFF are decoded, told apart by content. Size and pixel count are checked from the
header, and half-read pictures are refused, before a picture can be called clear.
"""

import hashlib
import io
import stat
import warnings
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image

from steel_core.data.images.bmp import read_bmp
from steel_core.data.images.jpeg import read_jpeg
from steel_core.data.images.png import read_png
from steel_core.data.images.raw import MAX_PIXELS, Raw
from steel_core.data.images.tiff import read_tiff
from steel_core.errors import ImageError
from steel_core.types import AnyArray, SteelImage, UInt16Array

MAX_BYTES = 200_000_000
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")

_ORIENTATION = 274  # EXIF 2.32

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".bmp", ".dib", ".tif", ".tiff"})
"""Lower-case file name endings by which a folder is searched. A file's content decides how it is read."""

_DECODERS = {
    b"\xff\xd8\xff": read_jpeg,
    b"\x89PNG\r\n\x1a\n": read_png,
    b"BM": read_bmp,
    b"II*\0": read_tiff,
    b"MM\0*": read_tiff,
    b"II+\0": read_tiff,
    b"MM\0+": read_tiff,
}

_OTHERS = (
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "a HEIC or AVIF picture, or a video"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cJXL", "a JPEG XL picture"),
    (0, b"8BPS", "a Photoshop document"),
    (128, b"DICM", "a DICOM picture"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"<svg", "an SVG drawing"),
)


def read_image(source: Path | str | bytes, *, name: str | None = None) -> SteelImage:
    """Reads one picture as (H, W) grey or (H, W, 3) RGB; uint8, or uint16 where the source holds more.

    A source of more than 8 bits a pixel is scaled to 16 bits by its true depth: as the file declares it (PNG sBIT, TIFF
    BitsPerSample or MaxSampleValue), else as the values suggest (`guess_bit_depth`); the note says which was assumed.

    Raises:
        ImageError: the file is missing, too large, of another kind, damaged or incomplete; the message says which.
    """
    display_name = base_name(name or ("image" if isinstance(source, bytes) else str(source)))
    try:
        data = source if isinstance(source, bytes) else _read_bytes(Path(source))
        raw = _decode(data)
        pixels = _to_pixels(raw)
    except ImageError as error:
        raise ImageError(f"{display_name}: {error}") from error
    return SteelImage(pixels, display_name, hashlib.sha256(data).hexdigest(), "; ".join(raw.notes))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, upright, from the header alone; that the rest is sound only `read_image` proves."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that is refused below, and of odd tags
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{base_name(str(path))}: expected a picture ({', '.join(FORMATS)})") from error
    if height * width > MAX_PIXELS:
        raise ImageError(f"{base_name(str(path))}: expected at most {MAX_PIXELS // 10**6} megapixels")
    return (width, height) if turned else (height, width)


def base_name(name: str) -> str:
    """The last part of a path in either notation, characters that cannot be printed replaced by "?"."""
    return "".join(c if c.isprintable() else "?" for c in PureWindowsPath(name).name) or "image"


def encode_png(pixels: AnyArray) -> bytes:
    """A PNG file of (H, W) or (H, W, 3) uint8, or (H, W) uint16 pixels; a ValueError for any other."""
    if not (pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2:] == (3,))) and not (
        pixels.dtype == np.uint16 and pixels.ndim == 2
    ):
        raise ValueError(f"expected uint8 grey or RGB, or uint16 grey; got {pixels.dtype} {pixels.shape}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def guess_bit_depth(values: UInt16Array) -> tuple[int, int]:
    """Guesses how 16-bit storage was filled: the depth in bits, and by how many bits the values lie too high.

    Values that are multiples of 257 use the full range. Multiples of 4, 16, 64 or 256 are 14, 12, 10 or 8 bits moved to
    the top, unless all lie in the lowest sixteenth: no lit plate is that dark, but 8 bits moved up to 10 or 12 look so.
    All else is right-aligned in the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value.
    """
    top, used = int(values.max()), int(np.bitwise_or.reduce(values, axis=None))
    if np.array_equal(values >> 8, values & 255):
        return 16, 0
    shift = next((s for s in (8, 6, 4, 2) if used % (1 << s) == 0), 0)
    if shift == 8 or (shift and top >= 4096):
        return 16 - shift, shift
    return next(bits for bits in (8, 10, 12, 14, 16) if top < 1 << bits), 0


def _read_bytes(path: Path) -> bytes:
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise ImageError("expected an image file, but this is a folder")
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
            raise ImageError("expected an image file, but this is a device or a pipe")
        _check_bytes(state.st_size)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # the file may grow meanwhile
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except PermissionError:
        raise ImageError("the file may not be read; ask for permission to it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is malformed"
        raise ImageError(f"the file cannot be read ({reason})") from None
    return data


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"expected a file of at most {MAX_BYTES // 10**6} MB, but it has {size / 1e6:,.0f} MB")
    if size == 0:
        raise ImageError("expected an image, but the file is empty")


def _decode(data: bytes) -> Raw:
    _check_bytes(len(data))
    for magic, decoder in _DECODERS.items():
        if data.startswith(magic):
            return decoder(data)
    raise ImageError(f"expected a picture ({', '.join(FORMATS)}), but this is {_describe_content(data)}")


def _describe_content(data: bytes) -> str:
    for at, magic, what in _OTHERS:
        if data[at : at + len(magic)] == magic:
            return what
    if data[0] == 0x80 and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which is never opened"
    if not data.strip(b"\0"):
        return "a file of zeros, as a broken copy leaves it"
    try:
        text = data[:1024].decode("utf-8", errors="strict" if len(data) <= 1024 else "ignore")
    except UnicodeDecodeError:
        return "a file of another kind"
    return "text" if all(c.isprintable() or c.isspace() for c in text) else "a file of another kind"


def _to_pixels(raw: Raw) -> AnyArray:
    values, alpha = raw.values, None
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1]
        if values.shape[2] == 1:
            values = values[..., 0]
    pixels = _scale_to_full(values, raw)
    if raw.white_is_zero:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if alpha is not None:
        pixels = _put_on_black(pixels, alpha, raw)
    if raw.orientation != 1:
        pixels = _turn_upright(pixels, raw.orientation)
        raw.notes.append("turned as its orientation tag says")
    return np.ascontiguousarray(pixels)


def _scale_to_full(values: AnyArray, raw: Raw) -> AnyArray:
    if values.dtype == np.uint8:
        bits = raw.bits or 8
        return values if bits == 8 else _stretch(values, bits, 8)
    if values.dtype.kind == "f":
        return _scale_floats(values, raw)
    if values.dtype != np.uint16:
        low, top = int(values.min()), int(values.max())
        if low < 0:
            raise ImageError(f"expected brightness from 0 upwards, but the darkest pixel is {low:,}")
        if top > 65_535:
            raise ImageError(f"expected at most 16 bits (65,535), but the brightest pixel is {top:,}; save 16 bits")
        values = values.astype(np.uint16)
    if raw.bits is not None:
        bits, shift, why = raw.bits, 0, "as the file declares"
    else:
        bits, shift = guess_bit_depth(values)
        top = int(values.max())
        why = "left-aligned, assumed from the values" if shift else f"assumed, as the brightest pixel is {top:,}"
    raw.notes.append(f"{bits} bits a pixel, {why}")
    return values if bits == 16 else _stretch(values >> shift if shift else values, bits, 16)


def _stretch(values: AnyArray, bits: int, to: int) -> AnyArray:
    full = (1 << bits) - 1
    table = (np.arange(full + 1, dtype=np.uint64) * ((1 << to) - 1) + full // 2) // full
    return table.astype(np.uint8 if to == 8 else np.uint16)[values]


def _scale_floats(values: AnyArray, raw: Raw) -> UInt16Array:
    low, top = float(values.min()), float(values.max())
    if not np.isfinite([low, top]).all():  # min and max carry a NaN on
        raise ImageError("expected finite numbers, but some pixels are infinite or not a number (NaN)")
    if low < 0 or top > 65_535:
        raise ImageError(f"expected brightness from 0 to 1, 255 or 65,535, but it runs from {low:g} to {top:g}")
    white = next(w for w in (1, 255, 65_535) if top <= w)
    raw.notes.append(f"floating-point brightness from 0 to {white:,} assumed, as the brightest pixel is {top:g}")
    return np.rint(values.astype(np.float64) * (65_535 / white)).astype(np.uint16)


def _put_on_black(pixels: AnyArray, alpha: AnyArray, raw: Raw) -> AnyArray:
    """The picture on black, so that what is not there looks neither bright nor defective by chance."""
    if alpha.dtype not in (np.uint8, np.uint16):
        raise ImageError("expected transparency in 8 or 16 bits; save the picture without an alpha channel")
    opaque = int(np.iinfo(alpha.dtype).max)
    if int(alpha.max()) == 0:
        raise ImageError("every pixel is transparent, so there is nothing to see; save it without an alpha channel")
    if int(alpha.min()) == opaque:
        return pixels
    share = float(np.count_nonzero(alpha < opaque)) / alpha.size
    raw.notes.append(f"transparent parts ({share:.1%} of the pixels) are shown on black")
    if raw.premultiplied:
        return pixels
    weight = alpha.astype(np.float32) / opaque
    weighted = pixels * (weight if pixels.ndim == 2 else weight[..., None])
    return np.asarray(np.rint(weighted), dtype=pixels.dtype)


def _turn_upright(pixels: AnyArray, orientation: int) -> AnyArray:
    """As it was seen, by EXIF 2.32, tag 274."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]
