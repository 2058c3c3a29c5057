"""Presets, freezing, patches, and a run that is followed and stopped."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from steel_core.cli.main import main
from steel_core.data.augmentation import Augmentation
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.jobs.run_log import RunLog, RunStopped
from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import load_checkpoint
from steel_core.training import map_scales
from steel_core.training.fit import Fit, run_fit
from steel_core.training.images import measure, rare_defects, read_images
from steel_core.training.settings import PRESETS, TrainingSettings
from steel_core.training.train import train

SMALL = TrainingSettings(epochs=3, learning_rate=2e-3, batch_size=16, seed=1)


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """60 sheets of 48 x 48, half of them clear."""
    out = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(48, 48), seed=6, clear_share=0.5), 60, out)
    return open_dataset(out).binary()


def fit_of(index, config, backbone):
    torch.manual_seed(0)
    table = read_images(index, (48, 48), quiet)
    rows = torch.arange(len(index))
    return Fit(BACKBONES[backbone](2), table, measure(table, rows, (48, 48)), config, torch.device("cpu")), rows


def test_presets_ask_for_more_epochs_one_after_the_other():
    assert list(PRESETS) == ["quick-look", "sound", "thorough"]
    for start, epochs in (("", [3, 10, 30]), ("random", [7, 25, 75])):
        assert [preset.config.replace(init=start).for_images(1000).epochs for preset in PRESETS.values()] == epochs


def test_a_backbone_starts_from_trained_weights_where_a_package_brings_them():
    assert PRESETS["sound"].config.start == "imagenet"
    assert PRESETS["sound"].config.replace(backbone="small-cnn").start == "random"
    assert PRESETS["sound"].config.replace(init="random").to_json()["init"] == "random"
    assert TrainingSettings(backbone="efficientnet-lite-reduced").to_json()["init"] == "imagenet"


@pytest.mark.parametrize("wrong", [{"loss": "hinge"}, {"effort": 0}, {"freeze_epochs": 2}, {"freeze_epochs": -1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        TrainingSettings(**wrong)


@pytest.mark.parametrize("backbone", ["resnet18", "squeezenet-reduced"])
def test_frozen_features_keep_weights_and_statistics_until_they_are_freed(sheets, tmp_path, backbone):
    config = SMALL.replace(epochs=2, freeze_epochs=1, init="weights.pt", batch_size=30, backbone=backbone)
    fit, rows = fit_of(sheets, config, backbone)
    before = copy.deepcopy(fit.model.state_dict())
    seen = []

    def look(history, best, logits):
        seen.append(copy.deepcopy(fit.model.state_dict()))
        return False

    run_fit(fit, rows[:50], rows[50:], 1e-3, tmp_path / "state.pt", quiet, quiet, look)
    frozen = [name for name in before if name.startswith("features.")]
    assert all(torch.equal(before[name], seen[0][name]) for name in frozen)
    assert not torch.equal(before["head.weight"], seen[0]["head.weight"])
    moved = [name for name in frozen if not torch.equal(before[name], seen[1][name])]
    assert len(moved) > 0.9 * len(frozen)
    assert any("running_mean" in name for name in moved) == (backbone == "resnet18")


def test_a_run_is_followed_stopped_and_resumed_to_the_same_end(sheets, tmp_path):
    log = RunLog(tmp_path / "log")

    def ask_after_first(line):
        if line.startswith("epoch 1/"):
            log.request_stop()

    with pytest.raises(RunStopped, match="after epoch 1 of 3"), log.running():
        train(sheets, tmp_path / "a", SMALL, report=ask_after_first, finish=False, log=log)
    state = log.state()
    assert (state.status, len(state.history), state.start["epochs"]) == ("stopped", 1, 3)
    with log.running():
        train(sheets, tmp_path / "a", SMALL, report=quiet, finish=False, log=log)
    whole = RunLog(tmp_path / "other")
    train(sheets, tmp_path / "b", SMALL, report=quiet, finish=False, log=whole)
    state = log.state()
    assert state.status == "done"
    keys = ("epoch", "train_loss", "val_loss", "val_macro_recall", "learning_rate")
    resumed, expected = ([{key: row[key] for key in keys} for row in s.history] for s in (state, whole.state()))
    assert resumed == expected
    one, other = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    assert one.card.weights_sha256 == other.card.weights_sha256
    for example, shown in zip(state.start["examples"], state.history[-1]["examples"], strict=True):
        assert Image.open(tmp_path / "log" / example["picture"]).size == (48, 48)
        assert example["actual"] in one.card.classes
        assert sum(shown["probs"].values()) == pytest.approx(1, abs=1e-3)
    assert {example["actual"] for example in state.start["examples"]} == {"clear", "defect"}


def test_patches_are_taken_where_the_defects_of_rare_classes_lie(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,label,xmin,ymin,xmax,ymax"]
    for i in range(12):
        Image.fromarray(rng.integers(90, 120, (100, 200), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    index = _boxed(tmp_path)
    table = read_images(index, (100, 100), quiet)
    centres = rare_defects(index, table, torch.arange(12))
    assert torch.isfinite(centres).all(dim=1).tolist() == [i == 3 for i in range(12)], rows
    # 200 x 100 pixels are seen at 200 x 100, of which the middle 100 x 100 are kept
    assert centres[3].tolist() == pytest.approx([(120 - 100) / 50, (30 - 50) / 50])
    only_others = rare_defects(index, table, torch.tensor([0, 1, 2]))
    assert not torch.isfinite(only_others).any()


def _boxed(folder):
    """Twelve pictures in COCO's layout; only the fourth is of the rare class, with a box about (120, 30)."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 100} for i in range(12)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 2 if i == 3 else 1, "bbox": [110, 20, 20, 20], "area": 400}
        for i in range(12)
    ]
    names = [{"id": 1, "name": "scratches"}, {"id": 2, "name": "crack"}]
    content = {"images": images, "annotations": boxes, "categories": names}
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_dataset(folder)


def test_training_on_patches_blur_and_focal_loss_runs_from_the_command_line(sheets, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("steel_core.training.map_scales.IMAGES", 1)
    monkeypatch.setattr("steel_core.training.finish.map_scales", lambda *_: {})
    flags = ["--data", str(sheets.root), "--binary", "--preset", "quick-look", "--epochs", "1", "--loss", "focal"]
    flags += ["--backbone", "squeezenet-reduced"]
    flags += ["--augment", "patches=0.5", "--augment", "cut-out=0.2", "--no-balanced", "--log", str(tmp_path / "log")]
    assert main(["train", *flags, "--out", str(tmp_path / "m"), "--json"]) == 0
    settings = load_checkpoint(tmp_path / "m").card.training.settings
    assert (settings["loss"], settings["epochs"], settings["balanced"]) == ("focal", 1, False)
    rate = PRESETS["quick-look"].config.learning_rate
    assert settings["learning_rate"] in (rate, rate / 3), "a third where it began anew"
    assert settings["augmentation"]["cut_out"] == 0.2
    assert settings["augmentation"]["noise"] == Augmentation().noise
    assert RunLog(tmp_path / "log").state().status == "done"
    assert main(["train", *flags, "--augment", "colour=1", "--out", str(tmp_path / "n")]) == 2
    assert "expected NAME=VALUE" in capsys.readouterr().err
    assert RunLog(tmp_path / "log").state().status == "failed"


def test_a_training_ends_with_a_gate_and_tells_each_stage(sheets, tmp_path, monkeypatch):
    monkeypatch.setattr("steel_core.training.map_scales.IMAGES", 1)
    monkeypatch.setattr("steel_core.training.map_scales._FEWEST", 1)
    index = sheets.with_groups([f"sheet {i}" for i in range(len(sheets))])
    split = np.array(["train", "val", "test"])[np.arange(len(index)) % 3]
    index = dataclasses.replace(index, table=index.table.assign(split=split))
    told, done = [], []
    log = RunLog(tmp_path / "log")
    config = SMALL.replace(epochs=1)
    train(index, tmp_path / "m", config, report=told.append, progress=lambda *step: done.append(step), log=log)
    checkpoint = load_checkpoint(tmp_path / "m")
    assert checkpoint.gate is not None
    rates = checkpoint.card.familiarity.rates
    own = next(rate for name, rate in rates.items() if name.endswith("test part"))
    assert own.n == (split == "test").sum()
    assert rates["photographs"].n > 15
    assert not any("on any picture" in note for note in checkpoint.card.notes)
    measured = ["predicting", "scale of the maps", "gate for unfamiliar images"]
    asked = "asking the data what predicts the label"
    stages = ["preparing the images", asked, "training", *measured, "saving"]
    assert list(log.state().end["seconds"]) == stages
    assert [line for line in told if line in [f"{name} …" for name in stages]] == [f"{name} …" for name in stages]
    assert set(measured) <= {what for what, *_ in done}
    assert told[-1].startswith("seconds: preparing the images ")


def test_too_few_images_for_a_gate_are_told_in_the_card_and_on_the_screen(sheets, tmp_path, monkeypatch):
    monkeypatch.setattr("steel_core.training.finish.map_scales", lambda *_: {})
    told = []
    card = train(sheets, tmp_path / "m", SMALL.replace(epochs=1), report=told.append)  # 6 to validate on
    assert load_checkpoint(tmp_path / "m").gate is None
    note = next(note for note in card.notes if "on any picture" in note)
    assert "at least 20" in note
    assert f"WARNING: {note}" in told


def test_a_dear_method_is_scaled_on_fewer_images():
    asked = {method: map_scales.images_asked(method) for method in EXPLAINERS}
    assert asked["grad-cam"] == map_scales.IMAGES
    assert asked["shap"] == asked["lime"] == 4
