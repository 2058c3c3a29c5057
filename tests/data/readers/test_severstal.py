"""Severstal's train.csv, in both forms, with all that can be wrong in it."""

import cv2
import numpy as np
import pytest

from steel_core.data.open import open_dataset
from steel_core.data.readers.manifest import write_manifest
from steel_core.errors import DataError
from steel_core.types import CLEAR, DEFECT, Box

HEIGHT, WIDTH = 8, 20


def strip(root, name, height=HEIGHT, width=WIDTH):
    (root / "train_images").mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(0).integers(60, 200, (height, width), np.uint8)
    assert cv2.imwrite(str(root / "train_images" / name), picture)


def kaggle_runs(mask):
    """Run lengths as a plain loop down the columns writes them."""
    height, width = mask.shape
    out, start = [], None
    for pixel in range(1, height * width + 2):
        on = pixel <= height * width and mask[(pixel - 1) % height, (pixel - 1) // height]
        if on and start is None:
            start = pixel
        elif not on and start is not None:
            out += [start, pixel - start]
            start = None
    return " ".join(map(str, out))


def made(root, text, images=("a.jpg", "b.jpg", "c.jpg"), encoding="utf-8"):
    for name in images:
        strip(root, name)
    (root / "train.csv").write_bytes(text.encode(encoding))
    return open_dataset(root)


def by_name(index, column="labels"):
    return dict(zip(index.table["path"].str.rpartition("/")[2], index.table[column], strict=True))


def test_a_row_for_each_image_and_class(tmp_path):
    rows = ["a.jpg_1,1 3 9 3", "a.jpg_2,", "a.jpg_3,2 4", "a.jpg_4,", *(f"b.jpg_{k}," for k in range(1, 5))]
    index = made(tmp_path, "ImageId_ClassId,EncodedPixels\n" + "\n".join(rows) + "\n")
    assert by_name(index) == {"a.jpg": "defect 1|defect 3", "b.jpg": CLEAR, "c.jpg": ""}
    assert index.classes == (CLEAR, "defect 1", "defect 2", "defect 3", "defect 4")
    assert index.problems == ("train.csv: 1 images are not in it (the first: c.jpg); unlabelled.",)
    masks = index.masks(0)
    assert np.argwhere(masks["defect 1"]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert np.argwhere(masks["defect 3"]).tolist() == [[1, 0], [2, 0], [3, 0], [4, 0]]
    assert index.mask(0)[:6, 0].tolist() == [1, 3, 3, 3, 3, 0]  # the smaller lies on top
    assert index.mask(1).shape == (HEIGHT, WIDTH)
    assert not index.mask(1).any()
    assert index.mask(2) is None
    assert index.boxes(0) == [Box("defect 1", 0, 0, 2, 3), Box("defect 3", 0, 1, 1, 5)]


def test_a_row_for_each_mask(tmp_path):
    index = made(tmp_path, "ImageId,ClassId,EncodedPixels\r\na.jpg,4,5 2\r\na.jpg,2,1 1\r\nb.jpg,4,1 160\r\n")
    assert by_name(index) == {"a.jpg": "defect 4|defect 2", "b.jpg": "defect 4", "c.jpg": CLEAR}
    assert index.mask(1).all()
    assert "taken as clear" in index.problems[0]


def test_a_table_that_lists_clear_images_says_nothing_of_others(tmp_path):
    index = made(tmp_path, "ImageId,ClassId,EncodedPixels\na.jpg,4,5 2\nb.jpg,,\n")
    assert by_name(index) == {"a.jpg": "defect 4", "b.jpg": CLEAR, "c.jpg": ""}


def test_binary_view(tmp_path):
    index = made(tmp_path, "ImageId,ClassId,EncodedPixels\na.jpg,1,5 2\na.jpg,2,6 2\n").binary()
    assert by_name(index) == {"a.jpg": DEFECT, "b.jpg": CLEAR, "c.jpg": CLEAR}
    assert list(index.masks(0)) == [DEFECT]
    assert index.masks(0)[DEFECT].sum() == 3
    assert (index.mask(0) > 0).sum() == 3
    assert [box.label for box in index.boxes(0)] == [DEFECT] * 2


@pytest.mark.parametrize(
    ("row", "sentence", "label"),
    [
        ("a.jpg,1,1 2 3", "an odd count of 3 numbers", "defect 1"),
        ("a.jpg,1,1 0", "start 1 with length 0", "defect 1"),
        ("a.jpg,1,1 -4", "length -4", "defect 1"),
        ("a.jpg,1,1 5 3 2", "overlaps", "defect 1"),
        ("a.jpg,1,9 1 3 1", "rising starts", "defect 1"),
        ("a.jpg,1,150 20", "end at pixel 169, past the 160 pixels of a.jpg", "defect 1"),
        ("a.jpg,1,some", "whole numbers", "defect 1"),
        ("a.jpg,x,1 2", "a class from 1 to 255, found 'x'", ""),
        ("a.jpg,0,1 2", "found '0'", ""),
        ("a.jpg,-1,1 2", "found '-1'", ""),
        ("z.jpg,1,1 2", "there is no image 'z.jpg'", CLEAR),
        ("../a.jpg,1,1 2", r"there is no image '\.\./a\.jpg'", CLEAR),
        ("a.jpg,1", "expected 3 cells as in the header, found 2", CLEAR),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_others_are_kept(tmp_path, row, sentence, label):
    index = made(tmp_path, f"ImageId,ClassId,EncodedPixels\nb.jpg,2,1 2\n{row}\nb.jpg,3,7 1\n")
    *_, problem = index.problems
    assert problem.startswith("train.csv, line 3: ")
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(problem)
    assert "train.csv: 1 rows are bad and left out, 2 are good and kept." in index.problems
    assert by_name(index)["b.jpg"] == "defect 2|defect 3"
    assert by_name(index)["a.jpg"] == label
    if label == "defect 1":
        with pytest.raises(DataError, match=r"train\.csv, line 3"):  # a mask with a hole would call defects clear
            index.mask(0)
        assert any("line 3" in sentence for sentence in index.check_boxes())


def test_a_smaller_picture_is_noticed_when_its_mask_is_used(tmp_path):
    strip(tmp_path, "a.jpg")
    strip(tmp_path, "b.jpg", height=4)
    (tmp_path / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,1,1 160\nb.jpg,1,1 100\n")
    index = open_dataset(tmp_path)
    with pytest.raises(DataError, match="line 3: the runs end at pixel 100, past the 80"):
        index.mask(1)


@pytest.mark.parametrize(
    ("encoding", "swap", "note"),
    [
        ("utf-8-sig", ",", "train.csv, line 1: expected plain UTF-8, found UTF-8 with a byte-order mark; read so."),
        ("utf-16", ",", "train.csv, line 1: expected plain UTF-8, found UTF-16; read so."),
        ("latin-1", ",", "train.csv, line 3: expected UTF-8, found other bytes; read as Latin-1."),
        ("utf-8", ";", "train.csv, line 1: separated by semicolons instead of commas; read so."),
        ("utf-8", "\t", "train.csv, line 1: separated by tabs instead of commas; read so."),
    ],
)
def test_other_encodings_and_separators_are_read_and_told(tmp_path, encoding, swap, note):
    text = "ImageId,ClassId,EncodedPixels\na.jpg,1,5 2\nblöd.jpg,2,1 1\n".replace(",", swap)
    index = made(tmp_path, text, ("a.jpg", "blöd.jpg"), encoding)
    assert by_name(index) == {"a.jpg": "defect 1", "blöd.jpg": "defect 2"}
    assert index.problems == (note,)


def test_what_is_no_such_table(tmp_path):
    with pytest.raises(DataError, match="line 1: expected ImageId_ClassId,EncodedPixels or"):
        made(tmp_path, "ImageId,EncodedPixels\na.jpg,1 2\n")


def test_the_masks_survive_a_manifest(tmp_path):
    index = made(tmp_path / "s", "ImageId,ClassId,EncodedPixels\na.jpg,1,5 2\na.jpg,3,1 100\n")
    for ending in ("csv", "parquet"):
        write_manifest(index, tmp_path / f"m.{ending}")
        again = open_dataset(tmp_path / f"m.{ending}")
        assert again.hash == index.hash
        assert all(np.array_equal(again.masks(0)[name], mask) for name, mask in index.masks(0).items())


@pytest.mark.real_data
@pytest.mark.parametrize("joined", [True, False])
def test_neu_seg_written_in_severstal_s_format_reads_back_pixel_by_pixel(tmp_path, real_data, joined):
    """Eight masks side by side make strips of 256 x 1600 with several types; every pixel is compared."""
    files = sorted((real_data / "neu-seg" / "masks").iterdir())[::9][:48]
    (tmp_path / "train_images").mkdir()
    truth, lines = {}, ["ImageId_ClassId,EncodedPixels" if joined else "ImageId,ClassId,EncodedPixels"]
    for k in range(0, len(files), 8):
        strip_mask = np.zeros((256, 1600), np.uint8)
        for place, file in enumerate(files[k : k + 8]):
            strip_mask[28:228, 200 * place : 200 * place + 200] = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        name = f"{k:09x}.jpg"
        cv2.imwrite(str(tmp_path / "train_images" / name), np.full((256, 1600), 128, np.uint8))
        truth[name] = strip_mask
        for value in range(1, 5):
            runs = kaggle_runs(strip_mask == value)
            if joined:
                lines.append(f"{name}_{value},{runs}")
            elif runs:
                lines.append(f"{name},{value},{runs}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    index = open_dataset(tmp_path)
    assert index.problems == ()
    several = 0
    for i, sample in enumerate(index):
        wanted = truth[sample.path.name]
        assert np.array_equal(index.mask(i), wanted)
        masks = index.masks(i)
        assert set(masks) == {f"defect {value}" for value in np.unique(wanted[wanted > 0])}
        assert all(np.array_equal(masks[f"defect {value}"], wanted == value) for value in np.unique(wanted[wanted > 0]))
        several += len(sample.labels) > 1
    assert several
