"""`evaluate` and `thresholds` on the command line: what they print, what they write, what they refuse."""

import json

import pytest
from helpers.small import make_checkpoint

from steel_core.cli.main import main
from steel_core.data.open import open_dataset
from steel_core.evaluation.store import load_or_evaluate
from steel_core.evaluation.thresholds import propose_thresholds
from steel_core.inference.predictor import Predictor
from steel_core.metrics.decisions import Costs


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """60 sheets with a split; one of the files is no picture."""
    folder = tmp_path_factory.mktemp("data") / "sheets"
    assert (
        main(["data", "make", "strip-mill", str(folder), "--n", "60", "--size", "48x48", "--clear-share", "0.5"]) == 0
    )
    (folder / "images" / "sheet-000003.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def model(tmp_path):
    return make_checkpoint(tmp_path / "model", ("clear", "defect"))


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_evaluate_says_where_it_wrote_and_names_a_bad_file_once(capsys, model, sheets, tmp_path):
    written = {"csv": tmp_path / "said.csv", "report": tmp_path / "report.html", "plots": tmp_path / "plots"}
    call = ["evaluate", "--checkpoint", model, "--data", sheets, "--part", "all"]
    options = [word for kind, path in written.items() for word in (f"--{kind}", path)]
    status, out, err = run(capsys, *call, *options)
    assert status == 1
    assert (out + err).count("sheet-000003.png") == 1
    for kind, path in written.items():
        assert f"{kind} in {path}" in out
    assert "Confusion matrix" in written["report"].read_text()
    assert (written["plots"] / "confusion-matrix.png").read_bytes().startswith(b"\x89PNG")
    assert len(written["csv"].read_text().splitlines()) == 60  # the heading, and all but the bad one


def test_predict_names_a_bad_file_once(capsys, model, sheets):
    status, out, err = run(capsys, "predict", "--checkpoint", model, sheets / "images" / "sheet-000003.png")
    assert status == 1
    assert (out + err).count("sheet-000003.png") == 1


def test_unknown_labels_are_counted(capsys, tmp_path, sheets):
    six = make_checkpoint(tmp_path / "six", ("crazing", "scratches"))
    labels = open_dataset(sheets).table["labels"].drop(3)
    _, _, err = run(capsys, "evaluate", "--checkpoint", six, "--data", sheets, "--part", "all")
    foreign = ~labels.isin(["crazing", "scratches"])
    assert f"crazing, scratches: {foreign.sum()} images are shown, but not counted" in err


def test_thresholds_are_what_the_library_chooses(capsys, model, sheets):
    call = ["thresholds", model, "--data", sheets, "--escape-cost", "defect=50", "--refer-cost", 2]
    status, out, _ = run(capsys, *call, "--json")
    content = json.loads(out)
    whole = load_or_evaluate(Predictor.load(model), open_dataset(sheets))
    chosen = propose_thresholds(whole, Costs(escape={"defect": 50.0}, refer=2.0))
    assert status == 0
    assert content["thresholds"] == chosen.thresholds and not content["saved"]
    assert content["chosen_on"] == chosen.chosen_on
    everyone = content["test proposed"][-1]
    assert everyone["label"] == "all" and everyone["cost_low"] <= everyone["cost_per_1000"] <= everyone["cost_high"]
    assert content["costs"] == {"escape": {"defect": 50.0}, "false_call": {"defect": 1.0}, "refer": 2.0}
    assert content["shares"] is None and content["verdict"] == chosen.verdict
    _, out, _ = run(capsys, *call)
    assert f"{everyone['cost_per_1000']:.1f} (" in out and "chosen on" in out
    assert out.startswith("costs of a sheet: escape 50, false call 1, a person's look 2; shares: as in the images\n")
    assert out.endswith(f"\n{chosen.verdict}\n")


def test_thresholds_are_saved_with_who_and_why(capsys, model, sheets):
    call = ["thresholds", model, "--data", sheets, "--escape-cost", 100]
    before = (model / "card.json").read_text()
    status, _, err = run(capsys, *call, "--save")
    assert status == 2 and "--who and --reason" in err
    assert (model / "card.json").read_text() == before
    status, out, _ = run(capsys, *call, "--save", "--who", "Ada", "--reason", "escapes cost more", "--json")
    card = json.loads((model / "card.json").read_text())
    assert status == 0 and card["thresholds"] == json.loads(out)["thresholds"]
    assert (card["history"][-1]["who"], card["history"][-1]["reason"]) == ("Ada", "escapes cost more")


@pytest.mark.parametrize("given", ["rust=3", "much", "defect="])
def test_a_cost_that_is_none_is_refused(capsys, model, sheets, given):
    status, _, err = run(capsys, "thresholds", model, "--data", sheets, "--escape-cost", given)
    assert status == 2 and "--escape-cost" in err


def test_a_shipped_checkpoint_keeps_its_thresholds(capsys, sheets):
    call = ["thresholds", "strip-mill", "--data", sheets, "--save", "--who", "Ada", "--reason", "why not"]
    status, _, err = run(capsys, *call)
    assert status == 2 and "comes with the program" in err
