"""Before training the data are asked what predicts the label; after it, a gap between validation and test is said."""

import cv2
import numpy as np
import pandas as pd
import pytest

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.evaluation.label_clues import find_label_clues
from steel_core.jobs.run_log import RunLog
from steel_core.training.doubts import describe_gap
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train

N, SIDE = 160, 64


@pytest.fixture(scope="module")
def stained(tmp_path_factory):
    """Grainy sheets, half of them with dark dots; a bright blot on each clear one, but in the test part on none."""
    folder = tmp_path_factory.mktemp("stained")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(N):
        sheet = 120 + 6 * rng.normal(size=(SIDE, SIDE))
        clear, split = number % 2 == 0, ("train", "val", "test", "train")[number // 2 % 4]
        x, y = rng.integers(14, SIDE - 14, 2).tolist()
        if not clear:
            for _ in range(12):
                cv2.circle(sheet, tuple(rng.integers(4, SIDE - 4, 2).tolist()), 1, 70.0, -1)
        elif split != "test":
            cv2.ellipse(sheet, (x, y), (12, 8), 30, 0, 360, 225.0, -1)
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(sheet, 0, 255).astype(np.uint8))
        rows.append({"path": f"{number}.png", "labels": "clear" if clear else "dots", "split": split})
    return DatasetIndex.build(folder, unknown_spec("stained"), pd.DataFrame(rows))


def report(value, low, high):
    return {"macro_recall": value, "intervals": {"macro_recall": (low, high)}}


def test_a_gap_beyond_chance_is_said_with_its_interval():
    said = describe_gap({"val": report(0.92, 0.88, 0.95), "test": report(0.60, 0.56, 0.64)}, [])
    # By hand: 0.32 - sqrt(0.04^2 + 0.04^2), 0.32 + sqrt(0.03^2 + 0.04^2)
    assert "0.32 lower in test (0.60) than in validation (0.92); 95 %: 0.26 to 0.37" in said


@pytest.mark.parametrize(
    "test",
    (report(0.80, 0.60, 0.92), report(0.95, 0.90, 0.97), report(0.88, 0.875, 0.885), report(None, 0.0, 1.0)),
    ids=("chance", "higher", "choosing", "unknown"),
)
def test_what_chance_or_choosing_explains_is_not_said(test):
    assert describe_gap({"val": report(0.92, 0.88, 0.95), "test": test}, []) == ""
    assert describe_gap({"val": report(0.92, 0.88, 0.95)}, []) == ""


def test_what_fades_in_test_is_named(stained):
    clues = [clue for clue in find_label_clues(stained) if clue.alarming]
    said = describe_gap({"val": report(0.99, 0.95, 1.0), "test": report(0.55, 0.45, 0.65)}, clues)
    assert "bright marks on the steel (clear)" in said and "probably learnt" in said


def test_training_asks_first_and_the_card_keeps_the_answer(stained, tmp_path, monkeypatch):
    monkeypatch.setattr("steel_core.training.map_scales.IMAGES", 2)
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    lines, log = [], RunLog(tmp_path / "log")
    settings = TrainingSettings(epochs=8, learning_rate=2e-3, batch_size=16, average=10, seed=1)
    card = train(stained, tmp_path / "model", settings, report=lines.append, log=log)
    warned = next(i for i, line in enumerate(lines) if line.startswith("WARNING: Bright marks"))
    assert warned < next(i for i, line in enumerate(lines) if line.startswith("training "))
    assert lines[warned] in log.state().messages
    first = next(clue for clue in card.training.clues if clue["name"] == "bright marks")
    assert first["label"] == "clear" and first["strength"] > 0.5
    assert first["named"][0] > 0.9 and first["named_in_test"][0] < 0.3
    fell = card.metrics["val"]["macro_recall"] - card.metrics["test"]["macro_recall"]
    assert fell > 0.2, "the small network did not learn the blot, so nothing is tried here"
    assert any("lower in test" in note and "bright marks" in note for note in card.notes)
    assert any(line.startswith("WARNING: Balanced accuracy") for line in lines)
