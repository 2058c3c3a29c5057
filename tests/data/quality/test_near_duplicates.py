"""Crops planted on purpose are found, unrelated pictures are not linked."""

import cv2
import numpy as np
import pandas as pd
import pytest

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.open import open_dataset
from steel_core.data.quality.near_duplicates import _Coarse, find_near_duplicate_pairs, group_near_duplicates

SIDE = 96


def strip(rng, height=260, width=260):
    """Rolled steel as far as this test needs it: grain, and blotches drawn out along the rolling direction."""
    grain = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 1.5)
    blotches = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigmaX=4, sigmaY=9)
    return 120 + 12 * grain / grain.std() + 18 * blotches / blotches.std()


def write(folder, pictures, groups=None):
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.clip(picture, 0, 255).round().astype(np.uint8))
    table = pd.DataFrame({"path": [f"{number:03}.png" for number in range(len(pictures))]})
    if groups:
        table["group"] = groups
    return DatasetIndex.build(folder, unknown_spec("planted"), table)


def links(index):
    pairs = find_near_duplicate_pairs(index)
    return set(zip(pairs["first"], pairs["second"], strict=True))


def test_planted_crops_are_found_and_nothing_else_is(tmp_path):
    rng = np.random.default_rng(1)
    pictures = []
    for _ in range(40):
        big = strip(rng)
        dy, dx = rng.integers(-35, 36, size=2)  # at least 40 % of the area in common
        for y, x in ((80, 80), (80 + dy, 80 + dx)):
            crop = big[y : y + SIDE, x : x + SIDE] * rng.uniform(0.7, 1.3) + rng.uniform(-15, 15)
            pictures.append(crop + rng.normal(0, 2, crop.shape))
    linked = links(write(tmp_path, pictures))
    planted = {(2 * k, 2 * k + 1) for k in range(40)}
    assert len(linked & planted) >= 38
    assert not linked - planted


def test_the_shift_says_where_the_second_lies_in_the_first(tmp_path):
    big = strip(np.random.default_rng(2))
    index = write(tmp_path, [big[20:116, 30:126], big[51:147, 17:113]])
    pair = find_near_duplicate_pairs(index).iloc[0]
    assert (pair["dy"], pair["dx"]) == (31, -13)
    assert pair["score"] > 0.9


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: a * 0.6 + 10,
        lambda a: cv2.imdecode(cv2.imencode(".jpg", a.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
        lambda a: a + np.linspace(-40, 40, SIDE),
    ],
    ids=["copy", "darker", "jpeg", "other light"],
)
def test_copies_are_found(tmp_path, change):
    picture = strip(np.random.default_rng(3))[:SIDE, :SIDE]
    assert links(write(tmp_path, [picture, change(picture)])) == {(0, 1)}


def test_streaks_of_different_strips_are_not_linked(tmp_path):
    rng = np.random.default_rng(4)
    pictures = []
    for _ in range(12):
        picture = strip(rng)[:SIDE, :SIDE]
        left = rng.integers(10, 70)
        picture[:, left : left + 8] = 230 + rng.normal(0, 8, (SIDE, 8))
        pictures.append(picture)
    assert links(write(tmp_path, pictures)) == set()


def test_blank_plates_are_not_linked(tmp_path):
    assert links(write(tmp_path, [np.full((SIDE, SIDE), 128.0)] * 3)) == set()


def test_a_chain_is_one_group_and_known_groups_stay_together(tmp_path):
    rng = np.random.default_rng(5)
    long = strip(rng, height=400)
    crops = [long[y : y + SIDE, :SIDE] for y in (0, 60, 120)]  # the first and the last have nothing in common
    others = [strip(rng)[:SIDE, :SIDE] for _ in range(3)]
    index = write(tmp_path, [*crops, *others], groups=["", "", "", "coil 7", "", "coil 7"])
    assert group_near_duplicates(index).tolist() == ["000.png"] * 3 + ["003.png", "004.png", "003.png"]


def test_other_sizes_are_compared_and_damaged_files_passed_over(tmp_path):
    picture = strip(np.random.default_rng(6))
    index = write(tmp_path, [picture[:96, :96], picture[:120, :96], picture[:96, :96], picture[:96, :96]])
    (tmp_path / "003.png").write_bytes(b"no picture")
    calls = []
    pairs = find_near_duplicate_pairs(index, lambda what, done, total: calls.append((done, total)))
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {(0, 1), (0, 2), (1, 2)}
    assert calls[-1] == (8, 8)
    assert len(set(group_near_duplicates(index, pairs=pairs))) == 2


def test_a_crop_of_a_long_strip_is_found_with_its_place(tmp_path):
    rng = np.random.default_rng(8)
    long = strip(rng, 96, 400)
    index = write(tmp_path, [long, long[:, 250:346] * 0.8, strip(rng, 96, 96), strip(rng, 96, 400)])
    pairs = find_near_duplicate_pairs(index)
    assert pairs[["first", "second"]].to_numpy().tolist() == [[0, 1]]
    factor = np.sqrt(96 * 400) / 200
    assert pairs["dy"][0] == 0
    assert abs(pairs["dx"][0] - (250 / factor if factor > 1 else 250)) <= 1


def test_the_index_of_landmarks_finds_what_comparing_every_pair_finds(tmp_path, monkeypatch):
    rng = np.random.default_rng(9)
    pictures = []
    for _ in range(25):
        big = strip(rng)
        dy, dx = rng.integers(-30, 31, size=2)
        pictures += [big[y : y + SIDE, x : x + SIDE] for y, x in ((80, 80), (80 + dy, 80 + dx))]
    index = write(tmp_path, pictures)
    planted = {(2 * k, 2 * k + 1) for k in range(25)}
    assert links(index) == planted
    monkeypatch.setattr("steel_core.data.quality.near_duplicates.EVERY_PAIR", 10)
    linked = links(index)
    assert linked <= planted
    assert len(linked) >= 24


def test_coarse_correlation_equals_pearson_over_the_overlap():
    """Oracle: numpy.corrcoef of the two overlapping parts, shift by shift."""
    rng = np.random.default_rng(7)
    planes = rng.normal(size=(2, 14, 11)).astype(np.float32) + 3
    planes[1, 4:, :8] = planes[0, :10, 3:] * 0.5 - 1  # planes[0][p + (-4, 3)] is like planes[1][p]
    best = (-1.0, 0, 0)
    for dy in range(-9, 10):
        for dx in range(-7, 8):
            if (14 - abs(dy)) * (11 - abs(dx)) < 0.3 * 14 * 11:
                continue
            a = planes[0, max(dy, 0) : 14 + min(dy, 0), max(dx, 0) : 11 + min(dx, 0)]
            b = planes[1, max(-dy, 0) : 14 - max(dy, 0), max(-dx, 0) : 11 - max(dx, 0)]
            best = max(best, (np.corrcoef(a.ravel(), b.ravel())[0, 1], dy, dx))
    assert best[1:] == (-4, 3)
    assert _Coarse(planes).candidates(0) == [(1, -4, 3)]


@pytest.mark.real_data
def test_no_classes_of_neu_are_linked(real_data):
    index = open_dataset(real_data / "neu-cls")
    number = index.table["path"].str.extract(r"_(\d+)\.")[0].astype(int)
    index = index.select(rows=(number <= 40).to_numpy())
    pairs = find_near_duplicate_pairs(index)
    labels = index.table["labels"].to_numpy()
    assert len(pairs) > 20
    assert (labels[pairs["first"]] == labels[pairs["second"]]).all()
