"""Several defect types in one image, end to end: training, figures, thresholds, predictions, words."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.several import write_severstal
from sklearn import metrics as oracle

from steel_core.audit.run import audit
from steel_core.cli.main import main
from steel_core.data.images.read import read_image
from steel_core.data.open import open_dataset
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.compare import compare
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.store import load_evaluation, save_evaluation
from steel_core.evaluation.thresholds import propose_thresholds, save_thresholds
from steel_core.inference.predictor import Predictor
from steel_core.metrics.decisions import Costs
from steel_core.models.checkpoint import load_checkpoint
from steel_core.reports.evaluation_report import render_evaluation_html
from steel_core.reports.image_report import describe_verdict
from steel_core.training.cross_validate import cross_validate
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from steel_core.types import CLEAR, DEFECT, REFER

CONFIG = TrainingSettings(head="sigmoid", epochs=4, learning_rate=2e-3, batch_size=16, average=5, seed=1)
KINDS = ("defect 1", "defect 2", "defect 3")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """130 sheets of 48 x 48 in Severstal's format, each a strip of its own, and the truth that was drawn."""
    root = tmp_path_factory.mktemp("data") / "severstal"
    truth = write_severstal(root, 130, (48, 48), seed=2)
    index = open_dataset(root)
    return index.with_groups([f"strip {i}" for i in range(len(index))]), truth


@pytest.fixture(scope="module")
def trained(sheets, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steel_core.training.map_scales.IMAGES", 2)
        out = tmp_path_factory.mktemp("trained") / "several"
        return out, train(sheets[0], out, CONFIG, report=quiet)


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.load(trained[0], "cpu")


@pytest.fixture(scope="module")
def whole(predictor, sheets):
    return evaluate(predictor, sheets[0], "all")


def test_the_classes_are_the_defect_types(trained):
    _, card = trained
    assert card.classes == KINDS
    assert card.multi_label
    assert load_checkpoint(trained[0]).card.multi_label
    assert card.thresholds.keys() == {*KINDS, CLEAR}
    assert card.background == "20 clear images of the training split"
    assert {"val_auc", "val_loss"} <= card.training.history[0].keys()


def test_what_was_drawn_is_what_is_counted(sheets, whole):
    truth = sheets[1]
    np.testing.assert_array_equal(whole.targets, truth)
    assert len(whole.labelled) == len(truth)
    assert whole.report.estimates["mean_average_precision"].value == pytest.approx(
        oracle.average_precision_score(truth, whole.probs), abs=1e-12
    )
    assert whole.table["loss"].to_numpy() == pytest.approx(
        [sum(oracle.log_loss([t], [p], labels=[0, 1]) for t, p in zip(*row, strict=True))
         for row in zip(truth, whole.probs, strict=True)], rel=1e-6
    )  # fmt: skip
    named = [{*cell.split("|")} - {""} for cell in whole.table["named"]]
    wrong = [mine != {*np.array(KINDS)[row]} for mine, row in zip(named, truth, strict=True)]
    assert whole.wrong.tolist() == wrong
    assert whole.report.estimates["exact_match"].value == pytest.approx(1 - np.mean(wrong))
    cells = whole.confusion().set_index(["actual", "predicted"])["n"]
    defective, said = truth.any(axis=1), whole.table["outcome"].to_numpy()
    assert cells[DEFECT, CLEAR] == (defective & (said == CLEAR)).sum()
    assert cells[CLEAR, REFER] == (~defective & (said == REFER)).sum()
    assert cells.sum() == len(truth)


def test_it_learns_more_than_chance(whole):
    assert whole.select("train").report.estimates["auc"].low > 0.5


def test_the_card_counts_the_test_part(trained, whole):
    figures = trained[1].metrics["test"]
    assert figures["multi_label"]
    assert figures["n"] == trained[1].split.counts["test"]
    for name, figure in whole.select("test").report.estimates.items():
        assert figures[name] == pytest.approx(figure.value, abs=0.05), "half precision may swap neighbours in a rank"
    assert json.loads(json.dumps(figures, allow_nan=False))["per_class"].keys() == {*KINDS}


def test_predictions_name_every_class_that_passes(predictor, sheets, whole):
    index, _ = sheets
    for row in range(12):
        said = predictor.predict([index.image(row)])[0]
        lines = predictor.card.thresholds
        passed = [name for name in KINDS if said.probs[name] >= lines[name]]
        assert said.defects == tuple(sorted(passed, key=lambda name: -said.probs[name]))
        clear = 1 - max(said.probs.values()) >= lines[CLEAR]
        assert said.outcome == (DEFECT if passed else CLEAR if clear else REFER) == whole.table["outcome"].iloc[row]
        assert said.pred == max(KINDS, key=said.probs.get)
        assert not predictor.is_doubtful(said)
        for name in passed if passed else [said.pred]:
            assert name in describe_verdict(said)


def test_stored_and_under_other_thresholds(tmp_path, whole):
    again = load_evaluation(save_evaluation(whole, tmp_path))
    assert again.multi_label
    assert again.report == whole.report
    none = whole.under(thresholds=dict.fromkeys(KINDS, 1.0) | {CLEAR: 0.0})
    assert set(none.table["outcome"]) == {CLEAR}
    assert set(none.table["named"]) == {""}
    assert none.report.estimates["escape"].value == 1.0


def test_thresholds_by_cost_are_those_of_the_verdict(trained, whole, tmp_path):
    choice = propose_thresholds(whole, Costs(escape={DEFECT: 100.0}, refer=0.5))
    assert choice.thresholds.keys() == {*KINDS, CLEAR}
    assert len({choice.thresholds[name] for name in KINDS}) == 1
    after = choice.after.set_index("label")
    assert list(after.index) == [CLEAR, DEFECT, "all"]
    test = whole.select("test").under(thresholds=choice.thresholds)
    assert after.loc["all", "escape"] == test.report.estimates["escape"].value
    defective = whole.table["label"] != CLEAR
    without = replace(whole, table=whole.table[defective].reset_index(drop=True))
    assert propose_thresholds(without, Costs()).thresholds[CLEAR] == 1.0, "of clear sheets nothing is known"
    with pytest.raises(UsageError, match="expected one for each of defect 1, defect 2, defect 3, clear"):
        save_thresholds(trained[0], dict.fromkeys(KINDS, 0.5), "A. Person", "tried")


def test_the_report_says_what_there_is_and_what_not(predictor, sheets, whole):
    page = render_evaluation_html(whole, predictor, sheets[0])
    assert "no confusion matrix between them" in page
    assert "mean average precision" in page
    assert "there and named" in page


def test_two_of_them_compare(whole):
    same = compare(whole, whole)
    assert same.estimates["figure"].tolist() == ["mean_average_precision", "auc", "ece"]
    assert (same.estimates["difference"] == 0).all()
    assert same.disagreements.empty
    assert "cannot tell" in same.verdict


def test_what_needs_one_label_says_so(sheets, predictor, tmp_path):
    index, _ = sheets
    with pytest.raises(DataError, match=r"--head sigmoid.*--binary"):
        train(index, tmp_path / "softmax", TrainingSettings(epochs=1), report=quiet)
    with pytest.raises(UsageError, match="names one class an image"):
        audit(predictor, index)


def test_the_command_line_speaks_of_several_classes(trained, sheets, capsys, tmp_path):
    out, _ = trained
    images = [str(sheets[0][i].path) for i in range(6)]
    assert main(["predict", *images, "--checkpoint", str(out), "--device", "cpu", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert all(result["outcome"] in (DEFECT, CLEAR, REFER) and "defects" in result for result in results)
    assert main(["evaluate", "--checkpoint", str(out), "--data", str(sheets[0].root), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "mean average precision" in shown
    assert "AP defect 3" in shown
    assert "clear ones" in shown
    maps = tmp_path / "maps"
    call = ["explain", images[0], "--checkpoint", str(out), "--methods", "grad-cam", "--out", str(maps), "--json"]
    assert main([*call, "--device", "cpu"]) == 0
    prediction = json.loads(capsys.readouterr().out)["results"][0]
    said = Predictor.load(out, "cpu").predict([read_image(sheets[0][0].path)])[0]
    assert [found["target"] for found in prediction["maps"].values()] == [*(said.defects or [said.pred])]


def test_the_binary_view_trains_with_softmax(sheets, tmp_path):
    index, truth = sheets
    card = train(
        index.binary(),
        tmp_path / "binary",
        TrainingSettings(epochs=1, learning_rate=1e-3),
        report=quiet,
        finish=False,
    )
    assert card.classes == (CLEAR, DEFECT)
    assert not card.multi_label
    found = evaluate(Predictor.load(tmp_path / "binary", "cpu"), index, "all")
    assert found.labels.tolist() == truth.any(axis=1).astype(int).tolist()


def test_cross_validation_counts_every_image_once(sheets, tmp_path):
    found = cross_validate(sheets[0], tmp_path, TrainingSettings(head="sigmoid", epochs=1, learning_rate=1e-3), k=2,
                           report=quiet).to_json()  # fmt: skip
    assert found["n"] == 130
    assert found["multi_label"]
    assert found["tables"]["defect 1"]["found"] + found["tables"]["defect 1"]["missed"] == sheets[1][:, 0].sum()
