"""Reading pixels: true brightness, upright, whole, or a refusal in plain words."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.bad_images import (
    HEIGHT,
    WIDTH,
    bad_images,
    colour,
    exif,
    good_images,
    half_jpeg,
    many_scans,
    packed,
    pillow_bytes,
    plate,
    png_bytes,
    png_chunk,
    raw_tiff,
    refusals,
    tiff_bytes,
    write_bad_images,
    write_good_images,
)
from PIL import Image, ImageOps

from steel_core.data.images import raw, tiff
from steel_core.data.images.jpeg import MAX_SCANS
from steel_core.data.images.raw import MAX_PARTS
from steel_core.data.images.read import FORMATS, MAX_BYTES, SUFFIXES, encode_png, read_image
from steel_core.errors import ImageError

DATA = Path(os.environ.get("STEEL_DATA", Path(__file__).parents[4] / "shared" / "data"))
GREY = plate() / 255
STEP = 1 / 255


@pytest.fixture(autouse=True)
def _no_warnings(capfd):
    """No decoder may warn, in Python or on stderr, but for libtiff's lines on damaged LZW data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith(("tempfile.tif: Using code", "LZWDecode: "))] == []


# Good files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", good_images())
def test_good_file_is_read_from_disk_and_from_bytes(name, tmp_path):
    suffix, data = good_images()[name]
    path = write_good_images(tmp_path)[name]
    image = read_image(path)
    assert suffix in SUFFIXES
    assert image.name == f"{name}{suffix}"
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert sorted((image.height, image.width)) == [HEIGHT, WIDTH]
    assert image.pixels.dtype in (np.uint8, np.uint16)
    assert image.pixels.ndim == 2 or image.pixels.shape[2] == 3
    again = read_image(data, name="../../secret/other.png")
    assert again.name == "other.png"
    np.testing.assert_array_equal(again.pixels, image.pixels)
    np.testing.assert_array_equal(read_image(str(path)).pixels, image.pixels)


LOSSLESS_GREY = [
    name
    for name in good_images()
    if not name.startswith(("jpeg", "mpo")) and not any(w in name for w in ("colour", "alpha", "bilevel"))
] + ["png_grey_alpha", "png_16_grey_alpha"]


@pytest.mark.parametrize("name", LOSSLESS_GREY)
def test_lossless_grey_is_the_plate(name):
    np.testing.assert_allclose(read_image(good_images()[name][1]).grey(), GREY, rtol=0, atol=STEP / 2)


@pytest.mark.parametrize("name", ["png_colour", "png_16_colour", "bmp_colour", "tiff_colour", "tiff_16_colour_planar"])
def test_lossless_colour_keeps_its_channels(name):
    pixels = read_image(good_images()[name][1]).pixels
    np.testing.assert_array_equal(pixels, colour() * np.uint16(257) if pixels.dtype == np.uint16 else colour())


@pytest.mark.parametrize("name", [name for name in good_images() if name.startswith(("jpeg", "mpo"))])
def test_jpeg_equals_pillow(name):
    image = Image.open(io.BytesIO(good_images()[name][1]))
    expected = np.asarray(ImageOps.exif_transpose(image if image.mode == "L" else image.convert("RGB")))
    np.testing.assert_array_equal(read_image(good_images()[name][1]).pixels, expected)


def test_cmyk_jpeg_is_near_its_colours():
    difference = read_image(good_images()["jpeg_cmyk"][1]).pixels.astype(int) - colour()
    assert np.abs(difference).mean() < 8  # an inverted picture would be off by about 100


def test_notes_say_what_was_done():
    expected = {"mpo": "first picture", "tiff_pages": "first page", "jpeg_turned": "turned", "jpeg_cmyk": "CMYK"}
    for name, words in expected.items():
        assert words in read_image(good_images()[name][1]).note
    assert read_image(good_images()["png_grey"][1]).note == ""


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate", None])
@pytest.mark.parametrize("source", [plate(), colour(), plate().astype(np.uint16) * 257])
def test_compressed_tiff_of_pillow(compression, source):
    pixels = read_image(pillow_bytes(source, "TIFF", compression=compression)).pixels
    np.testing.assert_array_equal(pixels, source)


@pytest.mark.parametrize("mode", ["I;16", "RGB"])
def test_lzw_with_predictor(mode):
    source = plate().astype(np.uint16) * 257 if mode == "I;16" else colour()
    data = pillow_bytes(source, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    np.testing.assert_array_equal(read_image(data).pixels, source)


def test_interlaced_png():
    """Adam7 passes, written from the standard's table, of a picture whose size is no multiple of 8."""
    source = plate(13, 21)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in source[y::dy, x::dx])
    plain = png_bytes(source)
    head = bytearray(plain[16:29])
    head[12] = 1
    parts = [(b"IHDR", bytes(head)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    interlaced = plain[:8] + b"".join(png_chunk(*part) for part in parts)
    np.testing.assert_array_equal(read_image(interlaced).pixels, source)


# Brightness ----------------------------------------------------------------------------------------------------------


def shades(bits: int) -> np.ndarray:
    return np.rint(GREY * ((1 << bits) - 1)).astype(np.uint16)


DEPTHS = {
    "times 257": plate().astype(np.uint16) * 257,
    "times 256": plate().astype(np.uint16) * 256,
    "10 bits": shades(10),
    "12 bits": shades(12),
    "14 bits": shades(14),
    "16 bits": shades(16),
    "10 bits left-aligned": shades(10) << 6,
    "12 bits left-aligned": shades(12) << 4,
    "14 bits left-aligned": shades(14) << 2,
    "8 bits in the low byte": plate().astype(np.uint16),
    "8 bits moved to 10": plate().astype(np.uint16) << 2,
    "8 bits moved to 12": plate().astype(np.uint16) << 4,
}


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff big-endian", "png colour"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_does_not_change_brightness(depth, kind):
    values = DEPTHS[depth]
    data = {
        "png": lambda: png_bytes(values),
        "tiff": lambda: tiff_bytes(values),
        "tiff big-endian": lambda: tiff_bytes(values, byteorder=">"),
        "png colour": lambda: png_bytes(np.dstack([values] * 3)),
    }[kind]()
    image = read_image(data)
    assert image.pixels.dtype == np.uint16
    assert "bits a pixel" in image.note
    np.testing.assert_allclose(image.grey(), GREY, rtol=0, atol=STEP)


@pytest.mark.parametrize("scale", [257, 256])
def test_dark_plate_stays_dark(scale):
    dark = plate() // 20  # 0 to 12
    image = read_image(png_bytes(dark.astype(np.uint16) * scale))
    np.testing.assert_allclose(image.grey(), dark / 255, rtol=0, atol=STEP)


@pytest.mark.parametrize("moved", [0, 4])
def test_png_states_its_depth(moved):
    """sBIT 12: values at the top as the standard wants it, and at the bottom as some cameras write them."""
    dark = shades(12) // 3
    image = read_image(png_bytes(dark << moved, [png_chunk(b"sBIT", b"\x0c")]))
    np.testing.assert_allclose(image.grey(), dark / 4095, rtol=0, atol=STEP)


def test_tiff_states_its_depth():
    dark = shades(14) // 40  # would pass for 10 bits
    image = read_image(tiff_bytes(dark, extratags=[(281, 3, 1, 16383, True)]))
    np.testing.assert_allclose(image.grey(), dark / 16383, rtol=0, atol=STEP)
    assert "14 bits a pixel, as the file declares" in image.note


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14])
def test_packed_tiff(bits):
    full = (1 << bits) - 1
    values = np.rint(GREY * full).astype(int)
    image = read_image(raw_tiff(WIDTH, HEIGHT, bits, packed(values, bits)))
    np.testing.assert_allclose(image.grey(), values / full, rtol=0, atol=STEP / 2)


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero(bits, order):
    full = (1 << bits) - 1
    values = np.rint(GREY * full).astype(np.uint16)
    data = (full - values).astype(f"{order}u2").tobytes() if bits == 16 else packed(full - values, bits)
    image = read_image(raw_tiff(WIDTH, HEIGHT, bits, data, model=0, order=order))
    np.testing.assert_allclose(image.grey(), values / full, rtol=0, atol=STEP / 2)


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiff(white, dtype):
    if white == 65535 and dtype == np.float16:
        pytest.skip("float16 ends at 65,504")
    image = read_image(tiff_bytes((GREY * white).astype(dtype)))
    np.testing.assert_allclose(image.grey(), GREY, rtol=0, atol=STEP)
    assert f"0 to {white:,} assumed" in image.note


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_tiff_that_is_no_picture(value):
    values = GREY.astype(np.float32)
    values[3, 3] = value
    with pytest.raises(ImageError, match="finite"):
        read_image(tiff_bytes(values))


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int32])
def test_wide_integers_that_hold_16_bits(dtype):
    image = read_image(tiff_bytes(shades(12).astype(dtype)))
    np.testing.assert_allclose(image.grey(), GREY, rtol=0, atol=STEP)


def test_palette_tiff():
    table = np.random.default_rng(0).integers(0, 256, (3, 256))
    data = tiff_bytes(plate(), photometric="palette", colormap=(table * 257).astype(np.uint16))
    np.testing.assert_array_equal(read_image(data).pixels, table.T[plate()])


def test_transparent_parts_are_black_and_counted():
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:12] = 0
    image = read_image(png_bytes(np.dstack([plate(), alpha])))
    assert image.pixels[:12].max() == 0
    np.testing.assert_array_equal(image.pixels[12:], plate()[12:])
    assert "25.0%" in image.note


def test_every_orientation_is_undone_once():
    upright = Image.fromarray(plate())
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned left, so it is shown turned right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for tag in range(1, 9):
        stored = upright.transpose(turns[tag]) if tag > 1 else upright
        files = {
            "png": pillow_bytes(stored, "PNG", exif=exif(tag)),
            "tiff": pillow_bytes(stored, "TIFF", tiffinfo={274: tag}),
            "lzw": pillow_bytes(stored, "TIFF", tiffinfo={274: tag}, compression="tiff_lzw"),
            "big-endian": tiff_bytes(np.asarray(stored), extratags=[(274, 3, 1, tag, True)], byteorder=">"),
        }
        for kind, data in files.items():
            np.testing.assert_array_equal(read_image(data).pixels, plate(), err_msg=f"{kind} {tag}")
        jpeg = pillow_bytes(stored, "JPEG", quality=100, exif=b"Exif\0\0" + exif(tag))
        difference = read_image(jpeg).pixels.astype(int) - plate()
        assert np.abs(difference).max() <= 3, tag


def test_encode_png_round_trip():
    for pixels in (plate(), colour(), shades(16)):
        np.testing.assert_array_equal(read_image(encode_png(pixels)).pixels, pixels)
    with pytest.raises(ValueError, match="uint8"):
        encode_png(GREY)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bad_images())
def test_bad_file_is_refused_in_its_own_words(name, tmp_path):
    path = write_bad_images(tmp_path)[name]
    with pytest.raises(ImageError, match=refusals()[name]) as refusal:
        read_image(path)
    message = str(refusal.value)
    assert message.startswith(f"{path.name}: ")
    assert str(tmp_path) not in message
    assert "\n" not in message


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, words in {
        tmp_path / "missing.png": "no such file",
        tmp_path: "folder",
        tmp_path / "pipe.png": "pipe",
        "bad\0name.png": "malformed",
        tmp_path / ("x" * 300): "cannot be read",
    }.items():
        with pytest.raises(ImageError, match=words) as refusal:
            read_image(path)
        assert str(tmp_path) not in str(refusal.value)


def test_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="at most 200 MB"):
        read_image(path)


def test_pixels_are_capped(monkeypatch):
    with pytest.raises(ImageError, match="at most 50 megapixels"):
        read_image(png_bytes(plate(), size=(20_000, 20_000)))
    data = pillow_bytes(plate(), "PNG")
    monkeypatch.setattr(raw, "MAX_PIXELS", HEIGHT * WIDTH)
    assert read_image(data).height == HEIGHT
    monkeypatch.setattr(raw, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(ImageError, match="megapixels"):
        read_image(data)


def test_name_is_safe_to_print():
    with pytest.raises(ImageError) as refusal:
        read_image(b"", name="C:\\secret\\a\nb\x1b.png")
    assert str(refusal.value).startswith("a?b?.png: ")
    assert all(name in FORMATS for name in ("JPEG", "PNG", "BMP", "TIFF"))


BOMBS = {
    "png with too many rows": lambda: png_bytes(plate(), size=(6000, 6000), data=zeros(400)),
    "png with many pixels": lambda: png_bytes(plate(), size=(50_000, 50_000), data=zeros(400)),
    "png with a long text": lambda: png_bytes(plate(), [png_chunk(b"zTXt", b"a\0\0" + zeros(400))]),
    "tiff strip": lambda: raw_tiff(WIDTH, HEIGHT, 8, zeros(400), compression=8),
    "tiff with too few rows": lambda: raw_tiff(7000, 7000, 8, zeros(1), compression=8),
}

READ = """
import resource, sys
from pathlib import Path
from steel_core.data.images import raw, tiff
from steel_core.data.images.read import read_image
from steel_core.errors import ImageError
read_image(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(Path(sys.argv[2]))
except ImageError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def zeros(megabytes: int) -> bytes:
    """That much, compressed a thousandfold."""
    packer, block = zlib.compressobj(1), bytes(10**6)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_costs_little_memory(bomb, tmp_path):
    """How much the peak of a process rises that reads the bomb after a small file."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(good_images()["tiff_deflate"][1])
    large.write_bytes(BOMBS[bomb]())
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", READ, small, large], check=True, env=environment, capture_output=True, text=True
    )
    assert int(done.stdout) < 200  # MB


# Half-read pictures --------------------------------------------------------------------------------------------------

JPEG_KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "full colour": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 5},
    "progressive restarts": {"restart_marker_rows": 1, "progressive": True},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("quality", [10, 50, 90, 100])
@pytest.mark.parametrize("source", [plate(200, 200), colour(90, 131)], ids=["grey", "colour"])
def test_cut_jpeg_is_refused_and_whole_one_is_read(kind, quality, source):
    data = pillow_bytes(source, "JPEG", quality=quality, **JPEG_KINDS[kind])
    np.testing.assert_array_equal(read_image(data).pixels, np.asarray(Image.open(io.BytesIO(data))))
    for share in (0.3, 0.5, 0.7, 0.9, 0.97):
        for cut in (half_jpeg(data, share), data[: int(len(data) * share)]):
            with pytest.raises(ImageError):
                read_image(cut)


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("level", [0, 1, 77, 128, 254, 255])
def test_flat_jpeg_is_no_false_alarm(kind, level):
    for shape in ((64, 64), (17, 23), (8, 100, 3), (1, 1), (33, 16, 3)):
        data = pillow_bytes(np.full(shape, level, np.uint8), "JPEG", **JPEG_KINDS[kind])
        assert np.abs(read_image(data).pixels.astype(int) - level).max() <= 2


def test_lower_half_of_flat_grey_is_no_false_alarm():
    source = plate(128, 128)
    source[64:] = 128  # just what a decoder makes of missing rows
    read_image(pillow_bytes(source, "JPEG"))


def test_hole_in_a_jpeg_is_refused():
    data = pillow_bytes(plate(200, 200), "JPEG", quality=90)
    half = len(data) // 2
    with pytest.raises(ImageError):
        read_image(data[:half] + data[half + len(data) // 4 :])


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_cut_at_a_restart_marker_is_refused(progressive):
    """Each run of coded data is whole there; only the number of restarts shows that some are missing."""
    data = pillow_bytes(plate(), "JPEG", restart_marker_blocks=5, progressive=progressive)
    places = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    assert len(places) >= 9
    for at in places:
        for cut in (data[:at], data[: at + 2]):
            with pytest.raises(ImageError, match="in the middle"):
                read_image(cut + b"\xff\xd9")


def test_scans_are_bounded():
    data = pillow_bytes(plate(), "JPEG", progressive=True)
    usual = data.count(b"\xff\xda")
    read_image(many_scans(data, MAX_SCANS - usual))
    with pytest.raises(ImageError, match="scans"):
        read_image(many_scans(data, MAX_SCANS - usual + 1))


def test_progressive_jpeg_without_its_last_scan_is_refused():
    data = pillow_bytes(plate(), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="in the middle"):
        read_image(data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")


@pytest.mark.parametrize("name", [n for n in good_images() if n.startswith(("png", "bmp", "tiff"))])
def test_every_truncation_of_lossless_files_is_refused_or_whole(name):
    """Some files end in tags or padding that the picture does not need; then it must be the whole picture."""
    data = good_images()[name][1]
    whole = read_image(data).pixels
    for length in range(0, len(data) - 1, max(1, len(data) // 60)):
        try:
            image = read_image(data[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(image.pixels, whole)


# Damage at random ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", good_images())
def test_random_damage_ends_in_a_refusal_or_an_image(name, monkeypatch):
    for module in (raw, tiff):
        monkeypatch.setattr(module, "MAX_PIXELS", 10**6)
    data = good_images()[name][1]
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(120):
        broken = bytearray(data[: random.integers(1, len(data) + 1)] if random.random() < 0.3 else data)
        end = len(broken) if random.random() < 0.5 else min(len(broken), 400)  # headers deserve more damage
        for _ in range(random.integers(1, 8)):
            broken[random.integers(0, end)] = random.integers(0, 256)
        if name.startswith("tiff") and random.random() < 0.5:  # the directory often lies at the end
            broken[-random.integers(1, min(len(broken), 300))] = random.integers(0, 256)
        try:
            image = read_image(bytes(broken), name="x")
        except ImageError as error:
            assert str(error).startswith("x: ")
        else:
            assert image.height * image.width <= 10**6


@pytest.mark.parametrize("name", [n for n in good_images() if n.startswith("png")])
def test_png_notices_every_damaged_byte(name):
    data = good_images()[name][1]
    for at in range(0, len(data), max(1, len(data) // 80)):
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(ImageError):
            read_image(bytes(broken))


def test_threads_see_the_serial_result():
    files = list(good_images().values()) * 4
    serial = [read_image(data).pixels for _, data in files]
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda file: read_image(file[1]).pixels, files))
    for one, other in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (limit, filters) == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))


def test_number_of_parts_is_bounded():
    png, jpeg = pillow_bytes(plate(), "PNG"), pillow_bytes(plate(), "JPEG")
    for data in (
        png[:33] + png_chunk(b"teXt", b"") * MAX_PARTS + png[33:],
        jpeg[:2] + b"\xff\xfe\0\2" * MAX_PARTS + jpeg[2:],
    ):
        with pytest.raises(ImageError, match="at most 65,536"):
            read_image(data)


def test_strips_that_share_their_bytes_are_refused():
    """A few bytes listed as every strip of a large picture."""
    rows = tiff_bytes(plate(), rowsperstrip=1)
    counts = struct.pack(f"<{HEIGHT}H", *[WIDTH] * HEIGHT)
    assert rows.count(counts) == 1
    with pytest.raises(ImageError, match="more data than"):
        read_image(rows.replace(counts, struct.pack(f"<{HEIGHT}H", *[2000] * 16, *[WIDTH] * (HEIGHT - 16))))


# Real images ---------------------------------------------------------------------------------------------------------


def _real(folder: str, pattern: str) -> list[Path]:
    files = sorted((DATA / folder).glob(pattern))
    if not files:
        pytest.skip(f"no images in {DATA / folder}")
    return files


@pytest.mark.real_data
def test_intact_real_jpegs_are_read():
    for path in _real("neu-seg/images", "*.jpg"):
        np.testing.assert_array_equal(read_image(path).pixels, np.asarray(Image.open(path)))


@pytest.mark.real_data
def test_cut_real_jpegs_are_refused():
    for path in _real("neu-seg/images", "*.jpg")[::20]:
        for share in (0.3, 0.5, 0.7, 0.9):
            with pytest.raises(ImageError):
                read_image(half_jpeg(path.read_bytes(), share))


@pytest.mark.real_data
def test_real_bitmaps_are_read():
    for path in _real("neu-cls/images", "*.bmp")[::10]:
        np.testing.assert_array_equal(read_image(path).pixels, np.asarray(Image.open(path)))
