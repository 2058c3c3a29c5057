"""Picture files of every kind that is read, and of every kind that must be refused; nothing is downloaded."""

import io
import pickle
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 48, 64


def plate(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """(H, W) uint8: rolled steel with a scratch and a patch; every value from 0 to 255 occurs in a large one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    grey = 130 + 25 * np.sin(rows / 3) + 20 * np.sin(columns / 17) + rng.normal(0, 12, (height, width))
    grey[(rows - columns) % 41 < 2] += 90
    grey[height // 3 : height // 2, width // 2 :] -= 110
    grey[0, :2] = 0, 255
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def colour(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8 with different channels."""
    return np.stack([plate(height, width, seed) for seed in range(3)], axis=2)


def pillow_bytes(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_bytes(values: np.ndarray, **options: Any) -> bytes:
    """The file that tifffile writes."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk with its true checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(
    values: np.ndarray,
    extra: Iterable[bytes] = (),
    size: tuple[int, int] | None = None,
    rows: int | None = None,
    data: bytes | None = None,
) -> bytes:
    """A PNG written by hand, so that its header can lie.

    Args:
        values: (H, W) or (H, W, C), C = 2 grey and alpha, 3 RGB, 4 RGB and alpha; uint8 or uint16.
        extra: whole chunks put before the picture data.
        size: width and height in the header.
        rows: number of rows that are really written.
        data: compressed rows, in place of those of `values`.
    """
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    head = struct.pack(">IIBBBBB", *(size or (width, height)), values.dtype.itemsize * 8, kind, 0, 0, 0)
    stored = values.astype(values.dtype.newbyteorder(">"))
    data = data or zlib.compress(b"".join(b"\0" + row.tobytes() for row in stored[: height if rows is None else rows]))
    parts = [png_chunk(b"IHDR", head), *extra, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def raw_tiff(
    width: int,
    height: int,
    bits: int,
    data: bytes,
    *,
    model: int = 1,
    counts: int | None = None,
    order: str = "<",
    compression: int = 1,
) -> bytes:
    """A grey TIFF of one uncompressed strip, written by hand.

    Args:
        width: ImageWidth of the header.
        height: ImageLength of the header.
        bits: BitsPerSample.
        data: bytes of the strip.
        model: PhotometricInterpretation; 0 white is zero, 1 black is zero.
        counts: StripByteCounts, if it shall differ from the length of `data`.
        compression: number of the compression that `data` is in.
        order: "<" little endian, ">" big endian.
    """
    length = len(data) if counts is None else counts
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, model)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, length)]
    pad = b"\0" * (len(data) % 2)
    table = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'I' if kind == 4 else 'HH'}", *value)
        for tag, kind, number in tags
        for value in [(number,) if kind == 4 else (number, 0)]
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(f"{order}I", 8 + len(data) + len(pad))
    return magic + start + data + pad + struct.pack(f"{order}H", len(tags)) + table + b"\0\0\0\0"


def packed(values: np.ndarray, bits: int) -> bytes:
    """(H, W) numbers packed to `bits` bits, high bit first, each row starting on a byte."""
    rows = (values[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(rows.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def half_jpeg(data: bytes, share: float) -> bytes:
    """The first share of a JPEG with an end marker appended: libjpeg decodes it without an error."""
    return data[: int(len(data) * share)].rstrip(b"\xff") + b"\xff\xd9"


def many_scans(data: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + b"\xff\xd9"


def exif(orientation: int) -> bytes:
    """An EXIF block without its "Exif" prefix that holds only the orientation."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def _write(folder: Path, files: dict[str, tuple[str, bytes]]) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, (suffix, data) in files.items():
        paths[name] = folder / f"{name}{suffix}"
        paths[name].write_bytes(data)
    return paths


def good_images() -> dict[str, tuple[str, bytes]]:
    """Name -> (suffix, bytes) of files that are read, each a `plate()` or `colour()` of 48 x 64 pixels."""
    grey, rgb = plate(), colour()
    deep = grey.astype(np.uint16) * 257
    twelve = np.rint(grey * (4095 / 255)).astype(np.uint16)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    return {
        "jpeg_grey": (".jpg", pillow_bytes(grey, "JPEG", quality=95)),
        "jpeg_colour": (".jpeg", pillow_bytes(rgb, "JPEG", quality=90)),
        "jpeg_progressive": (".jpg", pillow_bytes(rgb, "JPEG", quality=90, progressive=True)),
        "jpeg_restarts": (".jpg", pillow_bytes(rgb, "JPEG", quality=90, restart_marker_blocks=3)),
        "jpeg_cmyk": (".jpg", pillow_bytes(cmyk, "JPEG", quality=95)),
        "jpeg_turned": (".jpg", pillow_bytes(grey, "JPEG", exif=b"Exif\0\0" + exif(6))),
        "jpeg_garbage_behind": (".jpg", pillow_bytes(grey, "JPEG") + b"appended by a camera"),
        "mpo": (".mpo", pillow_bytes(rgb, "MPO", save_all=True, append_images=[Image.fromarray(rgb)])),
        "png_grey": (".png", pillow_bytes(grey, "PNG")),
        "png_colour": (".png", pillow_bytes(rgb, "PNG")),
        "png_palette": (".png", pillow_bytes(Image.fromarray(grey).convert("P"), "PNG")),
        "png_bilevel": (".png", pillow_bytes(Image.fromarray(grey > 127), "PNG")),
        "png_grey_alpha": (".png", pillow_bytes(Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])), "PNG")),
        "png_alpha": (".png", png_bytes(np.dstack([rgb, grey]))),
        "png_16": (".png", pillow_bytes(deep, "PNG")),
        "png_12_in_16": (".png", pillow_bytes(twelve, "PNG")),
        "png_16_colour": (".png", png_bytes(rgb.astype(np.uint16) * 257)),
        "png_16_grey_alpha": (".png", png_bytes(np.dstack([deep, np.full_like(deep, 65_535)]))),
        "bmp_grey": (".bmp", pillow_bytes(grey, "BMP")),
        "bmp_colour": (".bmp", pillow_bytes(rgb, "BMP")),
        "tiff_grey": (".tif", tiff_bytes(grey)),
        "tiff_colour": (".tiff", tiff_bytes(rgb, photometric="rgb")),
        "tiff_16": (".tif", tiff_bytes(deep)),
        "tiff_16_big_endian": (".tif", tiff_bytes(deep, byteorder=">")),
        "tiff_16_colour_planar": (
            ".tif",
            tiff_bytes(np.moveaxis(rgb.astype(np.uint16) * 257, 2, 0), photometric="rgb", planarconfig="separate"),
        ),
        "tiff_12_packed": (".tif", raw_tiff(WIDTH, HEIGHT, 12, packed(twelve, 12))),
        "tiff_float": (".tif", tiff_bytes((grey / 255).astype(np.float32))),
        "tiff_white_is_zero": (".tif", tiff_bytes(255 - grey, photometric="miniswhite")),
        "tiff_lzw": (".tif", pillow_bytes(grey, "TIFF", compression="tiff_lzw")),
        "tiff_deflate": (".tif", tiff_bytes(deep, compression="zlib", predictor=True)),
        "tiff_tiles": (".tif", tiff_bytes(grey, tile=(16, 32))),
        "tiff_pages": (".tif", tiff_bytes(np.stack([grey, grey[::-1]]))),
        "png_named_jpg": (".jpg", pillow_bytes(grey, "PNG")),
    }


def write_good_images(folder: Path) -> dict[str, Path]:
    """Writes `good_images` to a folder and returns their paths by name."""
    return _write(folder, good_images())


def bad_images() -> dict[str, tuple[str, bytes, str]]:
    """Name -> (suffix, bytes, a few words that the refusal must hold)."""
    grey, rgb = plate(), colour()
    jpeg, png = pillow_bytes(grey, "JPEG", quality=95), pillow_bytes(grey, "PNG")
    bmp, tiff, deflated = pillow_bytes(grey, "BMP"), tiff_bytes(grey), tiff_bytes(grey, compression="zlib")
    progressive = pillow_bytes(rgb, "JPEG", progressive=True)
    restarts = pillow_bytes(rgb, "JPEG", restart_marker_blocks=3)
    wrong_sum = bytearray(png)
    wrong_sum[-14] ^= 1  # in the checksum of the last data chunk
    clear = np.dstack([grey, np.zeros_like(grey)])
    signed = grey.astype(np.int32) - 40
    with tifffile.TiffFile(io.BytesIO(pillow_bytes(grey, "TIFF", compression="tiff_lzw"))) as file:
        page = file.pages.first
        file.filehandle.seek(page.dataoffsets[0])
        lzw = file.filehandle.read(page.databytecounts[0])
    cut = "in the middle"
    return {
        "empty": (".png", b"", "empty"),
        "zeros": (".bmp", bytes(4096), "zeros"),
        "text": (".jpg", b"this is not a picture\n", "text"),
        "pickle": (".png", pickle.dumps({"a": 1}), "pickle"),
        "gif": (".png", pillow_bytes(grey, "GIF"), "a GIF"),
        "webp": (".jpg", pillow_bytes(grey, "WEBP"), "WebP"),
        "pdf": (".jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        "heic": (".jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        "zip": (".png", b"PK\x03\x04" + bytes(40), "zip"),
        "noise": (".png", bytes(np.random.default_rng(1).integers(128, 256, 999, dtype=np.uint8)), "another kind"),
        "half_jpeg": (".jpg", half_jpeg(jpeg, 0.5), cut),
        "half_jpeg_progressive": (".jpg", half_jpeg(progressive, 0.6), cut),
        "half_jpeg_restarts": (".jpg", half_jpeg(restarts, 0.6), cut),
        "half_jpeg_without_end": (".jpg", jpeg[: len(jpeg) // 2], cut),
        "jpeg_many_scans": (".jpg", many_scans(progressive, 60), "scans"),
        "jpeg_12_bits": (".jpg", jpeg.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"), "8 bits"),
        "half_png": (".png", png[: len(png) // 2], cut),
        "png_checksum": (".png", bytes(wrong_sum), "checksum"),
        "png_few_rows": (".png", png_bytes(grey, rows=20), "only"),
        "png_bomb": (".png", png_bytes(grey, size=(20_000, 20_000)), "megapixels"),
        "png_zero_size": (".png", png_bytes(grey, size=(0, 48)), "at least one pixel"),
        "png_thread": (".png", png_bytes(grey, size=(30_000, 1)), "times the other"),
        "png_clear": (".png", png_bytes(clear), "transparent"),
        "half_bmp": (".bmp", bmp[: len(bmp) // 2], "file ends before"),
        "bmp_lies": (".bmp", bmp[:18] + struct.pack("<i", 4000) + bmp[22:], "file ends before"),
        "bmp_bomb": (".bmp", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:], "megapixels"),
        "half_tiff": (
            ".tif",
            raw_tiff(WIDTH, HEIGHT, 8, grey.tobytes()[:900], counts=WIDTH * HEIGHT),
            "more data than",
        ),
        "half_tiff_strip": (".tif", raw_tiff(WIDTH, HEIGHT, 8, grey.tobytes()[:900]), "lacks rows"),
        "half_tiff_lzw": (".tif", raw_tiff(WIDTH, HEIGHT, 8, lzw[: len(lzw) // 2], compression=5), "damaged"),
        "half_tiff_deflate": (
            ".tif",
            raw_tiff(WIDTH, HEIGHT, 8, zlib.compress(grey.tobytes())[:-900], compression=8),
            "lacks rows",
        ),
        "tiff_cut": (".tif", deflated[:-200], "TIFF"),
        "tiff_bomb": (".tif", raw_tiff(50_000, 50_000, 8, b"\0" * 64), "megapixels"),
        "tiff_nan": (".tif", tiff_bytes(np.full((8, 8), np.nan, np.float32)), "finite"),
        "tiff_negative": (".tif", tiff_bytes(signed), "from 0 upwards"),
        "tiff_32_bits": (".tif", tiff_bytes(grey.astype(np.uint32) * 16_843_009), "at most 16 bits"),
        "tiff_garbage": (".tif", tiff[:8] + b"\xa5" * 400, "TIFF"),
    }


def write_bad_images(folder: Path) -> dict[str, Path]:
    """Writes `bad_images` to a folder and returns their paths by name."""
    return _write(folder, {name: (suffix, data) for name, (suffix, data, _) in bad_images().items()})


def refusals() -> dict[str, str]:
    """Words that the message about each of the bad images must hold."""
    return {name: words for name, (_, _, words) in bad_images().items()}
