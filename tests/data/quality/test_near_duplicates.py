"""Crops planted on purpose are found, unrelated pictures are not linked."""

import cv2
import numpy as np
import pandas as pd
import pytest

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.open import open_dataset
from steel_core.data.quality.near_duplicates import _correlate_tiles, find_near_duplicate_pairs, group_near_duplicates

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


def blot(picture, rng):
    """A soft bright stain of a tenth of the picture, anywhere."""
    cover = np.zeros(picture.shape, np.float32)
    centre = tuple(int(c) for c in rng.integers(20, SIDE - 20, 2))
    cv2.ellipse(cover, centre, (19, 15), float(rng.integers(180)), 0, 360, 1.0, -1)
    cover = cv2.GaussianBlur(cover, (0, 0), 2)
    return picture * (1 - cover) + 240 * cover


def logo(picture, _):
    shown = np.clip(picture, 0, 255).astype(np.uint8)
    cv2.rectangle(shown, (6, 8), (40, 34), 245, -1)
    cv2.putText(shown, "AB", (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 10, 2)
    return shown


def line_at_the_border(picture, _):
    shown = picture.copy()
    shown[:, :4] = 240
    return shown


def diagonal_stripes(picture, _):
    y, x = np.indices(picture.shape)
    return picture + 25 * np.sin(0.7 * x + 0.4 * y)


@pytest.mark.parametrize("mark", [blot, logo, line_at_the_border, diagonal_stripes])
def test_a_mark_on_different_sheets_does_not_link_them(tmp_path, mark):
    rng = np.random.default_rng(10)
    assert links(write(tmp_path, [mark(strip(rng)[:SIDE, :SIDE], rng) for _ in range(30)])) == set()


@pytest.mark.parametrize("mark", [blot, logo, line_at_the_border, diagonal_stripes])
def test_overlapping_crops_are_found_although_one_is_marked(tmp_path, mark):
    rng = np.random.default_rng(11)
    pictures = []
    for _ in range(20):
        big = strip(rng)
        dy, dx = rng.integers(-15, 16, size=2)
        pictures += [big[80:176, 80:176], mark(big[80 + dy : 176 + dy, 80 + dx : 176 + dx], rng)]
    linked = links(write(tmp_path, pictures))
    planted = {(2 * k, 2 * k + 1) for k in range(20)}
    assert len(linked & planted) >= 18
    assert not linked - planted


def test_most_tiles_must_agree_and_marks_do_not_count():
    """Oracle: numpy.corrcoef, tile by tile, of planes whose rows and columns have no mean."""
    rng = np.random.default_rng(12)
    steel, other = rng.normal(0, 25, (2, 96, 96))
    steel, other = (one - one.mean(0) - one.mean(1, keepdims=True) + one.mean() for one in (steel, other))
    both = 0.8 * steel + 0.6 * other
    both -= both.mean(0) + both.mean(1, keepdims=True) - both.mean()
    tiles = [np.s_[y : y + 24, x : x + 24] for y in range(0, 96, 24) for x in range(0, 96, 24)]
    expected = np.quantile([np.corrcoef(steel[t].ravel(), both[t].ravel())[0, 1] for t in tiles], 0.35)

    def levels(plane):
        shown = np.clip(np.rint(plane + 128), 0, 255).astype(np.uint8)
        return np.where(shown == 128, 129, shown).astype(np.uint8)

    assert _correlate_tiles(levels(steel), levels(both)) == pytest.approx(expected, abs=0.01)
    shared = other.copy()
    shared[:, :48] = steel[:, :48]  # half of the picture agrees
    assert _correlate_tiles(levels(steel), levels(shared)) < 0.3
    marked = levels(shared)
    marked[:, 48:] = 128
    assert _correlate_tiles(levels(steel), marked) > 0.95


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


@pytest.mark.real_data
def test_no_classes_of_neu_are_linked(real_data):
    index = open_dataset(real_data / "neu-cls")
    number = index.table["path"].str.extract(r"_(\d+)\.")[0].astype(int)
    index = index.select(rows=(number <= 40).to_numpy())
    pairs = find_near_duplicate_pairs(index)
    labels = index.table["labels"].to_numpy()
    assert len(pairs) > 20
    assert (labels[pairs["first"]] == labels[pairs["second"]]).all()
