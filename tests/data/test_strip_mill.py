"""The procedural data set: repeatable, its masks exact, its labels not betrayed by the strip below the defect."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from steel_core.data.strip_mill import LABELS, StripMill, draw_stain, write_sheets
from steel_core.data.strip_mill.writer import deal_splits
from steel_core.errors import DataError, UsageError
from steel_core.types import CLEAR

TYPES = [label for label in LABELS if label != CLEAR]
SMALL = StripMill(size=(64, 96), seed=5)


def equal(a, b):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("pixels", "mask", "stain_mask"))


def test_the_labels_are_the_six_types_of_neu_and_clear():
    neu = ["crazing", "inclusion", "patches", "pitted surface", "rolled-in scale", "scratches"]
    assert sorted(LABELS) == sorted([*neu, "clear"])


@pytest.mark.parametrize("size", [(200, 200), (256, 1600), (32, 50)])
@pytest.mark.parametrize("label", LABELS)
def test_a_sheet_has_the_size_and_type_asked_for(size, label):
    sheet = StripMill(size=size).render(1, label, stained=True)
    assert sheet.label == label
    assert (sheet.pixels.dtype, sheet.mask.dtype, sheet.stain_mask.dtype) == (np.uint8, bool, bool)
    assert sheet.pixels.shape == sheet.mask.shape == sheet.stain_mask.shape == size
    assert sheet.mask.any() == (label != CLEAR)
    assert sheet.stained


@pytest.mark.parametrize("label", LABELS)
def test_the_same_seed_gives_the_same_sheet_and_another_does_not(label):
    first = StripMill(seed=3).render(11, label, stained=True)
    assert equal(first, StripMill(seed=3).render(11, label, stained=True))
    for other in (StripMill(seed=4).render(11, label, stained=True), StripMill(seed=3).render(12, label, stained=True)):
        assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("label", TYPES)
@pytest.mark.parametrize("i", range(4))
def test_the_mask_holds_every_pixel_the_defect_changed(label, i):
    mill = StripMill(seed=1)
    sheet, sound = mill.render(i, label), mill.render(i, CLEAR)
    changed = sheet.pixels != sound.pixels
    assert not (changed & ~sheet.mask).any()
    # Inside, a change is lost only where it rounds away or where the camera was white already.
    white = (sheet.pixels == 255) & (sound.pixels == 255)
    assert changed[sheet.mask & ~white].mean() > 0.95


@pytest.mark.parametrize("label", TYPES)
def test_a_defect_lowers_or_raises_the_grey_level_by_the_stated_share(label):
    mill = StripMill(seed=2)
    for i in range(5):
        sheet, sound = mill.render(i, label), mill.render(i, CLEAR)
        inside = sheet.mask & (sheet.pixels < 255) & (sound.pixels < 255) & (sound.pixels > 0)
        before, after = sound.pixels[inside].astype(float), sheet.pixels[inside].astype(float)
        # VISIBLE is 5 % of the grey level; half a grey level of rounding in each picture is allowed for.
        assert (np.abs(after - before) >= 0.05 * (before - 4) - 1).all()


def test_the_mask_does_not_depend_on_contrast_and_brightness():
    plain = SMALL.render(0, "patches")
    dark = StripMill(size=(64, 96), seed=5, contrast=0.1, brightness=0.7).render(0, "patches")
    assert np.array_equal(plain.mask, dark.mask)


def test_the_sound_surface_does_not_depend_on_the_label():
    """Statistics of the sheets outside the defects: the same distribution for clear and for each type."""
    mill, n = StripMill(seed=8, size=(100, 100)), 120
    means = {label: [] for label in LABELS}
    for place, label in enumerate(LABELS):
        for i in range(place * n, (place + 1) * n):  # other sheets for each label, so the samples are independent
            sheet = mill.render(i, label)
            means[label].append(np.median(sheet.pixels[~sheet.mask]))
    for label in TYPES:
        assert stats.ks_2samp(means[CLEAR], means[label]).pvalue > 0.001, label


def test_contrast_lowers_the_deviation_and_darkens():
    dull = StripMill(size=(64, 96), seed=5, contrast=0.1)
    for i in range(14):
        assert dull.render(i).pixels.std() < 0.5 * SMALL.render(i).pixels.std()
        assert dull.render(i).pixels.mean() < SMALL.render(i).pixels.mean()


def test_brightness_is_a_factor():
    half = StripMill(size=(64, 96), seed=5, brightness=0.5)
    plain = SMALL.render(0, CLEAR).pixels
    assert plain.max() < 255
    assert half.render(0, CLEAR).pixels.mean() == pytest.approx(plain.mean() / 2, abs=0.1)


def test_sheets_vary():
    sheets = [SMALL.render(i, CLEAR).pixels.astype(float) for i in range(60)]
    means = [sheet.mean() for sheet in sheets]
    contrast = [sheet.std() / sheet.mean() for sheet in sheets]
    assert np.percentile(means, 90) > 1.6 * np.percentile(means, 10)
    assert np.percentile(contrast, 90) > 2 * np.percentile(contrast, 10)


@pytest.mark.parametrize("clear_share", [0, 1 / 7, 0.5, 0.9, 1])
def test_labels_come_in_their_shares(clear_share):
    mill, n = StripMill(clear_share=clear_share), 840
    count = pd.Series([mill.label(i) for i in range(n)]).value_counts()
    assert abs(count.get(CLEAR, 0) - clear_share * n) <= 1
    for label in TYPES:
        assert abs(count.get(label, 0) - (1 - clear_share) * n / 6) <= 1


def test_stains_come_in_the_share_of_the_dial_for_every_type():
    mill, n = StripMill(stained_clear=0.8, stained_defect=0.05), 2800
    table = pd.DataFrame([(mill.label(i), mill.stained(i)) for i in range(n)], columns=["label", "stained"])
    share = table.groupby("label").stained.mean()
    assert share[CLEAR] == pytest.approx(0.8, abs=0.01)
    assert share[TYPES].to_list() == pytest.approx([0.05] * 6, abs=0.005)
    assert not any(StripMill().stained(i) for i in range(50))


def test_a_stain_lies_off_the_defect_where_it_fits():
    mill = StripMill(seed=6)
    for i in range(12):
        sheet, bare = mill.render(i, "inclusion", stained=True), mill.render(i, "inclusion", stained=False)
        assert not (sheet.mask & sheet.stain_mask).any()
        assert np.array_equal(sheet.mask, bare.mask)
        assert np.array_equal(sheet.pixels[~sheet.stain_mask], bare.pixels[~sheet.stain_mask])


@pytest.mark.parametrize("area_share", [0.01, 0.05, 0.2])
def test_draw_stain_is_bright_soft_and_as_large_as_asked_for(area_share):
    plate, shares, steps = np.full((200, 300), 90, np.uint8), [], []
    for seed in range(20):
        stained, mask = draw_stain(plate, np.random.default_rng(seed), area_share=area_share, brightness=230)
        assert (stained[~mask] == 90).all()
        assert (stained[mask] > 90).all()
        assert stained.max() > 180
        shares.append(mask.mean())
        rim = mask & (stained < 200)
        steps.append(rim.sum() / mask.sum())
    assert (plate == 90).all()
    assert np.mean(shares) == pytest.approx(area_share, rel=0.3)
    assert np.mean(steps) > 0.1  # an edge of intermediate grey, no cut-out


def test_draw_stain_takes_the_one_free_place():
    avoid = np.ones((100, 100), bool)
    avoid[10:60, 40:90] = False
    _, mask = draw_stain(np.zeros((100, 100), np.uint8), np.random.default_rng(0), area_share=0.03, avoid=avoid)
    assert not (mask & avoid).any()


@pytest.mark.parametrize(
    "dials",
    [
        {"size": (16, 200)},
        {"seed": -1},
        {"contrast": 0},
        {"brightness": 9},
        {"clear_share": 1.2},
        {"stained_clear": -1},
    ],
)
def test_a_dial_out_of_range_is_refused(dials):
    with pytest.raises(UsageError, match="expected"):
        StripMill(**dials)


def test_wrong_calls_are_refused():
    with pytest.raises(UsageError, match="dent"):
        SMALL.render(0, "dent")
    with pytest.raises(UsageError, match="area share"):
        draw_stain(np.zeros((50, 50), np.uint8), np.random.default_rng(0), area_share=0)
    with pytest.raises(UsageError, match="grey 8-bit"):
        draw_stain(np.zeros((50, 50, 3), np.uint8), np.random.default_rng(0))


def test_splits_are_stratified_and_seeded():
    strata = [(label, stained) for label in LABELS for stained in (True, False)] * 100
    dealt = deal_splits(strata, seed=1)
    assert dealt == deal_splits(strata, seed=1) != deal_splits(strata, seed=2)
    table = pd.crosstab([str(stratum) for stratum in strata], dealt)
    assert (table[["train", "val", "test"]].to_numpy() == [70, 15, 15]).all()


def files(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_make_writes_a_data_set_that_pandas_and_pillow_read(tmp_path):
    mill, seen = StripMill(size=(48, 64), seed=5, stained_clear=1), []
    out = tmp_path / "new" / "sheets"
    write_sheets(mill, 28, out, lambda what, done, n: seen.append((done, n)))
    assert seen == [(i, 28) for i in range(1, 29)]
    assert [path.name for path in out.parent.iterdir()] == ["sheets"]
    table = pd.read_csv(out / "manifest.csv", keep_default_na=False)
    assert table.columns.to_list() == [
        "path",
        "labels",
        "split",
        "group",
        "source",
        "boxes",
        "mask",
        "mask_classes",
        "stained",
    ]
    assert table.labels.value_counts().to_dict() == dict.fromkeys(LABELS, 4)
    assert set(table.split) <= {"train", "val", "test"}
    assert table.group.is_unique
    assert set(table.source) == {"strip-mill"}
    for i, row in table.iterrows():
        sheet = mill.render(i)
        assert row.labels == sheet.label
        assert row.mask_classes == ("" if sheet.label == CLEAR else f"1={sheet.label}")
        assert bool(row.stained) == sheet.stained == (sheet.label == CLEAR)
        assert np.array_equal(np.asarray(Image.open(out / row.path)), sheet.pixels)
        assert np.array_equal(np.asarray(Image.open(out / row["mask"])), sheet.mask.astype(np.uint8))
        stain = out / "stains" / row.path.removeprefix("images/")
        assert stain.exists() == sheet.stained
    facts = json.loads((out / "dataset.json").read_text())
    assert (facts["name"], facts["redistributable"], facts["citation"]) == ("strip-mill", True, "")
    assert facts["config"]["size"] == [48, 64]


def test_a_sheet_does_not_depend_on_how_many_are_made(tmp_path):
    write_sheets(SMALL, 3, tmp_path / "few")
    write_sheets(SMALL, 5, tmp_path / "many")
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) == 6
    assert all(few[name] == many[name] for name in pictures)


def test_make_refuses_a_folder_that_holds_something(tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    write_sheets(SMALL, 1, out)  # empty: accepted
    before = files(out)
    with pytest.raises(DataError, match="'mine' already holds") as refused:
        write_sheets(SMALL, 1, out)
    assert str(tmp_path) not in str(refused.value)
    assert files(out) == before
    with pytest.raises(UsageError, match="at least 1"):
        write_sheets(SMALL, 0, tmp_path / "none")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_nothing(tmp_path, interruption):
    def stop(step, done, total):
        if done == 2:
            raise interruption

    with pytest.raises(interruption):
        write_sheets(SMALL, 5, tmp_path / "sheets", stop)
    assert list(tmp_path.iterdir()) == []
