"""Zip archives: good ones open like their folder, hostile ones are refused and leave nothing behind."""

import io
import stat
import struct
import zipfile

import cv2
import numpy as np
import pytest

from steel_core.data.open import open_dataset
from steel_core.data.readers.archive import unpack_archive
from steel_core.errors import DataError

PNG = cv2.imencode(".png", np.full((6, 8), 90, np.uint8))[1].tobytes()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("STEEL_CACHE", str(folder))
    return folder


def pack(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name) if compression == zipfile.ZIP_STORED else name, content)
    return path


def left_behind(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("prefix", ["", "my set/"])
def test_an_archive_opens_like_its_folder(tmp_path, prefix):
    files = {f"{prefix}rust/1.png": PNG, f"{prefix}clear/2.png": PNG, "__MACOSX/._1.png": b"", "notes.docx": b"x"}
    if prefix:
        del files["notes.docx"]
    path = pack(tmp_path / "data.zip", files)
    index = open_dataset(path)
    assert sorted(index.table["labels"]) == ["clear", "rust"]
    assert index.image(0).pixels.shape == (6, 8)
    assert index.root.name == (prefix.strip("/") or "data")
    assert index.problems == (
        () if prefix else ("data.zip: 1 files of other kinds (the first: notes.docx); left out.",)
    )
    assert open_dataset(path).hash == index.hash  # unpacked once


def test_severstal_and_coco_in_an_archive(tmp_path):
    table = "ImageId,ClassId,EncodedPixels\n1.png,3,1 4\n"
    index = open_dataset(pack(tmp_path / "s.zip", {"train.csv": table, "train_images/1.png": PNG}))
    assert index.masks(0)["defect 3"].sum() == 4
    coco = '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [], "categories": []}'
    assert len(open_dataset(pack(tmp_path / "c.zip", {"a.json": coco, "images/1.png": PNG}))) == 1


@pytest.mark.parametrize(
    "name",
    ["../rust/1.png", "rust/../../1.png", "/etc/1.png", "C:/rust/1.png", "c:rust.png", "..\\rust\\1.png", "\\1.png"],
)
def test_names_that_climb(tmp_path, cache, name):
    path = pack(tmp_path / "x.zip", {"rust/2.png": PNG, name: PNG}, zipfile.ZIP_STORED)
    with pytest.raises(DataError, match=r"^x\.zip: .* outside its folder") as caught:
        open_dataset(path)
    assert str(tmp_path) not in str(caught.value)
    assert not left_behind(cache)


def test_links_are_refused(tmp_path, cache):
    link = zipfile.ZipInfo("rust/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="a link or a device"):
        open_dataset(tmp_path / "x.zip")
    assert not left_behind(cache)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["rust/1.png", "RUST/1.PNG"])
def test_duplicates_are_refused(tmp_path, again):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("rust/1.png", PNG)
        archive.writestr(again, PNG)
    with pytest.raises(DataError, match="is in it twice"):
        open_dataset(tmp_path / "x.zip")


def test_a_bomb_by_ratio_is_refused_before_it_is_unpacked(tmp_path, cache):
    zeros = bytes(150_000_000)
    path = pack(tmp_path / "x.zip", {"rust/1.png": zeros})
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match=r"would unpack to 150 MB; expected at most 100 MB"):
        open_dataset(path)
    assert not left_behind(cache)


def test_a_bomb_by_total_or_count_is_refused(tmp_path, monkeypatch):
    path = pack(tmp_path / "x.zip", {f"rust/{k}.png": PNG for k in range(5)})
    monkeypatch.setattr("steel_core.data.readers.archive.MAX_TOTAL", 100)
    with pytest.raises(DataError, match="would unpack to"):
        open_dataset(path)
    monkeypatch.setattr("steel_core.data.readers.archive.MAX_ENTRIES", 4)
    with pytest.raises(DataError, match="at most 4 files, found 5"):
        open_dataset(path)


def test_entries_that_share_bytes_are_refused(tmp_path, cache):
    """Fifield's bomb: several names for one piece of data."""
    path = pack(tmp_path / "x.zip", {"rust/1.png": PNG, "rust/2.png": PNG})
    with zipfile.ZipFile(path) as archive:
        first, second = archive.infolist()
    data = bytearray(path.read_bytes())
    where = data.rfind(b"PK\x01\x02")
    assert struct.unpack_from("<I", data, where + 42)[0] == second.header_offset
    struct.pack_into("<I", data, where + 42, first.header_offset)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"twice|damaged"):
        open_dataset(path)
    assert not left_behind(cache)


def test_a_declared_size_that_lies_is_refused(tmp_path, cache):
    path = pack(tmp_path / "x.zip", {"rust/1.png": bytes(1_000_000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        open_dataset(path)
    assert not left_behind(cache)


def test_passwords_are_refused(tmp_path):
    path = pack(tmp_path / "x.zip", {"rust/1.png": PNG})
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="has a password"):
        open_dataset(path)


def test_a_nested_archive_is_left_out(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("rust/3.png", PNG)
    index = open_dataset(pack(tmp_path / "x.zip", {"rust/1.png": PNG, "inner.zip": inner.getvalue()}))
    assert len(index) == 1
    assert index.problems == ("x.zip: 1 files of other kinds (the first: inner.zip); left out.",)


@pytest.mark.parametrize(("raw", "kept"), [("blöd".encode(), "blöd"), (b"bl\x94d", "blöd")])
def test_names_that_are_not_marked_as_utf_8(tmp_path, raw, kept):
    path = pack(tmp_path / "x.zip", {"rust/XXXXX.png": PNG, "rust/2.png": PNG})
    path.write_bytes(path.read_bytes().replace(b"XXXXX", (raw + b"__")[:5]))
    index = open_dataset(path)
    assert any(name.startswith(f"rust/{kept}") for name in index.table["path"])
    assert any("not marked as UTF-8" in problem for problem in index.problems)


@pytest.mark.parametrize("cut", [10, 60, -30])
def test_a_damaged_archive(tmp_path, cache, cut):
    path = pack(tmp_path / "x.zip", {"rust/1.png": PNG})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"^x\.zip: a damaged zip archive"):
        open_dataset(path)
    assert not left_behind(cache)


def test_wrong_content_is_noticed_and_nothing_stays(tmp_path, cache):
    path = pack(tmp_path / "x.zip", {"rust/1.png": PNG, "rust/2.png": b"A" * 500}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"AAAA", b"AABA", 1))
    with pytest.raises(DataError, match="damaged"):
        open_dataset(path)
    assert not left_behind(cache)


def test_an_archive_without_images(tmp_path):
    with pytest.raises(DataError, match="expected images; it holds none"):
        unpack_archive(pack(tmp_path / "x.zip", {"a.exe": b"MZ"}))
