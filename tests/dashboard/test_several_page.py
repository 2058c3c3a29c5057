"""A checkpoint that names several defect types an image, on the pages: what exists is shown, what does not is said."""

import pytest
from helpers.dash import png, upload, words
from helpers.several import write_severstal
from helpers.small import make_checkpoint

from dashboard import services
from steel_core.data.open import open_dataset
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.store import load_or_evaluate
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import update_card
from steel_core.types import CLEAR, DEFECT, REFER

KINDS = ("defect 1", "defect 2", "defect 3")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One model and one data set, of sheets with several defect types; its evaluation is stored."""
    home = tmp_path_factory.mktemp("several")
    write_severstal(home / "data" / "strips", 40, (64, 64), seed=1)
    index = open_dataset(home / "data" / "strips")
    hashes = [digest[:16] for digest in index.file_hashes()]
    facts = {
        "head": "sigmoid",
        "multi_label": True,
        "temperature": 0.05,
        "thresholds": dict.fromkeys(KINDS, 0.6) | {CLEAR: 0.6},
        "split": {"files": {"val": hashes[:15], "test": hashes[15:]}},
    }
    folder = make_checkpoint(home / "models" / "several", KINDS, **facts)
    figures = evaluate(Predictor.load(folder), index, "test").report.to_json()
    update_card(folder, lambda _: {"metrics": {"test": figures}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEL_CACHE", str(home / "cache"))
        load_or_evaluate(Predictor.load(folder), index)
        yield home


@pytest.fixture
def page(app, home, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(home / "cache"))
    monkeypatch.setenv("STEEL_HOME", str(home / "own"))

    def start(name, **query):
        test = app(name, model="several", data="strips", **query)
        assert not test.exception, test.exception
        assert not test.error, [error.value for error in test.error]
        return test

    return start


@pytest.mark.parametrize(
    ("tab", "says"),
    [
        ("Confusion", "no confusion matrix between them"),
        ("Worst images", "probability"),
        ("Figures", "Class by class"),
        ("Calibration", "Expected calibration error"),
        ("Thresholds", "What these lines do"),
        ("Weak spots", "Weak segments"),
        ("Compare", "only such ones compare"),
        ("Take away", "The same without this page"),
    ],
)
def test_every_tab_of_evaluate_stands(page, tab, says):
    test = page("evaluate", part="all", tab=tab)
    assert says in words(test)


@pytest.mark.parametrize("name", ["inspect", "explain", "explore", "audit", "methods"])
def test_the_other_pages_stand(page, name):
    page(name)


def test_the_card_shows_its_own_figures(page):
    test = page("overview")
    assert [metric.label for metric in test.metric][:2] == ["Average precision", "Escapes"]
    assert "Class by class; found least often: defect" in words(test)


def test_the_verdict_speaks_of_several_classes(page):
    said = words(upload(page("inspect"), ("noise.png", png())))
    assert "From the dashed mark on: named; all below 40.0 %: clear" in said
    sentences = ("a probability of its own", "too much for a clear sheet", "No class is likely")
    assert any(sentence in said for sentence in sentences)


def test_a_cell_shows_the_images_of_its_verdict(page):
    evaluation = services.evaluation.find(services.models.predictor("several"), "strips", "all")
    table = evaluation.table
    for actual, truth in ((CLEAR, table["label"] == CLEAR), (DEFECT, table["label"] != CLEAR)):
        for said in (CLEAR, DEFECT, REFER):
            rows = services.evaluation.in_cell(evaluation, actual, said, outcomes=True)
            assert set(rows["file"]) == set(table["file"][truth & (table["outcome"] == said)])
