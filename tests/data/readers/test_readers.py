"""Every layout is recognised by looking at the folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steel_core.data.listing import list_files
from steel_core.data.open import find_datasets, open_dataset
from steel_core.data.readers.base import READERS
from steel_core.data.readers.neu import CODES
from steel_core.errors import DataError
from steel_core.types import Box


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache stays as it is."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("STEEL_CACHE", str(folder))
    return folder


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not read")
    return root


def mask(path: Path, *values: int) -> None:
    """A mask with each value on as many pixels as its place in `values`, counted from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(100, np.uint8)
    filled = np.repeat(values, np.arange(1, len(values) + 1))
    pixels[: len(filled)] = filled
    Image.fromarray(pixels.reshape(10, 10)).save(path)


def columns(index, *names):
    return index.table[list(names)].to_numpy().tolist()


def test_every_reader_tells_its_layout_and_leaves_an_empty_folder_alone(tmp_path):
    assert len({READERS[name].priority for name in READERS}) == len(READERS)
    for name in READERS:
        assert READERS[name].layout
        assert not READERS[name]().matches(tmp_path)
        assert not READERS[name]().matches(tmp_path / "missing")


def test_what_is_no_data_set_is_told_with_the_known_layouts(tmp_path):
    with pytest.raises(DataError, match=r"^nowhere: no such folder") as caught:
        open_dataset(tmp_path / "nowhere")
    assert str(tmp_path) not in str(caught.value)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="an empty folder") as caught:
        open_dataset(empty)
    assert all(READERS[name].layout in str(caught.value) for name in READERS)
    touch(empty, "notes.txt", "loose.png")
    with pytest.raises(DataError, match="none of them"):
        open_dataset(empty)
    with pytest.raises(DataError, match="expected one of these layouts"):
        open_dataset(empty / "notes.txt")
    (tmp_path / "half" / "images").mkdir(parents=True)
    (tmp_path / "half" / "masks").mkdir()
    with pytest.raises(DataError, match="half: expected at least one image"):
        open_dataset(tmp_path / "half")


def test_two_data_sets_side_by_side_are_not_one(tmp_path):
    touch(tmp_path, "neu-cls/images/Cr_1.bmp", "neu-seg/images/1.jpg", "neu-seg/masks/1.png")
    with pytest.raises(DataError, match="expected one of these layouts"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["images/Cr_1.bmp", "annotations/crazing_1.xml"], ["."]),
        (["train/images/crazing/crazing_1.jpg", "validation/images/crazing/crazing_1.jpg"], ["."]),
        (["one/images/Cr_1.bmp", "two/images/In_1.bmp"], ["one", "two"]),
        (["one/Cr_1.bmp", "two/In_1.bmp"], ["one", "two"]),
        (["a/clear/1.png", "a/defect/2.png", "b/clear/3.png", "b/defect/4.png"], ["a", "b"]),
        (["neu-cls/images/Cr_1.bmp", "neu-seg/images/1.jpg", "neu-seg/masks/1.png"], ["neu-cls", "neu-seg"]),
        (["clear/1.png", "defect/2.png"], ["."]),
        (["a/notes.txt"], []),
    ],
)
def test_one_path_means_one_data_set_or_those_in_its_folders(tmp_path, paths, names):
    touch(tmp_path, *paths)
    assert find_datasets(tmp_path) == [tmp_path / name for name in names]


# NEU -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [".", "images"])
def test_neu_cls(tmp_path, asked):
    images = ["Cr_1.bmp", "In_2.BMP", "Pa_3.jpg", "PS_4.bmp", "RS_5.png", "Sc_6.tif"]
    touch(tmp_path, *(f"images/{name}" for name in images), "annotations/pitted_surface_4.xml", "images/.DS_Store")
    index = open_dataset(tmp_path / asked)
    assert index.root == tmp_path
    assert index.classes == tuple(CODES.values())
    labels = dict(columns(index, "path", "labels"))
    assert labels == {f"images/{name}": CODES[name[:2]] for name in images}
    assert dict(columns(index, "path", "boxes"))["images/PS_4.bmp"] == "annotations/pitted_surface_4.xml"
    assert (index.table["boxes"] != "").sum() == 1
    assert not index.spec.redistributable
    assert "285, 2013" in index.spec.citation
    assert "69(4), 2020" in index.spec.citation


@pytest.mark.parametrize(
    "paths",
    [
        ["crazing_1.jpg", "rolled-in_scale_10.jpg"],
        ["images/crazing_1.jpg", "images/rolled-in_scale_10.jpg"],
        ["IMAGES/crazing/crazing_1.jpg", "IMAGES/rolled-in_scale/rolled-in_scale_10.jpg"],
    ],
)
def test_neu_det_spelling(tmp_path, paths):
    index = open_dataset(touch(tmp_path, *paths, "ANNOTATIONS/rolled-in_scale_10.xml"))
    assert columns(index, "path", "labels", "boxes") == [
        [paths[0], "crazing", ""],
        [paths[1], "rolled-in scale", "ANNOTATIONS/rolled-in_scale_10.xml"],
    ]


def test_neu_det_with_splits(tmp_path):
    touch(tmp_path, "train/images/crazing/crazing_1.jpg", "validation/images/crazing/crazing_1.jpg")
    touch(tmp_path, "train/annotations/crazing_1.xml", "validation/annotations/crazing_1.xml")
    assert columns(open_dataset(tmp_path), "split", "boxes") == [
        ["train", "train/annotations/crazing_1.xml"],
        ["val", "validation/annotations/crazing_1.xml"],
    ]


def test_a_stray_file_among_neu_is_told(tmp_path):
    touch(tmp_path, *(f"Cr_{n}.bmp" for n in range(1, 20)), "holiday.jpg")
    index = open_dataset(tmp_path)
    assert len(index) == 19
    assert index.problems == ("holiday.jpg: expected a name such as Cr_1 or crazing_1; left out.",)


@pytest.mark.real_data
def test_neu_cls_itself(real_data):
    index = open_dataset(real_data / "neu-cls")
    assert index.problems == ()
    assert index.table["labels"].value_counts().to_dict() == dict.fromkeys(CODES.values(), 240)
    assert (index.table["boxes"] != "").all()
    row = index.table["path"].tolist().index("images/Cr_1.bmp")
    assert index.boxes(row) == [Box("crazing", 1, 1, 193, 194)]


# Class folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_class_folders(tmp_path, prefix):
    touch(tmp_path, *(f"{prefix}{name}/1.png" for name in ("rust", "No_Defect", "ünï", "a|b")))
    touch(tmp_path, "loose.png", "rust/deep/er/1.png")
    index = open_dataset(tmp_path)
    assert sorted(index.table["labels"]) == ["a b", "clear", "rust", "ünï"]
    assert index.classes == ("a b", "clear", "rust", "ünï")
    assert len(index.problems) == 2
    assert not index.spec.redistributable


@pytest.mark.parametrize("folder", ["clear", "no defect", "good", "OK", "No-Defect"])
def test_folders_that_mean_clear(tmp_path, folder):
    touch(tmp_path, f"{folder}/1.png", "scratch/2.png")
    assert sorted(open_dataset(tmp_path).table["labels"]) == ["clear", "scratch"]


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "validation", "testing"), ("TRAIN", "valid", "Test")]
)
def test_class_folders_within_splits(tmp_path, words):
    touch(tmp_path, *(f"{word}/{label}/1.jpeg" for word in words for label in ("ok", "rust")))
    index = open_dataset(tmp_path)
    assert sorted(columns(index, "split", "labels")) == sorted(
        [split, label] for split in ("train", "val", "test") for label in ("clear", "rust")
    )


def test_links_and_odd_names_are_left_out_and_told(tmp_path):
    outside = touch(tmp_path / "outside", "secret.png", "more/secret.png")
    root = touch(tmp_path / "data", "rust/1.png", "rust/2.png", "rust/new\nline.png")
    (root / "rust/inside.png").symlink_to(root / "rust/1.png")
    (root / "rust/out.png").symlink_to(outside / "secret.png")
    (root / "linked").symlink_to(outside / "more")
    index = open_dataset(root)
    assert index.table["path"].tolist() == ["rust/1.png", "rust/2.png", "rust/inside.png"]
    assert len(index.problems) == 3
    assert not any(str(tmp_path) in problem for problem in index.problems)


def test_walk_goes_only_as_deep_as_told(tmp_path):
    touch(tmp_path, "0.png", "a/1.png", "a/b/2.png", "c/3.txt", ".hidden/4.png")
    assert list_files(tmp_path, depth=0) == (["0.png"], [])
    assert list_files(tmp_path, depth=1) == (["0.png", "a/1.png"], [])
    assert list_files(tmp_path, depth=2, enter=lambda name: name != "b") == (["0.png", "a/1.png"], [])


# Images with masks ---------------------------------------------------------------------------------------------------


def test_labels_come_from_the_masks_the_largest_first(tmp_path):
    root = touch(tmp_path / "neu-seg-mini", *(f"images/{n}.jpg" for n in range(1, 5)))
    mask(root / "masks/1.png", 1)
    mask(root / "masks/2.png", 1, 3, 2)
    mask(root / "masks/3.png", 0)
    mask(root / "masks/9.png", 1)
    index = open_dataset(root)
    assert columns(index, "path", "labels", "mask") == [
        ["images/1.jpg", "inclusion", "masks/1.png"],
        ["images/2.jpg", "patches|scratches|inclusion", "masks/2.png"],
        ["images/3.jpg", "clear", "masks/3.png"],
        ["images/4.jpg", "", ""],
    ]
    assert index.classes == ("clear", "inclusion", "patches", "scratches")
    assert index[1].mask_classes == {1: "inclusion", 2: "patches", 3: "scratches"}
    assert np.bincount(index.mask(1).ravel()).tolist() == [94, 1, 3, 2]
    assert index.spec.name == "neu-seg"
    assert sorted(index.problems) == ["4.jpg: no mask of this name; unlabelled.", "9.png: no image of this name."]
    assert open_dataset(root / "images").hash == index.hash


def test_classes_are_named_by_the_file_the_values_or_numbers(tmp_path):
    root = touch(tmp_path, "images/1.png", "images/2.png")
    mask(root / "masks/1.png", 255)
    mask(root / "masks/2.png", 0)
    assert open_dataset(root).table["labels"].tolist() == ["defect", "clear"]
    mask(root / "masks/2.png", 7)
    assert open_dataset(root).table["labels"].tolist() == ["class 255", "class 7"]
    (root / "classes.json").write_text(json.dumps({"7": "rust", "9": "dent"}))
    index = open_dataset(root)
    assert index.table["labels"].tolist() == ["class 255", "rust"]  # a value without a name is never clear
    assert index.classes == ("rust", "dent", "class 255")
    assert index.problems == ("masks: the value 255 has no name in classes.json.",)
    for wrong in ("[]", "{", '{"a": "b"}', '{"0": "b"}', '{"1": "a|b"}', '{"1": 2}'):
        (root / "classes.json").write_text(wrong)
        with pytest.raises(DataError, match=r"classes\.json: expected"):
            open_dataset(root)


def test_a_bad_mask_leaves_its_image_unlabelled(tmp_path):
    root = touch(tmp_path, "images/1.png", "images/2.png", "masks/1.png")
    mask(root / "masks/2.png", 255)
    index = open_dataset(root)
    assert index.table["labels"].tolist() == ["", "defect"]
    assert len(index.problems) == 1
    assert index.problems[0].startswith("1.png: expected a PNG mask")


def test_masks_are_read_once_until_one_changes(tmp_path, cache):
    root = touch(tmp_path, "images/1.png", "images/2.png")
    mask(root / "masks/1.png", 255)
    mask(root / "masks/2.png", 255)
    before = sorted(root.rglob("*"))
    calls: list[tuple[int, int]] = []

    def tell(step, done, total):
        calls.append((done, total))

    first = open_dataset(root, tell)
    assert calls == [(1, 2), (2, 2)]
    assert open_dataset(root, tell).hash == first.hash
    assert len(calls) == 2
    assert sorted(root.rglob("*")) == before  # nothing is written beside the images
    mask(root / "masks/2.png", 255, 3)
    assert open_dataset(root, tell).table["labels"].tolist() == ["class 255", "class 3|class 255"]
    assert len(calls) == 4
    for path in cache.iterdir():
        path.write_text("{")
    assert open_dataset(root, tell).hash != first.hash
    assert len(calls) == 6


def test_masks_within_splits(tmp_path):
    root = touch(tmp_path, "images/train/1.png", "images/valid/1.png")
    mask(root / "masks/train/1.png", 255)
    mask(root / "masks/valid/1.png", 0)
    assert columns(open_dataset(root), "split", "labels") == [["train", "defect"], ["val", "clear"]]


@pytest.mark.real_data
def test_neu_seg_itself(real_data):
    index = open_dataset(real_data / "neu-seg")
    assert (len(index), index.problems, index.classes) == (600, (), ("inclusion", "patches", "scratches"))
    for row in range(0, 600, 60):
        counts = np.bincount(np.asarray(Image.open(index[row].mask)).ravel(), minlength=4)[1:]
        order = [["inclusion", "patches", "scratches"][k] for k in np.argsort(-counts) if counts[k]]
        assert list(index[row].labels) == order
