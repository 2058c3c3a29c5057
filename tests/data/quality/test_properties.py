"""Properties that are kept are found without measuring, and only as long as no file changes."""

import cv2
import pandas as pd
import pytest
from helpers.small import steel_image

from steel_core.data.open import open_dataset
from steel_core.data.quality import measured_table, properties


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured_table, "_PART", 2)  # three parts
    for k in range(5):
        path = tmp_path / "set" / ("clear", "defect")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), steel_image(seed=k).pixels)
    return open_dataset(tmp_path / "set")


def test_what_was_measured_is_found_until_a_file_changes(index, monkeypatch):
    assert properties.PROPERTY_TABLE.load(index) is None
    measured = properties.PROPERTY_TABLE.load_or_measure(index)
    monkeypatch.setattr(measured_table.MeasuredTable, "_make_part", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(properties.PROPERTY_TABLE.load(index), measured)
    cv2.imwrite(str(index[4].path), steel_image(40, 40, seed=9).pixels)
    assert properties.PROPERTY_TABLE.load(index) is None


def test_half_of_it_is_not_enough(index):
    properties.PROPERTY_TABLE.load_or_measure(index)
    next(iter(properties.PROPERTY_TABLE.folder(index).iterdir())).unlink()
    assert properties.PROPERTY_TABLE.load(index) is None
