"""Cross-validations against each other: every image once in each, told anew from the rounds' own cards."""

import json
import shutil

import numpy as np
import pytest
from sklearn import metrics as oracle

from steel_core.cli import main as cli
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.checkpoints import build_fold_leaderboard
from steel_core.training.cross_validate import cross_validate
from steel_core.training.settings import TrainingSettings

SCRATCH = "small-cnn, 64 x 64, 1 epochs, from scratch"
CONFIG = TrainingSettings(backbone="small-cnn", epochs=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=3, clear_share=0.4), 90, place)
    return place


@pytest.fixture(scope="module")
def sheets(folder):
    return open_dataset(folder).binary()


@pytest.fixture(scope="module")
def work(sheets, tmp_path_factory):
    """Two cross-validations on the same folds, one of another seed, and one that was cut off."""
    place = tmp_path_factory.mktemp("work")
    result = cross_validate(sheets, place, CONFIG, k=2, report=lambda _: None)
    cross_validate(sheets, place, TrainingSettings(epochs=1, learning_rate=1e-3), k=2, report=lambda _: None)
    cross_validate(
        sheets,
        place,
        TrainingSettings(backbone="small-cnn", epochs=1, learning_rate=1e-3, seed=7),
        k=2,
        report=lambda _: None,
    )
    shutil.copytree(result.folder, place / "torn")
    shutil.rmtree(place / "torn" / "fold-2")
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path))


def recounted(sheets, work, backbone):
    """True and said class of every image, told by the cards alone."""
    digests = [digest[:16] for digest in sheets.file_hashes()]
    truth = (sheets.table["labels"] != "clear").to_numpy()
    said = np.full(len(sheets), -1)
    for path in work.glob("*/fold-*/card.json"):
        card = json.loads(path.read_text())
        if card["backbone"] == backbone and card["training"]["settings"]["seed"] == 0 and "torn" not in str(path):
            rows = [i for i, digest in enumerate(digests) if digest in card["split"]["files"]["test"]]
            assert (said[rows] == -1).all(), "counted twice"
            result = Predictor.load(path.parent).predict([sheets.image(i) for i in rows])
            said[rows] = [each.pred == "defect" for each in result]
    return truth, said


def test_every_row_counts_each_image_once_by_a_model_that_has_not_seen_it(sheets, work):
    board = build_fold_leaderboard(sheets, work, 2)
    by_name = {entry.name: entry for entry in board.entries}
    assert set(by_name) == {SCRATCH, "squeezenet-reduced, 64 x 64, 1 epochs, from scratch"}
    for name, entry in by_name.items():
        truth, said = recounted(sheets, work, name.partition(",")[0])
        assert (said >= 0).all()
        assert entry.report.n == len(sheets) == 90
        assert entry.report.accuracy == pytest.approx((truth == said).mean())
        assert entry.report.macro_recall == pytest.approx(oracle.balanced_accuracy_score(truth, said))
    best, other = board.entries
    assert other.behind.difference == pytest.approx(other.report.macro_recall - best.report.macro_recall)
    assert other.behind.low <= other.behind.difference <= other.behind.high
    assert "each judged by the one of 2 models" in board.about
    assert not {"Shortcut", "Best map, Dice"} & set(board.cells()[0])


def test_what_was_made_for_other_folds_or_cut_off_is_named(sheets, work):
    absent = build_fold_leaderboard(sheets, work, 2).absent
    assert len(absent) == 2
    assert "fold-2" in absent["torn"]
    assert any("trained on other folds" in reason for reason in absent.values())
    with pytest.raises(DataError, match="expected cross-validations in 3 folds"):
        build_fold_leaderboard(sheets, work, 3)


def test_baselines_learn_in_each_round_what_the_networks_learnt_from(sheets, work):
    board = build_fold_leaderboard(sheets, work, 2, baselines=True)
    by_name = {entry.name: entry for entry in board.entries}
    assert {"majority (baseline)", "pixels (baseline)", "classical-chain (baseline)", SCRATCH} < set(by_name)
    truth = (sheets.table["labels"] != "clear").to_numpy()
    digests = np.array([digest[:16] for digest in sheets.file_hashes()])
    right = 0
    rounds = by_name[SCRATCH].evaluation.table
    assert sorted(rounds["row"]) == list(range(90))
    folder = next(p.parents[1] for p in work.glob("*/fold-1/card.json")
                  if "squeezenet" in p.read_text() and "torn" not in str(p))  # fmt: skip
    for number in (1, 2):
        files = json.loads((folder / f"fold-{number}" / "card.json").read_text())["split"]["files"]
        commonest = truth[np.isin(digests, files["train"])].mean() > 0.5
        right += (truth[np.isin(digests, files["test"])] == commonest).sum()
    assert by_name["majority (baseline)"].report.accuracy == pytest.approx(right / 90)
    assert by_name["majority (baseline)"].baseline


def test_the_command_prints_the_table(folder, work, capsys):
    assert cli.main(["leaderboard", "--data", str(folder), "--binary", "--work", str(work), "--folds", "2",
                     "--markdown"]) == 0  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"| {SCRATCH} |") for line in lines)
    assert any(line.startswith("Not compared: torn, ") for line in lines)
