"""What predicts the label is named, whatever drew it; the defect itself and clean data are left alone."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.dash import ROOT

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.open import open_dataset
from steel_core.evaluation.data_check import check_dataset
from steel_core.evaluation.label_clues import find_label_clues

N, SIDE = 80, 96
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))


def sheets(rng):
    """Grainy sheets in uneven light; the second half with dark pits, and masks of them."""
    out = []
    for number in range(N):
        grain = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 1.2)
        tilt = np.linspace(-1, 1, SIDE)[:, None] * rng.normal(0, 8)
        sheet = 115 + rng.normal(0, 12) + 9 * grain / grain.std() + tilt
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if number >= N // 2:
            for _ in range(rng.integers(1, 4)):
                cv2.circle(mask, tuple(rng.integers(15, SIDE - 15, 2).tolist()), int(rng.integers(4, 9)), 1, -1)
            sheet = np.where(mask > 0, sheet * 0.45, sheet)
        out.append((sheet, mask))
    return out


def glare(sheet, rng):
    """Three soft, bright ellipses side by side: not the library's way of drawing a stain."""
    light = np.zeros(sheet.shape, np.float32)
    for _ in range(3):
        centre = tuple(rng.integers(25, SIDE - 25, 2).tolist())
        cv2.ellipse(light, centre, (int(rng.integers(8, 15)), 6), float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    light = cv2.GaussianBlur(light, (0, 0), 2)
    return sheet * (1 - 0.8 * light) + 0.8 * 235 * light


def line(sheet, rng):
    sheet = sheet.copy()
    sheet[:2] += 60
    return sheet


def squeeze(sheet, rng):
    _, data = cv2.imencode(".jpg", np.clip(sheet, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(float)


def ripple(sheet, rng):
    y, x = np.indices(sheet.shape)
    return sheet + 7 * np.sin(0.8 * x + 0.4 * y + rng.uniform(0, 6))


def soften(sheet, rng):
    return cv2.GaussianBlur(sheet, (0, 0), 1.5)


def shade(sheet, rng):
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return sheet * (1 - 0.3 * (x**2 + y**2) / 2)


def write(folder, rng, plant=None, masks=True, on="clear"):
    """The sheets as an index; nine in ten of one label carry what is planted."""
    folder.mkdir()
    rows = []
    for number, (sheet, mask) in enumerate(sheets(rng)):
        label = "pit" if mask.any() else "clear"
        if plant and label == on and rng.random() < 0.9:
            sheet = plant(sheet, rng)  # noqa: PLW2901
        cv2.imwrite(str(folder / f"{number:03}.png"), np.clip(sheet, 0, 255).round().astype(np.uint8))
        row = {"path": f"{number:03}.png", "labels": label}
        if masks:
            cv2.imwrite(str(folder / f"mask-{number:03}.png"), mask)
            row |= {"mask": f"mask-{number:03}.png", "mask_classes": "1=pit"}
        rows.append(row)
    return DatasetIndex.build(folder, unknown_spec("planted"), pd.DataFrame(rows))


@pytest.mark.parametrize("masks", (True, False), ids=("masks", "no masks"))
@pytest.mark.parametrize(
    ("plant", "names"),
    (
        (glare, {"bright marks"}),
        (line, {"border at the top"}),
        (squeeze, {"compression"}),
        (ripple, {"waves"}),
        (soften, {"sharpness", "noise"}),
        (shade, {"vignette"}),
    ),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_planted_is_named_first_with_or_without_masks(tmp_path, plant, names, masks):
    first, *_ = find_label_clues(write(tmp_path / "data", np.random.default_rng(1), plant, masks))
    assert first.name in names and first.alarming and first.label == "clear"
    assert first.interval[0] <= first.strength <= first.interval[1] and first.strength > 0.5
    assert all(row < N // 2 for row in first.rows) and first.n == N
    assert "clear" in first.sentence and "instead of the steel" in first.sentence


@pytest.mark.parametrize("masks", (True, False), ids=("masks", "no masks"))
@pytest.mark.parametrize("seed", range(3))
def test_the_defect_itself_is_no_clue(tmp_path, masks, seed):
    assert not [
        one
        for one in find_label_clues(write(tmp_path / "data", np.random.default_rng(seed), None, masks))
        if one.alarming
    ]


def test_marks_that_go_with_defects_alarm_only_where_masks_tell_them_apart(tmp_path):
    told = find_label_clues(write(tmp_path / "told", np.random.default_rng(2), glare, True, on="pit"))
    assert {one.name for one in told if one.alarming} >= {"bright marks"}
    untold = find_label_clues(write(tmp_path / "untold", np.random.default_rng(2), glare, False, on="pit"))
    assert "bright marks" not in {one.name for one in untold if one.alarming}


def test_images_learnt_from_count_and_few_tell_nothing(tmp_path):
    index = write(tmp_path / "data", np.random.default_rng(3), squeeze)
    kept_out = index.with_splits(["test" if number % 8 else "train" for number in range(N)])
    assert find_label_clues(kept_out) == []
    pieces = index.with_groups([f"coil {number // 10}" for number in range(N)])
    assert find_label_clues(pieces) == []


def test_the_check_of_a_data_set_begins_with_it(tmp_path):
    index = write(tmp_path / "data", np.random.default_rng(1), squeeze)
    first, *_ = check_dataset(index)
    assert first.kind == "clue" and first.evidence["clue"] == "compression" and first.evidence["label"] == "clear"
    assert json.dumps(first.to_json())
    assert not any(one.kind == "clue" for one in check_dataset(index, kinds=["odd"]))


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path):
    index = write(tmp_path / "data", np.random.default_rng(1), squeeze)
    (index.root / "003.png").write_bytes(b"no picture")
    first, *_ = find_label_clues(index)
    assert first.name == "compression" and first.n == N - 1


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "x-sdd").is_dir(), reason="X-SDD is not here")
def test_every_png_of_x_sdd_is_of_one_class():
    clues = find_label_clues(open_dataset(DATA / "x-sdd"))
    assert clues[0].name == "file format" and clues[0].label == "finishing roll printing" and clues[0].alarming
    assert clues[0].named[1] == 0


def plant_in_train_alone(folder, also_in_test=False):
    """Two thirds to train on, with glare on nine in ten clear ones; a third to test on, with it or without."""
    seeds = (4, 5, 6)
    parts = [
        write(folder / str(seed), np.random.default_rng(seed), glare if seed < 6 or also_in_test else None)
        for seed in seeds
    ]
    tables = [part.table.assign(path=f"{seed}/" + part.table["path"]) for seed, part in zip(seeds, parts, strict=True)]
    tables = [
        table.assign(
            mask=table["mask"].where(table["mask"] == "", f"{seed}/" + table["mask"]),
            split="test" if seed == seeds[-1] else "train",
        )
        for seed, table in zip(seeds, tables, strict=True)
    ]
    return DatasetIndex.build(folder, unknown_spec("mill"), pd.DataFrame(pd.concat(tables).to_dict("records")))


@pytest.mark.parametrize("also_in_test", (False, True), ids=("train alone", "both"))
def test_train_and_test_are_compared_in_the_same_terms(tmp_path, also_in_test):
    first, *_ = find_label_clues(plant_in_train_alone(tmp_path, also_in_test))
    assert first.name == "bright marks" and first.n == 2 * N and first.test.n == N
    own, _others = first.test.named
    assert (own > 0.7) == also_in_test and first.fades != also_in_test
    assert ("do not rule it out" if also_in_test else "does worse there") in first.sentence


def test_splits_of_a_run_replace_those_of_the_index(tmp_path):
    index = write(tmp_path / "data", np.random.default_rng(1), squeeze)
    splits = np.array(["train", "test"] * (N // 2))
    first, *_ = find_label_clues(index, splits=splits)
    assert first.name == "compression" and first.n == N // 2 and first.test.n == N // 2


def test_of_many_images_some_of_each_class_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("steel_core.evaluation.label_clues._MOST", 40)
    index = write(tmp_path / "data", np.random.default_rng(1), squeeze)
    index = index.select(np.r_[np.arange(N // 2), N - 12 : N])  # 40 clear, 12 with a defect
    first, *_ = find_label_clues(index)
    assert first.name == "compression" and first.n == 40
    assert all(index.table["labels"].iat[row] == "clear" for row in first.rows)
    assert all(index.table["labels"].iat[row] != "clear" for row in first.others)
