"""Training, evaluation and cross-validation end to end on small sheets."""

import errno
import hashlib
import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score

from steel_core.data.open import open_dataset
from steel_core.data.quality.near_duplicates import group_near_duplicates
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluate import evaluate
from steel_core.explain.base import EXPLAINERS
from steel_core.files import scratch_array
from steel_core.inference.predictor import Predictor
from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import load_checkpoint
from steel_core.training import fit, images
from steel_core.training.cross_validate import cross_validate
from steel_core.training.fit import Fit, class_weights, find_learning_rate
from steel_core.training.images import measure, read_images
from steel_core.training.prepare import with_groups
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train

SMALL = TrainingSettings(epochs=3, learning_rate=2e-3, batch_size=16, average=10, seed=1)


def quiet(*_):
    pass


@pytest.fixture(autouse=True, scope="module")
def few_maps():
    """The scale of the maps is taken from two images, not from twelve: SHAP is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steel_core.training.map_scales.IMAGES", 2)
        yield


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """120 sheets of 64 x 64, half of them clear."""
    out = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=5, clear_share=0.5), 120, out)
    return open_dataset(out).binary()


@pytest.fixture(scope="module")
def trained(sheets, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    lines = []
    card = train(sheets, out, SMALL, report=lines.append)
    return out, card, lines


def test_the_checkpoint_loads_and_its_card_says_what_happened(trained, sheets):
    out, card, lines = trained
    result = load_checkpoint(out)
    assert result.card.to_json() | {"weights_sha256": ""} == card.to_json()
    assert result.card.classes == ("clear", "defect")
    assert result.card.split.counts == {p: int((sheets.table["split"] == p).sum()) for p in ("train", "val", "test")}
    assert result.card.metrics["test"]["n"] == result.card.split.counts["test"]
    assert [row["epoch"] for row in result.card.training.history] == [1, 2, 3]
    assert set(result.card.map_scale) == set(EXPLAINERS)
    assert result.background.shape == (20, 64, 64)
    assert any("epoch 3/3" in line for line in lines)
    assert not list(out.parent.glob(".*"))


def test_mean_and_std_are_those_of_the_training_images(trained, sheets):
    _, card, _ = trained
    rows = np.flatnonzero(sheets.table["split"] == "train")
    pixels = np.concatenate([sheets.image(int(i)).grey().ravel() for i in rows])
    assert card.mean == pytest.approx(pixels.mean(), abs=1e-3)
    assert card.std == pytest.approx(pixels.std(), abs=1e-3)


def test_no_file_lies_in_two_parts(trained):
    files = trained[1].split.files
    assert not set(files["train"]) & set(files["val"])
    assert not (set(files["train"]) | set(files["val"])) & set(files["test"])


def test_the_figures_of_the_card_are_those_of_the_loaded_checkpoint(trained, sheets):
    """Recomputed from the saved files with scikit-learn."""
    out, card, _ = trained
    predictor = Predictor.load(out, "cpu")
    rows = np.flatnonzero(sheets.table["split"] == "test")
    result = predictor.predict([sheets.image(int(i)) for i in rows])
    pred = np.array([predictor.classes.index(p.pred) for p in result])
    truth = sheets.labels_encoded()[rows]
    assert card.metrics["test"]["macro_recall"] == pytest.approx(balanced_accuracy_score(truth, pred), abs=1e-9)


def test_evaluate_counts_only_what_was_not_learnt(trained, sheets):
    out, card, _ = trained
    result = evaluate(Predictor.load(out, "cpu"), sheets)
    assert result.report.n == card.split.counts["test"]
    assert result.report.accuracy == pytest.approx(card.metrics["test"]["accuracy"])
    assert any("served to train" in sentence for sentence in result.left_out)
    assert evaluate(Predictor.load(out, "cpu"), sheets, "all").report.n == 120
    with pytest.raises(UsageError, match="held-out"):
        evaluate(Predictor.load(out, "cpu"), sheets, "some")


def test_evaluate_sees_defect_types_as_one_class(trained, sheets):
    out, _, _ = trained
    types = open_dataset(sheets.root)
    assert len(types.classes) > 2
    assert evaluate(Predictor.load(out, "cpu"), types, "all").report.n == 120


def test_evaluate_refuses_foreign_classes(trained, tmp_path):
    from helpers.small import make_checkpoint

    other = make_checkpoint(tmp_path / "other", classes=("rust", "paint"))
    with pytest.raises(DataError, match="unknown to this checkpoint"):
        _ = evaluate(Predictor.load(other, "cpu"), open_dataset_of(trained)).report


def open_dataset_of(trained):
    from PIL import Image

    folder = trained[0].parent / "folders"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), 90, np.uint8)).save(folder / name / "a.png")
    return open_dataset(folder)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(sheets, trained, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    def stop_after_two(line):
        if line.startswith("epoch 2/"):
            raise Stop

    with pytest.raises(Stop):  # the state of epoch 2 is not yet written: epoch 2 is run again
        train(sheets, tmp_path / "model", SMALL, report=stop_after_two)
    assert not (tmp_path / "model").exists()
    lines = []
    train(sheets, tmp_path / "model", SMALL, report=lines.append)
    assert "resumed after epoch 1" in lines
    whole, resumed = load_checkpoint(trained[0]), load_checkpoint(tmp_path / "model")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert whole.card.training.history == resumed.card.training.history


def test_a_resumed_run_keeps_the_learning_rate_it_found(sheets, tmp_path, monkeypatch):
    before, after = [], []

    def stop(line):
        before.append(line)
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    config = SMALL.replace(learning_rate=None, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(sheets, tmp_path / "model", config, report=stop, finish=False)
    monkeypatch.setattr("steel_core.training.train.find_learning_rate", lambda *_: pytest.fail("searched again"))
    card = train(sheets, tmp_path / "model", config, report=after.append, finish=False)
    (rate,) = [line for line in before if line.startswith("learning rate found")]
    assert rate in after
    assert len(card.training.learning_rate_search) == 2


def test_images_that_do_not_fit_into_memory_are_learnt_from_disk(sheets, tmp_path, monkeypatch):
    held = train(sheets, tmp_path / "held", SMALL, finish=False)
    made = []
    monkeypatch.setattr(images, "_HELD_BYTES", 0)
    monkeypatch.setattr(images, "scratch_array", lambda *given: made.append(scratch_array(*given)) or made[-1])
    mapped = train(sheets, tmp_path / "mapped", SMALL, finish=False)
    assert [type(array) for array in made] == [np.memmap]
    assert mapped.weights_sha256 == held.weights_sha256


def test_a_full_disk_is_told_before_an_image_is_read(sheets, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images, "_HELD_BYTES", 0)
    monkeypatch.setattr(images, "scratch_array", full)
    with pytest.raises(UsageError, match=r"expected 0\.0 GB on the disk for \d+ images, got 'No space left on device'"):
        read_images(sheets, (64, 64), lambda *_: pytest.fail("an image was read"))


def test_other_settings_do_not_resume_a_foreign_run(sheets, tmp_path):
    def stop(line):
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(sheets, tmp_path / "model", SMALL, report=stop)
    lines = []
    train(sheets, tmp_path / "model", TrainingSettings(epochs=1, learning_rate=1e-3), report=lines.append)
    assert not any("resumed" in line for line in lines)


def test_labels_without_meaning_are_called_out(sheets, tmp_path):
    rng = np.random.default_rng(0)
    table = sheets.table.assign(labels=rng.permutation(sheets.table["labels"]))
    shuffled = type(sheets)(sheets.root, sheets.spec, sheets.classes, table)
    lines = []
    card = train(shuffled, tmp_path / "model", TrainingSettings(epochs=2, learning_rate=1e-4), report=lines.append)
    assert any("no better than always naming one class" in note for note in card.notes)
    assert any("trying again" in line for line in lines)
    assert any(line.startswith("WARNING") for line in lines)


def test_unreadable_images_are_left_out_and_named(sheets, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(sheets.root, folder)
    victim = open_dataset(folder)[0].path
    victim.write_bytes(victim.read_bytes()[:200])
    lines = []
    card = train(
        open_dataset(folder).binary(),
        tmp_path / "model",
        TrainingSettings(epochs=1, learning_rate=1e-3),
        report=lines.append,
    )
    assert card.data["images"] == 119
    assert any(line.startswith("left out:") and victim.name in line for line in lines)


def test_what_cannot_be_trained_on_is_a_sentence(sheets, tmp_path):
    one = sheets.select(sheets.table["labels"] == "clear")
    with pytest.raises(DataError, match=r"none or several|at least 2 classes"):
        train(type(sheets)(one.root, one.spec, ("clear",), one.table), tmp_path / "model", SMALL, report=quiet)
    unlabelled = type(sheets)(sheets.root, sheets.spec, sheets.classes, sheets.table.assign(labels=""))
    with pytest.raises(DataError, match="one label for each image"):
        train(unlabelled, tmp_path / "model", SMALL, report=quiet)
    with pytest.raises(UsageError, match="init"):
        train(
            sheets, tmp_path / "model", TrainingSettings(epochs=1, init="nowhere.pth", learning_rate=1e-3), report=quiet
        )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("wrong", [{"head": "tanh"}, {"epochs": -1}, {"learning_rate": -1.0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        TrainingSettings(**wrong)


@pytest.mark.parametrize(("given", "images", "expected"), [(0, 1152, 25), (0, 350, 73), (0, 20, 800), (3, 350, 3)])
def test_few_images_are_passed_over_more_often(given, images, expected):
    assert TrainingSettings(epochs=given).for_images(images).epochs == expected


def test_class_weights_balance_the_classes():
    labels = torch.tensor([0] * 30 + [1] * 10)
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([40 / 60, 40 / 20, 0.0])
    assert float(weights[labels].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_losses_by_hand(sheets, head):
    table = read_images(sheets.select(rows=[0, 1]), (64, 64), quiet)
    fit = Fit(BACKBONES["squeezenet-reduced"](2), table, measure(table, torch.tensor([0, 1]), (64, 64)),
              TrainingSettings(head=head), torch.device("cpu"))  # fmt: skip
    logits, labels, weights = torch.tensor([[1.0, -2.0], [0.5, 0.25]]), torch.tensor([0, 1]), torch.tensor([1.0, 3.0])
    x = logits.double().numpy()
    if head == "softmax":
        each = -np.log(softmax(x, axis=1))[[0, 1], [0, 1]]
    else:
        p = 1 / (1 + np.exp(-x))
        each = -np.array([math.log(p[0, 0] * (1 - p[0, 1])), math.log(p[1, 1] * (1 - p[1, 0]))])
    expected = (each * [1, 3]).sum() / 4
    assert float(fit.loss(logits, labels, weights, 0.0)) == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_search_leaves_the_model_alone(sheets):
    table = read_images(sheets, (64, 64), quiet)
    rows = torch.arange(len(sheets))
    model = BACKBONES["squeezenet-reduced"](2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit = Fit(model, table, measure(table, rows, (64, 64)), TrainingSettings(), torch.device("cpu"))
    rate, curves = find_learning_rate(fit, rows)
    assert 1e-4 <= rate <= 4e-3
    assert [len(curve) > 5 for curve in curves] == [True, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_cross_validation_counts_every_image_once(sheets, tmp_path):
    config = TrainingSettings(epochs=1, learning_rate=1e-3)
    result = cross_validate(sheets, tmp_path, config, k=2, report=quiet).to_json()
    assert result["n"] == 120
    assert len(result["recall_by_fold"]) == 2
    assert len(result["errors"]) == round(120 * (1 - result["accuracy"]))
    cards = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/fold-*/card.json"))]
    assert len(cards) == 2
    tests = [set(card["split"]["files"]["test"]) for card in cards]
    assert not tests[0] & tests[1]
    assert len(tests[0] | tests[1]) == 120
    for card in cards:
        assert not set(card["split"]["files"]["train"]) & set(card["split"]["files"]["test"])
    cross_validate(sheets, tmp_path, config.replace(seed=7), k=2, report=quiet)
    assert len(list(tmp_path.glob("*/fold-*/card.json"))) == 4, "rounds of another seed are not taken for these"


def test_a_test_split_that_came_with_the_data_is_never_trained_on(sheets, tmp_path):
    """Train and test are given, nothing to validate on."""
    given = sheets.table["split"].replace("val", "train")
    lines = []
    card = train(
        replace(sheets, table=sheets.table.assign(split=given)),
        tmp_path / "model",
        TrainingSettings(epochs=1, learning_rate=1e-3),
        report=lines.append,
    )
    hashes = [digest[:16] for digest in sheets.file_hashes()]
    declared = {digest for digest, name in zip(hashes, given, strict=True) if name == "test"}
    assert set(card.split.files["test"]) == declared
    assert card.split.counts["val"] > 0
    assert any("a tenth of its train split" in line for line in lines)


def test_given_splits_that_leak_are_called_out(sheets, tmp_path):
    groups = [f"strip-{i % 10}" for i in range(len(sheets))]
    leaking = replace(sheets, table=sheets.table.assign(group=groups))
    card = train(leaking, tmp_path / "model", TrainingSettings(epochs=1, learning_rate=1e-3), report=quiet)
    assert any("lie in more than one of the splits" in note for note in card.notes)


def test_what_lies_at_the_destination_is_not_lost(sheets, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photos.txt").write_text("mine")
    (tmp_path / "note.txt").write_text("mine, too")
    for out in (precious, tmp_path / "note.txt"):
        with pytest.raises(UsageError, match="other files"):
            train(sheets, out, SMALL, report=quiet)
    assert (precious / "photos.txt").read_text() == "mine"
    assert (tmp_path / "note.txt").read_text() == "mine, too"


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_the_schedule_takes_any_number_of_steps(sheets, tmp_path, epochs):
    """Four steps in all would make torch's one-cycle schedule divide by zero."""
    config = TrainingSettings(epochs=epochs, learning_rate=1e-3, batch_size=84 * epochs // 4)
    few = sheets.select(rows=np.flatnonzero(sheets.table["split"] != "test"))
    assert train(few, tmp_path / "model", config, report=quiet).training.history


def test_near_duplicates_are_searched_for_once(sheets, tmp_path, monkeypatch):
    """The groups found are those of a search, are kept, and are searched for anew once an image has changed."""
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(sheets.root, tmp_path / "sheets")
    bare = open_dataset(tmp_path / "sheets").with_groups([""] * len(sheets))
    expected = group_near_duplicates(bare).tolist()
    searches = []

    def searched(index, **_):
        searches.append(index)
        return group_near_duplicates(index)

    monkeypatch.setattr("steel_core.training.prepare.group_near_duplicates", searched)
    for _ in range(2):
        assert with_groups(bare, quiet, quiet).table["group"].tolist() == expected
    assert len(searches) == 1
    bare.path(0).write_bytes(bare.path(1).read_bytes())
    groups = with_groups(bare, quiet, quiet).table["group"]
    assert len(searches) == 2 and groups[0] == groups[1]
    for kept in (tmp_path / "cache" / "groups").iterdir():
        kept.write_text("damaged")
    assert with_groups(bare, quiet, quiet).table["group"].tolist() == groups.tolist()


def test_splits_are_made_where_there_are_none(sheets, tmp_path):
    bare = type(sheets)(sheets.root, sheets.spec, sheets.classes, sheets.table.assign(split="", group=""))
    card = train(bare, tmp_path / "model", TrainingSettings(epochs=1, learning_rate=1e-3), report=quiet)
    assert min(card.split.counts.values()) >= 10


def test_the_state_is_never_half_written(sheets, tmp_path, monkeypatch):
    """A crash while the state is written leaves the one of the epoch before."""
    calls = []
    real = fit.torch.save

    def crash(content, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError("power cut")
        real(content, path)

    monkeypatch.setattr(fit.torch, "save", crash)
    with pytest.raises(OSError, match="power cut"):
        train(sheets, tmp_path / "model", SMALL, report=quiet)
    monkeypatch.undo()
    lines = []
    train(sheets, tmp_path / "model", SMALL, report=lines.append)
    assert "resumed after epoch 1" in lines


def test_from_trained_weights_the_head_learns_faster_and_fewer_epochs_are_enough():
    model = BACKBONES["efficientnet-lite-reduced"](3)
    for init, factor in (("random", 1.0), ("weights.safetensors", 4.0)):
        groups = fit.optimiser_for(model, 1e-3, TrainingSettings(init=init)).param_groups
        rates = {id(p): group["lr"] for group in groups for p in group["params"]}
        assert {rates[id(p)] for p in model.features.parameters()} == {1e-3}
        assert {rates[id(p)] for p in model.head.parameters()} == {1e-3 * factor}
        assert len(rates) == len(list(model.parameters()))
    assert TrainingSettings(init="imagenet").for_images(1000).epochs < TrainingSettings().for_images(1000).epochs


def test_training_goes_on_from_a_file_of_weights(sheets, tmp_path):
    """After no epoch to speak of, the features are still those of the file."""
    torch.manual_seed(3)
    given = BACKBONES["squeezenet-reduced"](2)
    torch.save(given.state_dict(), tmp_path / "given.pt")
    config = SMALL.replace(init=str(tmp_path / "given.pt"), epochs=1, learning_rate=1e-9)
    lines = []
    train(sheets, tmp_path / "out", config, report=lines.append, finish=False)
    result = load_checkpoint(tmp_path / "out")
    assert result.card.map_scale == {}
    digest = hashlib.sha256((tmp_path / "given.pt").read_bytes()).hexdigest()
    assert result.card.training.init_sha256 == digest
    assert f"starting from given.pt, sha256 {digest}" in lines
    for name, value in result.model.features.state_dict().items():
        torch.testing.assert_close(value, given.features.state_dict()[name], rtol=1e-4, atol=1e-6)
