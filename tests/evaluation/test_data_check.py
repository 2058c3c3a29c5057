"""The check as a whole, with and without a checkpoint."""

import cv2
import numpy as np
import pytest
from helpers.small import make_checkpoint, steel_image

from steel_core.data.open import open_dataset
from steel_core.errors import UsageError
from steel_core.evaluation.data_check import (
    check_dataset,
    checks_folder,
    find_check,
    load_or_check,
    measure_leak_effect,
)
from steel_core.inference.predictor import Predictor


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    for k in range(8):
        path = tmp_path / "set" / ("train", "test")[k // 4] / ("clear", "defect")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grain = cv2.GaussianBlur(steel_image(96, 96, seed=k % 7).pixels, (0, 0), 1.5)  # 0 and 7 are the same sheet
        cv2.imwrite(str(path), cv2.normalize(grain, None, 30, 220, cv2.NORM_MINMAX))
    return open_dataset(tmp_path / "set")


def test_a_copy_in_the_test_split_is_a_near_duplicate_and_a_leak(index):
    result = check_dataset(index)
    assert [entry.kind for entry in result] == ["near-duplicates", "leak"]
    assert set(result[0].files) == {"0.png", "7.png"}
    assert result[1].evidence == {"train": 1, "test": 1}


def test_the_leak_s_effect_counts_the_test_images_with_and_without_it(index, checkpoint):
    predictor = Predictor(checkpoint, "cpu")
    result = check_dataset(index, predictor, ["leak"])
    effect = result[0].evidence
    rows = np.flatnonzero(index.table["split"] == "test")
    right = {int(i): predictor.predict([index.image(int(i))])[0].pred in index[int(i)].labels for i in rows}
    kept = [row for row in right if row not in result[0].rows]
    assert (effect["n_before"], effect["n_after"]) == (4, 3)
    assert effect["accuracy_before"] == round(sum(right.values()) / 4, 4)
    assert effect["accuracy_after"] == round(sum(right[row] for row in kept) / 3, 4)


def test_a_checkpoint_of_other_classes_measures_nothing(index, tmp_path):
    other = Predictor.load(make_checkpoint(tmp_path / "other", classes=("x", "y", "z")), "cpu")
    assert measure_leak_effect(index, [], other) == {}


def test_an_unknown_kind(index):
    with pytest.raises(UsageError, match="got blur"):
        check_dataset(index, kinds=["blur"])


def test_findings_are_kept_for_a_checkpoint_and_found_again_until_a_file_changes(index, checkpoint, monkeypatch):
    predictor = Predictor(checkpoint, "cpu")
    assert find_check(index) is None
    result = load_or_check(index)
    assert find_check(index, predictor) is None  # a leak's effect is another finding
    monkeypatch.setattr("steel_core.evaluation.data_check.check_dataset", lambda *_, **__: pytest.fail("looked again"))
    assert load_or_check(index) == find_check(index) == result
    for file in checks_folder().iterdir():
        file.write_bytes(b"damaged")
    assert find_check(index) is None
