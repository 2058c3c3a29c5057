"""What is planted is found, what is clean is left alone, and the source stays as it is."""

import csv
import io

import cv2
import numpy as np
import pandas as pd
import pytest

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.quality.findings import (
    describe_textures,
    find_leaks,
    find_near_duplicates,
    find_odd_images,
    find_suspicious_labels,
    findings_to_csv,
    without_findings,
)
from steel_core.data.quality.properties import PROPERTIES, PROPERTY_TABLE, noise, sharpness


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def surface(rng, sigma=1.2, side=64):
    grain = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), sigma)
    return 120 + 20 * grain / grain.std()


def write(folder, pictures, **columns):
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.clip(picture, 0, 255).round().astype(np.uint8))
    table = pd.DataFrame({"path": [f"{number:03}.png" for number in range(len(pictures))], **columns})
    return DatasetIndex.build(folder, unknown_spec("planted"), table)


def test_odd_pictures_are_found_and_clean_ones_are_not(tmp_path):
    rng = np.random.default_rng(0)
    clean = [surface(rng) * rng.uniform(0.8, 1.2) for _ in range(60)]
    index = write(tmp_path / "clean", clean)
    assert find_odd_images(index, PROPERTY_TABLE.load_or_measure(index)) == []
    planted = {
        3: ("brightness", clean[3] * 0.1),
        9: ("sharpness", cv2.GaussianBlur(clean[9], (0, 0), 4)),
        17: ("clipped", (clean[17] - 120) * 40 + 120),
        31: ("size", clean[31][:40]),
    }
    pictures = [planted[k][1] if k in planted else picture for k, picture in enumerate(clean)]
    index = write(tmp_path / "odd", pictures)
    (index.root / "050.png").write_bytes(b"no picture")
    findings = find_odd_images(index, PROPERTY_TABLE.load_or_measure(index))
    assert {entry.rows[0] for entry in findings if entry.kind == "odd"} == set(planted)
    for row, (name, _) in planted.items():
        assert name in {entry.evidence["property"] for entry in findings if entry.rows == (row,)}
    assert [entry.files for entry in findings if entry.kind == "unreadable"] == [("050.png",)]


def test_uniform_steel_is_not_called_blurry(tmp_path):
    """The trap of the usual measures: low contrast alone is not out of focus."""
    rng = np.random.default_rng(1)
    grain = surface(rng)
    dull = 120 + (grain - 120) * 0.1
    assert sharpness(dull.astype(np.float32) / 255) == pytest.approx(
        sharpness(grain.astype(np.float32) / 255), rel=0.01
    )


def test_noise_is_that_of_immerkaer():
    rng = np.random.default_rng(2)
    grey = (0.5 + rng.normal(0, 0.03, (200, 200))).astype(np.float32)
    assert noise(grey) == pytest.approx(0.03, rel=0.03)


def test_properties_are_kept_until_a_file_changes(tmp_path):
    rng = np.random.default_rng(3)
    index = write(tmp_path / "set", [surface(rng) for _ in range(4)])
    first = PROPERTY_TABLE.load_or_measure(index)
    assert list(first.columns) == list(PROPERTIES)
    assert first["brightness"].tolist() == pytest.approx([index.image(i).grey().mean() for i in range(4)])
    cv2.imwrite(str(index.root / "002.png"), np.full((64, 64), 10, np.uint8))
    again = PROPERTY_TABLE.load_or_measure(index)
    assert again["brightness"][2] == pytest.approx(10 / 255)
    pd.testing.assert_frame_equal(again.drop(index=2), first.drop(index=2))


def labelled(tmp_path, flips):
    rng = np.random.default_rng(4)
    sigmas = np.repeat([0.8, 2.5, 6.0], 30)
    labels = np.repeat(["fine", "middle", "coarse"], 30).astype(object)
    for row in flips:
        labels[row] = "coarse" if labels[row] != "coarse" else "fine"
    return write(tmp_path / "labels", [surface(rng, sigma) for sigma in sigmas], labels=labels)


def test_flipped_labels_are_found_and_right_ones_are_not(tmp_path):
    flips = {4, 25, 40, 70}
    index = labelled(tmp_path, flips)
    alone = np.array([f"{k}" for k in range(len(index))], object)
    findings = find_suspicious_labels(index, describe_textures(index), alone)
    assert {entry.rows[0] for entry in findings} == flips
    for entry in findings:
        assert entry.evidence["looks_like"] == ("fine", "middle", "coarse")[entry.rows[0] // 30]
    assert (without_findings(index, findings).table["labels"] == "").sum() == 4
    assert (index.table["labels"] == "").sum() == 0


def test_duplicates_leaks_and_the_cleaned_index(tmp_path):
    rng = np.random.default_rng(5)
    pictures = [surface(rng) for _ in range(6)]
    index = write(tmp_path / "d", [*pictures, pictures[0], pictures[1] * 0.9], split=["train"] * 6 + ["test"] * 2)
    pairs = pd.DataFrame({"first": [0, 1], "second": [6, 7], "score": [1.0, 0.9], "dy": 0, "dx": 0})
    findings = find_near_duplicates(index, pairs)
    assert [entry.rows for entry in findings] == [(0, 6), (1, 7)]
    assert [entry.evidence["copies"] for entry in findings] == [[[0, 6]], []]
    groups = np.array(["a", "b", "", "", "", "", "a", "b"], object)
    leaking = find_leaks(index, groups)
    assert [entry.rows for entry in leaking] == [(0, 6), (1, 7)]
    before = index.hash
    clean = without_findings(index, [*findings, *leaking])
    assert index.hash == before
    assert clean.table["path"].tolist() == [f"{k:03}.png" for k in (0, 1, 2, 3, 4, 5, 7)]
    assert clean.table["split"].tolist() == ["train"] * 7
    assert clean.table["group"].tolist() == ["000.png", "001.png", "", "", "", "", "001.png"]
    assert clean.leaking_groups() == []


def test_the_export_runs_nothing_in_a_spreadsheet(tmp_path):
    rng = np.random.default_rng(6)
    index = write(tmp_path / "x", [surface(rng)])
    (index.root / "000.png").rename(index.root / "=cmd.png")
    index = DatasetIndex.build(index.root, index.spec, pd.DataFrame({"path": ["=cmd.png"]}))
    (index.root / "=cmd.png").write_bytes(b"x")
    rows = list(
        csv.DictReader(
            io.StringIO(findings_to_csv(find_odd_images(index, PROPERTY_TABLE.load_or_measure(index))).decode())
        )
    )
    assert rows[0]["file"] == "'=cmd.png"
    assert rows[0]["kind"] == "unreadable"
