"""The audits as a recipe and as a gate: what is asked, of which images, and the exit status."""

import argparse
import json

import cv2
import numpy as np
import pytest
from helpers.small import make_checkpoint

from steel_core.audit.run import audit
from steel_core.audit.settings import AUDITS, AuditSettings, StainSettings
from steel_core.audit.sheets import read_sheets
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.cli import audit as audit_cli
from steel_core.data.open import open_dataset
from steel_core.data.quality.content import encode_content
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluation import map_labels
from steel_core.inference.predictor import Predictor
from steel_core.store.audits import AuditStore

ONE_DOSE = StainSettings(family=False, elsewhere=2)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=4, clear_share=0.5, stained_clear=0.5), 60, out)
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "audited")


def arguments(checkpoint, data, *extra):
    parser = argparse.ArgumentParser()
    audit_cli.add_arguments(parser)
    return parser.parse_args([*extra, "--checkpoint", str(checkpoint), "--data", str(data), "--device", "cpu"])


def silent(*_):
    return None


def test_every_audit_answers_with_the_same_figures_on_top(folder, checkpoint, tmp_path):
    args = arguments(checkpoint, folder, "all", "--limit", "24", "--out", str(tmp_path / "all.json"))
    status, content, text = audit_cli.run(args)
    assert status in (0, 3, 4)
    assert set(content["audits"]) == set(AUDITS)
    gate = {"verdict", "flip_rate", "control_flip_rate", "excess", "interval", "n", "per_class"}
    decisive = content["audits"][content["rests_on"]]
    assert {name: content[name] for name in gate} == {name: decisive[name] for name in gate}
    assert {0: AGAINST, 3: FOR, 4: TOO_FEW}[status] == content["verdict"]
    assert f"All together: {content['verdict']} (" in text
    for report in content["audits"].values():
        assert gate <= set(report)
        assert report["images"] == 24
        assert report["model_hash"] == Predictor.load(checkpoint, "cpu").hash
    assert json.loads((tmp_path / "all.json").read_text()) == json.loads(json.dumps(content, default=str))
    assert "white stain" in text


def test_the_exit_status_is_that_of_the_verdict(folder, checkpoint):
    status, content, _ = audit_cli.run(arguments(checkpoint, folder, "edges", "--limit", "8"))
    assert (status, content["verdict"]) == (4, TOO_FEW)
    with pytest.raises(UsageError, match="max-excess-flip"):
        audit_cli.run(arguments(checkpoint, folder, "edges", "--max-excess-flip", "2"))


def test_a_run_is_kept_in_the_history_unless_asked_not_to(folder, checkpoint, tmp_path):
    few = (checkpoint, folder, "edges", "--limit", "8")
    audit_cli.run(arguments(*few, "--no-store"))
    assert AuditStore().history() == ([], [])
    _, content, text = audit_cli.run(arguments(*few))
    (run,), problems = AuditStore().history()
    assert not problems and run.name in text and run.data == "sheets"
    assert run.reports == (json.loads(json.dumps(content, default=str)),)
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv("STEEL_HOME", str(tmp_path / "file"))
        status, _, text = audit_cli.run(arguments(*few))
    assert status == 4 and "Not kept in the history" in text


def test_a_real_stain_is_cut_out_of_an_image_and_named_in_the_report(folder, checkpoint):
    image = next((folder / "stains").glob("*.png")).name
    marked = ("--stain-from", str(folder / "images" / image), "--box", "0,0,64,64")
    status, content, _ = audit_cli.run(arguments(checkpoint, folder, "white-stain", "--limit", "8", *marked))
    assert status in (0, 3, 4)
    assert content["settings"]["stain"] == "cut out of a picture"
    assert content["settings"]["cut_from"].startswith(image)
    assert content["settings"]["cut_from"].endswith("box 0,0,64,64")
    assert content["settings"]["family"] is False and len(content["detail"]["doses"]) == 1
    for wrong, said in (
        (marked[:2], "--box"),
        (marked[2:], "--stain-from"),
        ((*marked[:3], "1,2"), "whole numbers"),
        ((*marked[:3], "0,0,900,5"), "inside the picture"),
    ):
        with pytest.raises(UsageError, match=said):
            audit_cli.run(arguments(checkpoint, folder, "white-stain", *wrong))


@pytest.mark.parametrize("flags", [["--one-dose"], ["--area", "0.08", "--brightness", "0.9"]])
def test_one_stain_is_asked_for_by_itself(folder, checkpoint, flags):
    few = arguments(checkpoint, folder, "white-stain", "--limit", "8", *flags)
    _, content, _ = audit_cli.run(few)
    (row,) = content["detail"]["doses"]
    assert row["area"] == (0.08 if "--area" in flags else 0.05) and row["proved"]


def test_drawn_stains_have_the_shape_the_texture_and_the_number_asked_for(folder, checkpoint):
    few = ("white-stain", "--limit", "8", "--one-dose", "--no-store")
    asked = ("--shape", "streak", "--texture", "flat", "--number", "3")
    _, content, _ = audit_cli.run(arguments(checkpoint, folder, *few, *asked))
    assert {name: content["settings"][name] for name in ("shape", "texture", "number")} == {
        "shape": "streak",
        "texture": "flat",
        "number": 3,
    }
    for wrong, said in (("--shape", "square"), ("--texture", "wool"), ("--number", "21")):
        with pytest.raises(UsageError, match=said):
            audit_cli.run(arguments(checkpoint, folder, *few, wrong, said))


def test_images_are_drawn_evenly_and_what_was_trained_on_is_left_out(folder, tmp_path):
    index = open_dataset(folder)
    seen = [digest[:16] for digest in index.file_hashes()[:30]]
    made = make_checkpoint(tmp_path / "trained", split={"files": {"train": seen}})
    report = audit(Predictor.load(made, "cpu"), index, AuditSettings(kinds=("edges",), limit=100))[0]
    assert report.images == 30
    assert "30 images served to train or tune this checkpoint and were not looked at." in report.limits
    few = audit(Predictor.load(made, "cpu"), index, AuditSettings(kinds=("edges",), limit=10))[0]
    assert {name: effect.n for name, effect in few.findings[0].per_class.items()}.keys() <= {"clear", "defect"}
    assert few.images == 10


def test_altered_copies_and_the_same_steel_are_not_held_out(folder, tmp_path):
    index = open_dataset(folder)
    learnt = [encode_content(index.image(i).grey()) for i in range(20)]
    hashes = index.file_hashes()
    split = {"files": {"train": [hashes[59][:16]]}, "contents": {"train": learnt}}
    predictor = Predictor.load(make_checkpoint(tmp_path / "coded", split=split), "cpu")
    copies = tmp_path / "copies"
    for i in range(60):  # every file but the last is another one
        target = copies / index[i].label / f"{i:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        smaller = cv2.resize(index.image(i).pixels, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        target.write_bytes(index.path(i).read_bytes() if i == 59 else cv2.imencode(".png", smaller)[1].tobytes())
    again = map_labels(open_dataset(copies), predictor.classes)
    numbers = again.table["path"].str.extract(r"(\d+)\.png")[0].astype(int).to_numpy()
    grouped = again.with_groups(["coil" if k in (58, 59) else f"piece {k}" for k in numbers])
    sheets = read_sheets(predictor, grouped, limit=100)
    taken = set(numbers[sheets.rows].tolist())
    assert len(taken & set(range(20))) <= 1
    assert not taken & {58, 59}
    assert len(taken) >= 37
    assert any("show the same steel" in one for one in sheets.remarks)
    assert not any("keeps hashes of files alone" in one for one in sheets.remarks)


def test_a_card_without_codes_says_that_copies_count_as_unseen(folder, tmp_path):
    seen = [digest[:16] for digest in open_dataset(folder).file_hashes()[:30]]
    predictor = Predictor.load(make_checkpoint(tmp_path / "old", split={"files": {"train": seen}}), "cpu")
    assert any("keeps hashes of files alone" in one for one in read_sheets(predictor, open_dataset(folder)).remarks)


def test_a_damaged_file_stops_no_audit_and_is_named(checkpoint, tmp_path):
    write_sheets(StripMill(size=(64, 64), seed=4), 12, tmp_path / "sheets")
    (tmp_path / "sheets" / "images" / "sheet-000003.png").write_bytes(b"no picture")
    index, settings = open_dataset(tmp_path / "sheets"), AuditSettings(kinds=("edges",), part="all")
    report = audit(Predictor.load(checkpoint, "cpu"), index, settings)[0]
    assert report.images == 11
    assert any(one.startswith("Could not be read: 1 (sheet-000003.png") for one in report.limits)


def test_wrong_calls_are_refused(folder, checkpoint, tmp_path):
    for wrong in ({"kinds": ("stains",)}, {"part": "most"}, {"limit": 0}, {"tolerated": 1.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            AuditSettings(**wrong)
    other = Predictor.load(make_checkpoint(tmp_path / "other", classes=("rust", "soot")), "cpu")
    with pytest.raises(DataError, match="unknown"):
        audit(other, open_dataset(folder))


@pytest.mark.real_data
def test_boxes_keep_stains_off_and_a_model_without_clear_is_asked_of_every_class(real_data):
    index = open_dataset(real_data / "neu-cls")
    rows = np.random.default_rng(0).permutation(len(index))[:8]
    predictor = Predictor.load("neu-six-class", "cpu")
    report = audit(
        predictor, index.select(rows=rows), AuditSettings(kinds=("white-stain",), part="all", stain=ONE_DOSE)
    )[0]
    assert {f.name for f in report.findings} == {f"towards {name}" for name in predictor.classes}
    assert report.verdict == TOO_FEW
