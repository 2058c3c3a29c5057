"""The study's recipe on strips drawn in the study's format: what is counted, and what is left out."""

import cv2
import numpy as np
import pytest
from sklearn import metrics as oracle

from benchmarks import reference_study
from steel_core.data.strip_mill import StripMill
from steel_core.leaderboard.checkpoints import build_leaderboard

KINDS = ("clear", "scratches", "patches", "inclusion")


def kaggle_runs(mask):
    """Run lengths down the columns, counted from 1."""
    padded = np.concatenate([[0], mask.T.ravel(), [0]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(padded) == 1) + 1, np.flatnonzero(np.diff(padded) == -1) + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    """56 strips of 64 x 400 with four classes, two of them with two types."""
    root = tmp_path_factory.mktemp("severstal")
    (root / "train_images").mkdir()
    mill = StripMill(size=(64, 400), seed=2)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(56):
        kind = i % 4
        sheet = mill.render(i, KINDS[kind])
        assert cv2.imwrite(str(root / "train_images" / f"{i}.png"), sheet.pixels)
        if kind:
            rows.append(f"{i}.png,{kind},{kaggle_runs(sheet.mask > 0)}")
        if i in (1, 2):
            rows.append(f"{i}.png,3,1 5")
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


def test_both_tasks_are_trained_and_printed_beside_the_study(strips, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    given = reference_study.CONFIG.replace(learning_rate=1e-3)  # from random weights it would be searched for
    monkeypatch.setattr(reference_study, "CONFIG", given)
    boards = []
    monkeypatch.setattr(
        reference_study, "build_leaderboard", lambda *a, **k: boards.append(build_leaderboard(*a, **k)) or boards[-1]
    )
    call = [str(strips), "--out", str(tmp_path / "out"), "--init", "random", "--epochs", "1"]
    assert reference_study.main(call) == 0
    printed = capsys.readouterr().out
    binary, five = boards
    assert set(binary.classes) == {"clear", "defect"} and len(five.classes) == 4
    assert len(binary.index) == 56 and len(five.index) == 54, "two strips have two types"
    for board, studied in ((binary, "0.941"), (five, "0.921")):
        (network,) = (entry for entry in board.entries if not entry.baseline)
        assert network.evaluation.table["split"].eq("test").all()
        assert f"{network.report.accuracy:.3f}" in printed and studied in printed
        assert f"n = {network.report.n}" in printed
    said = next(entry for entry in five.entries if not entry.baseline).evaluation
    weighted = oracle.f1_score(said.labels, said.probs.argmax(axis=1), average="weighted", zero_division=0)
    assert "weighted F1" in printed and f"{weighted:.3f} (" in printed
    monkeypatch.setattr(reference_study, "train", lambda *_, **__: pytest.fail("trained again"))
    assert reference_study.main(call) == 0
    assert capsys.readouterr().out == printed


def test_what_cannot_be_done_is_a_sentence(tmp_path, capsys):
    assert reference_study.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
