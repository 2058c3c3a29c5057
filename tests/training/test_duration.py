"""The estimate of a training's length: what it grows with, and what it refuses before anything is timed."""

from dataclasses import replace

import pytest

from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.training import prepare as estimate
from steel_core.training.prepare import seconds_to_train
from steel_core.training.settings import TrainingSettings


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=3, clear_share=0.4), 40, place)
    return open_dataset(place)


def test_it_grows_with_epochs_and_the_search_for_a_rate(sheets, monkeypatch):
    monkeypatch.setattr(estimate, "_seconds_an_image", lambda *_: 1000.0)
    images = int((sheets.table["split"] == "train").sum())
    given = TrainingSettings(epochs=3, learning_rate=1e-3)
    assert seconds_to_train(sheets, given) == pytest.approx(3000 * images, rel=0.01)
    searched = seconds_to_train(sheets, given.replace(learning_rate=None)) - seconds_to_train(sheets, given)
    assert searched == pytest.approx(72 * 32 * 1000, rel=0.01)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_real_step_is_timed(sheets, head):
    config = TrainingSettings(backbone="small-cnn", epochs=1, learning_rate=1e-3, head=head, dropout=0.0)
    assert 0 < seconds_to_train(sheets, config) < 600


@pytest.mark.parametrize(
    ("backbone", "side", "sentence"),
    [
        ("resnet18", 8, "at least 32 pixels a side for resnet18"),
        ("torchvision:vit_b_32", 64, "expected a network that sees images of 64 x 64 pixels"),
        ("torchvision:inception_v3", 64, "expected a network that sees images of 64 x 64 pixels"),
        ("torchvision:nothing", 64, "expected a name out of"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_its_sentence(sheets, backbone, side, sentence):
    with pytest.raises(UsageError, match=sentence):
        seconds_to_train(sheets, TrainingSettings(backbone=backbone, input_size=(side, side)))


def test_labels_that_cannot_be_trained_on_are_refused_before_anything_is_timed(sheets, monkeypatch):
    monkeypatch.setattr(estimate, "_seconds_an_image", None)
    one = replace(sheets, classes=("clear",), table=sheets.table.assign(labels="clear"))
    with pytest.raises(DataError, match="at least 2 classes, got clear"):
        seconds_to_train(one, TrainingSettings())
    with pytest.raises(UsageError, match="Small CNN: no ImageNet weights are known"):
        seconds_to_train(sheets, TrainingSettings(backbone="small-cnn", init="imagenet"))
    labels = sheets.table["labels"].where(sheets.table.index > 2, "")
    with pytest.raises(DataError, match="3 of 40 have none"):
        seconds_to_train(replace(sheets, table=sheets.table.assign(labels=labels)), TrainingSettings())
