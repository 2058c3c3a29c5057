"""Run lengths and polygons, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steel_core.data.regions import (
    decode_masks,
    decode_runs,
    encode_runs,
    fill_polygon,
    format_regions,
    format_runs,
    parse_boxes,
    parse_runs,
)
from steel_core.errors import DataError
from steel_core.types import Box

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 15)))


def slow_decode(text, height, width):
    """The words of the Kaggle page, pixel by pixel: numbered from top to bottom, then left to right, from 1."""
    numbers = [int(word) for word in text.split()]
    mask = np.zeros((height, width), bool)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for pixel in range(start, start + length):
            mask[(pixel - 1) % height, (pixel - 1) // height] = True
    return mask


@given(masks)
def test_mask_to_runs_to_mask(mask):
    text = format_runs(encode_runs(mask))
    runs = parse_runs(text) if text else encode_runs(mask)
    assert np.array_equal(decode_runs(runs, mask.shape), mask)
    assert np.array_equal(slow_decode(text, *mask.shape), mask)


def test_kaggle_s_own_example():
    """'1 3 10 5' means pixels 1, 2, 3, 10, 11, 12, 13, 14."""
    mask = decode_runs(parse_runs("1 3 10 5"), (4, 5))
    assert (np.flatnonzero(mask.T.ravel()) + 1).tolist() == [1, 2, 3, 10, 11, 12, 13, 14]


def test_runs_that_touch_are_one_area():
    assert decode_runs(parse_runs("1 2 3 2"), (2, 3)).tolist() == [[True, True, False]] * 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 2 3", "an odd count of 3"),
        ("1 0", "start 1 with length 0"),
        ("5 -2", "start 5 with length -2"),
        ("0 2", "start 0 with length 2"),
        ("9 1 3 1", "rising starts, found 3 after 9"),
        ("1 5 4 1", "the run of 5 from 1 overlaps the one from 4"),
        ("95 7", "end at pixel 101, past the 100"),
        ("1 x", "whole numbers separated by spaces, found '1 x'"),
        ("1.5 2", "whole numbers"),
        ("", "whole numbers"),
        ("9" * 30 + " 1", "whole numbers"),
        ("1 999999999999", "past the 100 pixels"),
    ],
)
def test_bad_runs_are_told(text, sentence):
    with pytest.raises(DataError, match=sentence):
        parse_runs(text, 100)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-5, 20), st.floats(-5, 20)), min_size=3, max_size=7))
def test_polygons_hold_the_pixels_whose_centre_is_inside(corners):
    """Oracle: the even-odd rule for each pixel alone."""
    mask = fill_polygon([x for corner in corners for x in corner], (12, 14))
    for row in range(12):
        for column in range(14):
            inside, (px, py) = False, (column + 0.5, row + 0.5)
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 <= py) != (y1 <= py):
                    cross = x0 + (py - y0) * (x1 - x0) / (y1 - y0)
                    if abs(cross - px) < 1e-9:
                        break
                    inside ^= cross <= px
            else:
                assert mask[row, column] == inside


def test_a_box_as_a_polygon_has_the_same_pixels():
    mask = fill_polygon([2, 1, 7, 1, 7, 4, 2, 4], (6, 9))
    assert mask[1:4, 2:7].all()
    assert mask.sum() == 15


def test_boxes_and_masks_of_a_cell():
    cell = format_regions(
        [
            {"label": "a", "box": [1, 2, 5, 6]},
            {"label": "b", "runs": "1 2 12 1"},
            {"label": "b", "polygons": [[0.5, 0.5, 1.0, 0.5, 1.0, 1.0, 0.5, 1.0]], "share": True},
            {"label": "c", "box": [0, 0, 30, 4], "at": "x.json, annotation 7"},
            {"label": "c", "runs": "100 2", "at": "y.csv, line 3"},
        ]
    )
    boxes, problems = parse_boxes(cell, (10, 10))
    assert boxes == [Box("a", 1, 2, 5, 6), Box("b", 0, 0, 2, 2), Box("b", 5, 5, 10, 10)]
    assert problems == [
        "x.json, annotation 7: the box (0, 0) to (30, 4) lies outside the 10 x 10 pixels.",
        "y.csv, line 3: the runs end at pixel 101, past the 100 pixels of the picture.",
    ]
    masks, problems = decode_masks(cell, (10, 10))
    assert set(masks) == {"b"}
    assert masks["b"].sum() == 3 + 25
    assert len(problems) == 1


@pytest.mark.parametrize("cell", ["{", "{}", "[1]", '[{"label": 3}]', "[" * 100_000])
def test_a_cell_that_is_no_list_of_regions(cell):
    with pytest.raises(DataError, match="expected a list of objects"):
        parse_boxes(cell, (4, 4))


@pytest.mark.parametrize(
    "wrong",
    [{"box": [1, 2, 3]}, {"box": [1, 2, 3, "4"]}, {"box": [float("nan")] * 4}, {"box": [3, 3, 3, 4]}, {"box": None},
     {}, {"polygons": []}, {"polygons": [[1, 2, 3]]}, {"polygons": [[1, 2, 3, 4, 5, 6, 7]]}, {"runs": 7}],
)  # fmt: skip
def test_a_wrong_region_is_told_and_left_out(wrong):
    cell = format_regions([{"label": "a"} | wrong, {"label": "b", "box": [0, 0, 1, 1]}])
    boxes, problems = parse_boxes(cell, (9, 9))
    assert boxes == [Box("b", 0, 0, 1, 1)]
    assert len(problems) == 1
