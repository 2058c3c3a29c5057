"""Who looks at each image once says how many of them that squeezes."""

import pytest
from helpers.small import make_checkpoint, steel_image

from steel_core.audit.cure import cure
from steel_core.data.images.read import encode_png
from steel_core.data.open import open_dataset
from steel_core.evaluation.map_quality import measure_quality
from steel_core.inference.predictor import Predictor
from steel_core.training.prepare import prepare
from steel_core.training.settings import TrainingSettings

SAID = "WARNING: 3 of 24 images do not fit an input of 64 x 64 pixels"


class ToldError(Exception):
    """What was waited for has been said; the rest of the work would take seconds."""


def hear(line):
    if line.startswith(SAID):
        raise ToldError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """24 sheets of 64 x 64, three of them strips of 64 x 400."""
    root = tmp_path_factory.mktemp("data") / "mixed"
    for i in range(24):
        folder = root / ("clear", "defect")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(encode_png(steel_image(64, 400 if i < 3 else 64, seed=i).pixels))
    found = open_dataset(root)
    return found.with_groups([str(i) for i in range(24)]).with_splits(["train", "val", "test"] * 8)


def test_training_says_so(index):
    lines = []
    prepare(index, TrainingSettings(epochs=1), lines.append, lambda *_: None)
    assert any(line.startswith(SAID) for line in lines)
    lines.clear()
    sheets = index.select(rows=[i for i in range(24) if index.size(i) == (64, 64)])
    prepare(sheets, TrainingSettings(epochs=1), lines.append, lambda *_: None)
    assert lines and not any("do not fit" in line for line in lines)


def test_the_quality_of_explanations_says_so(index, checkpoint):
    with pytest.raises(ToldError):
        measure_quality(Predictor(checkpoint, "cpu"), index, ["grad-cam"], report=hear)


def test_the_cure_says_so(index, tmp_path):
    with pytest.raises(ToldError):
        cure(make_checkpoint(tmp_path / "ill"), index, tmp_path / "cured", device="cpu", report=hear)
