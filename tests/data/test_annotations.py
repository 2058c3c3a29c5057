"""Boxes and masks, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from steel_core.data.annotations import boxes_to_mask, mask_to_boxes, read_boxes, read_mask
from steel_core.errors import DataError
from steel_core.types import Box

CLASSES = ("crazing", "pitted surface", "rolled-in scale")


def voc(*objects, size=(30, 40)):
    """An annotation with one object a line from line 3 on; `size` is height and width."""
    head = f"<annotation>\n<size><width>{size[1]}</width><height>{size[0]}</height></size>\n"
    body = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>\n"
        for name, x0, y0, x1, y1 in objects
    )
    return f"{head}{body}</annotation>"


def read(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_boxes(path, CLASSES)


def test_voc_corners_become_half_open_from_zero(tmp_path):
    boxes, problems = read(tmp_path, voc(("rolled-in_scale", 1, 1, 40, 30), ("Pitted_Surface", "7.0", 5, 7, 6)))
    assert problems == []
    assert boxes == [Box("rolled-in scale", 0, 0, 40, 30), Box("pitted surface", 6, 4, 7, 6)]
    assert boxes_to_mask(boxes[:1], (30, 40)).all()
    small = boxes_to_mask(boxes[1:], (30, 40))
    assert np.argwhere(small).tolist() == [[4, 6], [5, 6]]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (("crazing", 0, 1, 5, 5), "outside"),
        (("crazing", 1, 1, 41, 5), "outside"),
        (("crazing", 1, 1, 5, 31), "outside"),
        (("crazing", 9, 1, 5, 5), "swapped"),
        (("rust", 1, 1, 5, 5), "rust"),
        (("", 1, 1, 5, 5), "expected one of"),
        (("crazing", "one", 1, 5, 5), "whole numbers"),
        (("crazing", "nan", 1, 5, 5), "whole numbers"),
        (("crazing", 1.5, 1, 5, 5), "whole numbers"),
    ],
)
def test_a_bad_box_is_told_with_file_and_line_and_the_good_one_kept(tmp_path, bad, says):
    boxes, problems = read(tmp_path, voc(("crazing", 2, 3, 4, 5), bad))
    assert boxes == [Box("crazing", 1, 2, 4, 5)]
    assert len(problems) == 1
    assert problems[0].startswith("a.xml, line 4: ")
    assert says in problems[0]
    assert str(tmp_path) not in problems[0]


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n<annotation>&b;</annotation>'
OUTSIDE = '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (voc(("crazing", 1, 1, 2, 2))[:-8], "line 4: not well-formed"),
        (BOMB, "line 2"),
        (OUTSIDE, "line 1"),
        (b"\xff\xfe\x00\x01garbage", "not well-formed"),
        (b"", "not well-formed"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "a.xml, line 1"),
        ("<annotation><object><name>crazing</name></object></annotation>", "width and height"),
        (" " * 4_000_001, "bytes"),
    ],
    ids=["cut off", "entity bomb", "outer entity", "bytes", "empty", "encoding", "no size", "too long"],
)
def test_a_bad_file_is_told(tmp_path, text, says):
    boxes, problems = read(tmp_path, text)
    assert boxes == []
    assert len(problems) == 1
    assert says in problems[0]


def test_a_missing_file_is_told(tmp_path):
    boxes, problems = read_boxes(tmp_path / "b.xml")
    assert boxes == []
    assert problems[0].startswith("b.xml: cannot be read")


VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4


def test_masks_of_every_kind_give_their_values(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(VALUES).save(path)
    np.testing.assert_array_equal(read_mask(path), VALUES)
    palette = Image.fromarray(VALUES, "P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(path, transparency=0)
    np.testing.assert_array_equal(read_mask(path), VALUES)
    Image.fromarray(VALUES > 1).save(path)
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, VALUES > 1)


def test_masks_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="expected one channel"):
        read_mask(path)
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(path)
    with pytest.raises(DataError, match="at most 8 bits"):
        read_mask(path)
    Image.fromarray(VALUES).save(path)
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:45] + bytes([whole[45] ^ 1]) + whole[46:], b"", b"BM" + whole):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"m\.png"):
            read_mask(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_mask(tmp_path / "none.png")


@given(
    st.lists(
        st.tuples(st.integers(0, 19), st.integers(0, 14), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5
    )
)
def test_boxes_to_mask_pixel_by_pixel(corners):
    boxes = [Box("a", x, y, min(x + w, 20), min(y + h, 15)) for x, y, w, h in corners]
    mask = boxes_to_mask(boxes, (15, 20))
    for y in range(15):
        for x in range(20):
            assert mask[y, x] == any(b.xmin <= x < b.xmax and b.ymin <= y < b.ymax for b in boxes)


@given(st.integers(0, 2**32 - 1))
def test_mask_to_boxes_matches_scipy(seed):
    """Oracle: scipy.ndimage.label and find_objects."""
    mask = np.random.default_rng(seed).choice(np.array([0, 0, 0, 0, 1, 3], np.uint8), size=(12, 15))
    expected = {
        Box({1: "inclusion"}.get(value, f"class {value}"), place[1].start, place[0].start, place[1].stop, place[0].stop)
        for value in (1, 3)
        for place in ndimage.find_objects(ndimage.label(mask == value, np.ones((3, 3)))[0])
    }
    assert set(mask_to_boxes(mask, {1: "inclusion"})) == expected
    assert mask_to_boxes(np.zeros((4, 4), np.uint8)) == []
