"""The leaderboard against scikit-learn on images counted by hand, and what must not be counted."""

import csv
import io
import json

import numpy as np
import pytest
from helpers.small import make_checkpoint
from sklearn import metrics as oracle

from steel_core.audit.statistics import FOR
from steel_core.cli import main as cli
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.files import new_run_name
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.checkpoints import build_leaderboard
from steel_core.leaderboard.table import ESTIMATES
from steel_core.models.checkpoint import update_card
from steel_core.store.audits import AuditStore

QUALITY = {
    "data": "strip-mill", "evidence": "masks", "images": 40, "date": "2026-01-02", "code_version": "0",
    "methods": {
        "grad-cam": {"dice": {"value": 0.3, "low": 0.2, "high": 0.4, "lift": 1.5, "n": 40}},
        "shap": {"dice": {"value": 0.35, "low": 0.1, "high": 0.5, "lift": None, "n": 9}},
        "sobel": {"dice": {"value": 0.9, "low": 0.8, "high": 1.0, "lift": 9.0, "n": 40}},
    },
    "quantiles": {}, "agreement": [], "seconds": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=3, clear_share=0.4), 90, folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path, cache, monkeypatch):
    """Three binary checkpoints of one's own, and no others."""
    monkeypatch.setenv("STEEL_CACHE", str(cache))
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("steel_core.models.checkpoint.ASSETS", tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("ann", "bob", "cid")):
        make_checkpoint(tmp_path / "models" / name, seed=seed)
    return tmp_path / "models"


def learns(folder, index, rows, part="train"):
    """The card says that it has learnt from these images."""
    files = {part: [index.image(int(row)).sha256[:16] for row in rows]}
    update_card(folder, lambda _: {"split": {"files": files}})


def said(folder, index, rows):
    """Probability of "defect", past the recipe."""
    result = Predictor.load(folder).predict([index.image(int(row)) for row in rows])
    return np.array([prediction.probs["defect"] for prediction in result])


def rows_of(index, split):
    return np.flatnonzero((index.table["split"] == split).to_numpy())


def test_each_row_is_what_scikit_learn_finds_on_the_test_split(sheets, place):
    index = open_dataset(sheets)
    board = build_leaderboard(index)
    rows = rows_of(index, "test")
    truth = (index.table["labels"] != "clear").to_numpy()[rows].astype(int)
    assert {entry.name for entry in board.entries} == {"ann", "bob", "cid"}
    assert board.n == len(rows)
    recalls = {}
    for entry in board.entries:
        scores = said(place / entry.name, index, rows)
        pred = (scores > 0.5).astype(int)
        recalls[entry.name] = oracle.balanced_accuracy_score(truth, pred)
        assert entry.report.accuracy == pytest.approx(oracle.accuracy_score(truth, pred))
        assert entry.report.macro_recall == pytest.approx(recalls[entry.name])
        assert entry.report.macro_f1 == pytest.approx(oracle.f1_score(truth, pred, average="macro"))
        assert entry.report.auc == pytest.approx(oracle.roc_auc_score(truth, scores))
        assert entry.size == (place / entry.name / "weights.safetensors").stat().st_size
        for figure in ESTIMATES:
            low, high = entry.report.intervals[figure]
            assert low <= getattr(entry.report, figure) <= high
    best = board.entries[0]
    assert recalls[best.name] == max(recalls.values())
    assert best.behind is None
    for entry in board.entries[1:]:
        assert entry.behind.difference == pytest.approx(recalls[entry.name] - recalls[best.name])
        assert entry.behind.low <= entry.behind.difference <= entry.behind.high
    assert max(entry.speed for entry in board.entries) == 1.0
    assert all(0 < entry.speed <= 1 for entry in board.entries)


def test_what_one_has_learnt_from_is_counted_for_nobody(sheets, place):
    index = open_dataset(sheets)
    test, val = rows_of(index, "test"), rows_of(index, "val")
    learns(place / "ann", index, [*test[:2], *val])
    board = build_leaderboard(index)
    counted = {entry.name: set(entry.evaluation.table["row"]) for entry in board.entries}
    assert counted == {name: set(test[2:]) for name in ("ann", "bob", "cid")}
    assert any("2 images served to train or tune ann" in remark for remark in board.remarks)
    assert any(remark.startswith("bob, cid does not tell what it learnt from") for remark in board.remarks)
    held_out = build_leaderboard(index, part="held-out")
    assert held_out.n == len(index) - len(val) - 2


def test_who_knows_most_of_the_images_is_left_out_and_not_the_images(sheets, place):
    index = open_dataset(sheets)
    test = rows_of(index, "test")
    learns(place / "ann", index, test[1:], "val")
    board = build_leaderboard(index)
    assert board.n == len(test)
    assert board.absent == {"ann": f"{len(test) - 1} of the {len(test)} images served to train or tune it"}
    learns(place / "ann", index, range(len(index) - 4))  # what is held out of its training is what it has not learnt
    held_out = build_leaderboard(index, part="held-out")
    assert held_out.absent == {}
    assert held_out.n == 4


def test_what_cannot_be_compared_is_listed_with_the_reason(sheets, place):
    make_checkpoint(place / "six", classes=("crazing", "inclusion"))
    make_checkpoint(place / "torn")
    (place / "torn" / "weights.safetensors").write_bytes(b"no weights")
    board = build_leaderboard(open_dataset(sheets))
    assert {entry.name for entry in board.entries} == {"ann", "bob", "cid"}
    assert "no words for clear" in board.absent["six"]
    assert "damaged" in board.absent["torn"]
    assert str(place) not in json.dumps(board.to_json())
    with pytest.raises(DataError, match="six: it has no words for clear"):
        build_leaderboard(open_dataset(sheets), ["six"])
    with pytest.raises(UsageError, match="expected one of test, held-out"):
        build_leaderboard(open_dataset(sheets), part="train")


def test_those_who_know_the_labels_come_before_those_who_know_two(sheets, place):
    classes = tuple(open_dataset(sheets).classes)
    make_checkpoint(place / "all", classes=classes)
    board = build_leaderboard(open_dataset(sheets))
    assert [entry.name for entry in board.entries] == ["all"]
    assert set(board.absent) == {"ann", "bob", "cid"}
    assert "tells apart clear, defect" in board.absent["ann"]
    assert {entry.name for entry in build_leaderboard(open_dataset(sheets).binary()).entries} == {"ann", "bob", "cid"}


def test_baselines_learn_from_the_train_split_and_are_counted_on_the_same_images(sheets, place, monkeypatch):
    index = open_dataset(sheets)
    board = build_leaderboard(index, ["ann"], baselines=True)
    rows = {entry.name: list(entry.evaluation.table["row"]) for entry in board.entries}
    assert set(rows) == {"ann", "majority (baseline)", "pixels (baseline)", "classical-chain (baseline)"}
    assert set(map(tuple, rows.values())) == {tuple(rows_of(index, "test"))}
    binary = index.binary().table
    commonest = binary["labels"][binary["split"] == "train"].mode()[0]
    by_name = {entry.name: entry for entry in board.entries}
    majority = by_name["majority (baseline)"]
    assert majority.baseline and majority.size is None and majority.shortcut is None
    assert majority.report.accuracy == pytest.approx((binary["labels"][binary["split"] == "test"] == commonest).mean())
    assert majority.report.macro_recall == pytest.approx(0.5)
    assert by_name["ann"].speed == 1.0  # the fastest checkpoint, however fast a baseline is

    monkeypatch.setattr("steel_core.evaluation.store.evaluate", lambda *_, **__: pytest.fail("predicted again"))
    monkeypatch.setattr("steel_core.leaderboard.baselines._evaluate_baseline", lambda *_: pytest.fail("judged again"))
    again = build_leaderboard(index, ["ann"], baselines=True)
    for one, other in zip(board.entries, again.entries, strict=True):
        assert one.report == other.report


def test_maps_and_shortcut_come_from_card_and_audits(sheets, place):
    update_card(place / "ann", lambda _: {"quality": {"strip-mill": QUALITY}})
    update_card(place / "bob", lambda _: {"training": {"cure": {"audit": {"after": {"verdict": "not enough data"}}}}})
    report = {"audit": "white-stain", "verdict": FOR, "findings": [], "model_hash": Predictor.load(place / "ann").hash}
    name = new_run_name()
    AuditStore().add(name, "sheets", 1.0, [report])
    ann, bob, cid = (build_leaderboard(open_dataset(sheets), [name]).entries[0] for name in ("ann", "bob", "cid"))
    assert (ann.explanation.method, ann.explanation.value, ann.explanation.lift) == ("shap", 0.35, None)  # no control
    assert (ann.shortcut.verdict, ann.shortcut.asked, ann.shortcut.source) == (FOR, ("white-stain",), f"audit {name}")
    assert (bob.shortcut.verdict, bob.shortcut.source) == ("not enough data", "card")
    assert bob.explanation is None
    assert cid.shortcut is None


def test_the_ledger_of_a_cure_tells_of_the_model_that_was_cured_too(sheets, place):
    ann = Predictor.load(place / "ann").hash
    ledger = {"of_hash": ann, "audit": {"before": {"verdict": FOR}, "after": {"verdict": "evidence against"}}}
    update_card(place / "bob", lambda _: {"training": {"cure": ledger}})
    result = {
        entry.name: entry.shortcut for entry in build_leaderboard(open_dataset(sheets), ["ann", "bob", "cid"]).entries
    }
    assert (result["ann"].verdict, result["ann"].source) == (FOR, "card")
    assert result["bob"].verdict == "evidence against" and result["cid"] is None


def test_the_command_prints_what_documents_and_spreadsheets_need(sheets, place, capsys):
    make_checkpoint(place / "six", classes=("crazing", "inclusion"))
    command = ["leaderboard", "--data", str(sheets), "--models", "ann", "bob", "six"]

    def printed(*more):
        assert cli.main([*command, *more]) == 0
        return capsys.readouterr().out

    lines = printed("--markdown").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0][:3] == ["Model", "Accuracy", "Macro recall"]
    assert {row[0] for row in cells[2:]} == {"ann", "bob"}
    assert any(line.startswith("Not compared: six, it has no words for clear") for line in lines)
    answer = json.loads(printed("--json"))
    assert answer["rows"][0]["name"] == answer["best"] == cells[2][0]
    assert f"{answer['rows'][0]['macro_recall']:.3f}" in cells[2][2]
    rows = list(csv.DictReader(io.StringIO(printed("--csv"))))
    assert [float(row["macro_recall"]) for row in rows] == pytest.approx(
        [row["macro_recall"] for row in answer["rows"]]
    )
    assert {"macro_recall_low", "macro_recall_high", "n", "speed", "shortcut"} <= rows[0].keys()
    assert "not compared: six" in printed()
    assert cli.main([*command, "nonsense"]) == 1, (
        "what was meant is not known, and the others are compared all the same"
    )
