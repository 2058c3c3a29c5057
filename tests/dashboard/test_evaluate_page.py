"""Evaluate: what is shown equals what scikit-learn finds on the page's own data, and every figure leads to images."""

import dataclasses
import json
import shutil
import threading
import time

import numpy as np
import pytest
from helpers.dash import words
from helpers.small import make_checkpoint
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_score, recall_score, roc_auc_score

from dashboard import services
from steel_core.data.open import open_dataset
from steel_core.evaluation.ood import install_gate
from steel_core.evaluation.store import load_or_evaluate
from steel_core.inference.predictor import Predictor
from steel_core.models.ood import fit_gate
from steel_core.store.triage import TriageStore
from steel_core.types import UNFAMILIAR, Prediction


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def places(cache, tmp_path, monkeypatch):
    """Evaluations are kept for the module, findings for one test."""
    monkeypatch.setenv("STEEL_CACHE", str(cache))
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "home"))


@pytest.fixture
def evaluated(home, places):
    """The evaluation of a model on the sheets, stored."""

    def make(name, folder=None):
        return load_or_evaluate(
            Predictor.load(home / "models" / name), open_dataset(folder or home / "data" / "sheets")
        )

    return make


@pytest.fixture
def own_data(home, places):
    """A data set made of some of the sheets with labels of one's own: `own_data("odd", ["clear", ""])`."""
    made = []

    def make(name, labels):
        folder = home / "data" / name
        (folder / "images").mkdir(parents=True)
        made.append(folder)
        about = {"name": name, "title": name, "licence": "none", "citation": "", "redistributable": True}
        rows = ["path,labels,split"]
        for i, label in enumerate(labels):
            shutil.copy(home / "data" / "sheets" / "images" / f"sheet-{10 + i:06d}.png", folder / "images")
            rows.append(f"images/sheet-{10 + i:06d}.png,{label},")
        (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
        (folder / "dataset.json").write_text(json.dumps(about))
        services.datasets.datasets_in.clear()
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder)
    services.datasets.datasets_in.clear()


def files(test):
    """The images on the page, in order."""
    return [link.proto.label.replace("\\", "") for link in test.get("page_link") if ".png" in link.proto.label]


def table(test, column):
    """The first table on the page that has this column."""
    return next(frame.value for frame in test.dataframe if column in frame.value)


def test_an_evaluation_is_offered_made_and_from_then_on_there(app, places, monkeypatch):
    test = app("evaluate", model="c-bare", data="sheets")
    button = next(b for b in test.button if b.label.startswith("Compute, about"))
    assert "has not looked at sheets yet" in words(test) and not test.exception
    button.click().run()
    until = time.monotonic() + 100
    while not test.metric:
        assert time.monotonic() < until, words(test)
        time.sleep(0.2)
        test.run()
    said = words(test)
    assert "59 images" in said  # one of 60 cannot be read
    assert "sheet\\-000003\\.png" in said and not test.error

    def fail(*_, **__):
        raise AssertionError("predicted again")

    for cached in (services.evaluation._find, services.evaluation.select_part):
        cached.clear()
    monkeypatch.setattr("steel_core.evaluation.store.evaluate", fail)
    assert "59 images" in words(app("evaluate", model="c-bare", data="sheets"))


def test_an_evaluation_can_be_cancelled(app, home, places, monkeypatch):
    shutil.copytree(home / "models" / "c-bare", home / "models" / "z-slow")
    card = json.loads((home / "models" / "z-slow" / "card.json").read_text())
    (home / "models" / "z-slow" / "card.json").write_text(json.dumps(card | {"title": "Slow"}))
    go_on, stopped = threading.Event(), []

    def slow(model, index, folder, progress):
        try:
            for done in range(1, 100):
                progress("looking at images", done, 100)
                go_on.wait(0.05)
        except services.jobs.Stopped:
            stopped.append(done)
            raise

    monkeypatch.setattr(services.evaluation, "load_or_evaluate", slow)
    monkeypatch.setattr(services.evaluation, "find_evaluation", lambda *_, **__: None)
    try:
        test = app("evaluate", model="z-slow", data="sheets")
        next(b for b in test.button if b.label.startswith("Compute")).click().run()
        next(b for b in test.button if b.label == "Stop").click().run()
        until = time.monotonic() + 20
        while not stopped:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert any(b.label.startswith("Compute") for b in app("evaluate", model="z-slow", data="sheets").button)
    finally:
        shutil.rmtree(home / "models" / "z-slow")


def test_figures_equal_scikit_learn_on_the_pages_own_data(app, evaluated):
    evaluation = evaluated("b-clear").select("all")
    truth, pred = evaluation.table["label"], evaluation.table["pred"]
    test = app("evaluate", model="b-clear", data="sheets", part="all")
    assert not test.exception and not test.error
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown["Accuracy"] == f"{100 * accuracy_score(truth, pred):.1f} %"
    assert shown["Recall, mean of classes"] == f"{100 * recall_score(truth, pred, average='macro'):.1f} %"
    assert shown["AUC"] == f"{roc_auc_score(truth == 'defect', evaluation.table['p.defect']):.3f}"
    cells = table(test, "Share of row")
    expected = confusion_matrix(truth, pred, labels=["clear", "defect"])
    assert cells["Images"].to_numpy().reshape(2, 2).tolist() == expected.tolist()
    np.testing.assert_allclose(cells["Share of row"], (expected / expected.sum(axis=1, keepdims=True)).ravel())
    test = app("evaluate", model="b-clear", data="sheets", part="all", tab="Figures")
    by_class = table(test, "Precision").set_index("Class")
    recall = recall_score(truth, pred, pos_label="defect")
    assert by_class.loc["defect", "Recall"].startswith(f"{recall:.3f} (")
    precision = precision_score(truth, pred, pos_label="defect")
    assert by_class.loc["defect", "Precision"].startswith(f"{precision:.3f} (")
    assert not test.exception and not test.error


def test_a_cell_shows_exactly_its_images_by_falling_loss(app, evaluated):
    evaluation = evaluated("b-clear").select("all").table
    pair = evaluation.groupby(["label", "pred"]).size().idxmin()
    mine = evaluation[(evaluation["label"] == pair[0]) & (evaluation["pred"] == pair[1])]
    expected = mine.sort_values("loss", ascending=False, kind="stable")["file"].str.split("/").str[-1]
    test = app("evaluate", model="b-clear", data="sheets", part="all", actual=pair[0], predicted=pair[1])
    assert files(test) == list(expected)[:12] and not test.error
    assert f"Actual {pair[0]}, predicted {pair[1]}: {len(mine)} images" in words(test)
    loss = log_loss([mine.loc[expected.index[0], "label"]], [mine.loc[expected.index[0], ["p.clear", "p.defect"]]],
                    labels=["clear", "defect"])  # fmt: skip
    assert f"loss {loss:.2f}" in words(test)


def test_refer_counts_as_an_answer_where_verdicts_are_counted(app, evaluated):
    evaluation = evaluated("b-clear").select("all").table  # its thresholds are 1: nearly everything is referred
    test = app("evaluate", model="b-clear", data="sheets", part="all", **{"verdicts-counted": "true"})
    cells = table(test, "Share of row").set_index(["Actual", "Predicted"])["Images"]
    for label in ("clear", "defect"):
        assert cells[label, "refer"] == ((evaluation["label"] == label) & (evaluation["outcome"] == "refer")).sum()
    assert cells.sum() == len(evaluation)


@pytest.mark.parametrize(
    "tab", ["Confusion", "Worst images", "Figures", "Calibration", "Thresholds", "Weak spots", "Compare", "Take away"]
)
def test_every_tab_is_drawn(app, evaluated, tab):
    evaluated("a-six")
    test = app("evaluate", model="a-six", data="sheets", part="all", tab=tab)
    assert not test.exception and not test.error
    assert "The labels clear are unknown to this checkpoint" in words(test).replace("\\", "")


def test_a_page_counts_nothing_that_the_worker_has_counted(app, evaluated, monkeypatch):
    evaluation = evaluated("b-clear")
    for part in services.evaluation.PARTS:
        if len((chosen := evaluation.select(part)).labelled):
            services.evaluation.cached_estimates(chosen)
    services.evaluation.estimates.clear()
    services.evaluation.plots.clear()

    def fail(*_, **__):
        raise AssertionError("a bootstrap on a page")

    for place in ("classification.group_weights", "segments.weak_segments"):
        monkeypatch.setattr(f"steel_core.metrics.{place}", fail)
    for tab in ("Confusion", "Figures", "Calibration", "Weak spots"):
        for part in ("held-out", "all"):
            test = app("evaluate", model="b-clear", data="sheets", part=part, tab=tab)
            assert not test.error and not test.exception, tab


def test_a_range_shows_exactly_the_images_in_it(app, evaluated):
    rows = evaluated("b-clear").select("all").top_losses()
    low, high = (round(float(rows["loss"].quantile(q)), 3) for q in (0.2, 0.8))
    test = app("evaluate", model="b-clear", data="sheets", part="all", tab="Worst images")
    test.number_input(key="loss from").set_value(low).run()
    test.number_input(key="loss to").set_value(high).run()
    inside = rows[rows["loss"].between(low, high)]["file"].str.split("/").str[-1]
    assert 0 < len(inside) < len(rows)
    assert files(test) == list(inside)[:12] and not test.error
    test = app("evaluate", model="b-clear", data="sheets", part="all", tab="Figures", scores="defect")
    test.number_input(key="score to").set_value(0.5).run()
    inside = rows[rows["p.defect"] <= 0.5]["file"].str.split("/").str[-1]
    assert files(test) == list(inside)[:12] and not test.error


def test_a_confused_pair_leads_to_its_cell(app, evaluated):
    evaluation = evaluated("b-clear").select("all")
    pair = services.evaluation.most_confused(evaluation.confusion()).iloc[0]
    test = app("evaluate", model="b-clear", data="sheets", part="all", tab="Figures")
    next(b for b in test.button if "called" in b.label).click().run()
    assert f"Actual {pair['actual']}, predicted {pair['predicted']}: {pair['n']} images" in words(test)


def test_hidden_tabs_are_not_run(app, evaluated, monkeypatch):
    evaluated("b-clear")

    def fail(*_, **__):
        raise AssertionError("a hidden tab ran")

    for name in ("plots", "comparison", "propose_thresholds", "in_segment"):
        monkeypatch.setattr(services.evaluation, name, fail)
    assert not app("evaluate", model="b-clear", data="sheets").error


def test_a_finding_is_kept_with_who_and_when_and_goes_into_the_relabelling_list(app, evaluated):
    evaluation = evaluated("b-clear").select("all")
    worst = evaluation.top_losses(1).iloc[0]
    start = {"model": "b-clear", "data": "sheets", "part": "all", "tab": "Worst images"}
    test = app("evaluate", **start)
    key = f"triage {worst['image_sha256']}"
    assert test.get("button_group")[1].proto.disabled  # nobody is named yet
    test.text_input(key="who").set_value("Ada").run()
    test.session_state[key] = "label wrong"  # what a click on the pill sends
    test.run()
    services.evaluation.triage(evaluation, worst, "label wrong", "Ada")
    test = app("evaluate", **start)
    assert "Ada, 20" in words(test) and not test.error
    box = next(b for b in test.selectbox if b.label == "Should be")
    test.text_input(key="who").set_value("Ada").run()
    box = next(b for b in test.selectbox if b.label == "Should be")
    box.select("clear").run()
    last = TriageStore().latest()[worst["image_sha256"]]
    assert (last.finding, last.should_be, last.who, last.label) == ("label wrong", "clear", "Ada", worst["label"])
    assert worst["file"] in services.evaluation.TriageStore().relabelling_csv()
    assert files(app("evaluate", **start, images="triaged")) == [worst["file"].split("/")[-1]]


@pytest.fixture
def copy(home, evaluated):
    """A model that may be changed."""
    shutil.copytree(home / "models" / "b-clear", home / "models" / "y-copy")
    evaluated("y-copy")
    yield "y-copy"
    shutil.rmtree(home / "models" / "y-copy")


def test_saved_thresholds_stand_in_the_card_and_verdicts_obey_at_once(app, home, copy):
    image = {"model": copy, "data": "sheets", "image": "images/sheet-000010.png"}
    assert "Refer to a person" in words(app("inspect", **image))
    test = app("evaluate", model=copy, data="sheets", tab="Thresholds")
    assert "validation images, shown on" in words(test) and not test.error
    for field in [f for f in test.number_input if "in force" in f.label]:
        field.set_value(0.0)
    test.text_input[0].set_value("Ada")
    test.text_input[1].set_value("fewer looks")
    next(b for b in test.button if b.label == "Save thresholds").click().run()
    assert "Thresholds saved by Ada" in test.success[0].value and not test.error
    card = json.loads((home / "models" / copy / "card.json").read_text())
    assert card["thresholds"] == {"clear": 0.0, "defect": 0.0}
    assert card["history"][-1]["who"] == "Ada" and card["history"][-1]["reason"] == "fewer looks"
    assert "Refer to a person" not in words(app("inspect", **image))
    said = app("evaluate", model=copy, data="sheets")
    assert "handed to a person" not in words(said) and not said.error  # and nothing had to be computed again


def test_thresholds_need_a_name_and_a_shipped_model_stays_as_it_is(app, home, copy, monkeypatch):
    def save(who):
        test = app("evaluate", model=copy, data="sheets", tab="Thresholds")
        test.text_input[0].set_value(who)
        test.text_input[1].set_value("why not")
        next(b for b in test.button if b.label == "Save thresholds").click().run()
        return test.error[0].value

    before = (home / "models" / copy / "card.json").read_text()
    assert "needs the name of the person" in save(" ")
    monkeypatch.setattr("steel_core.evaluation.thresholds.ASSETS", home)
    assert "comes with the program and stays as it is" in save("Ada")
    assert (home / "models" / copy / "card.json").read_text() == before


def test_the_proposal_is_what_the_library_chooses_from_typed_costs(app, evaluated):
    whole = evaluated("b-clear")
    test = app("evaluate", model="b-clear", data="sheets", tab="Thresholds")
    test.number_input(key="escape defect").set_value(500.0).run()
    chosen = services.evaluation.propose_thresholds(
        whole, services.evaluation.Costs(escape={"defect": 500.0}, false_call={"defect": 1.0}), None
    )
    fields = {f.label.split(" ")[0]: f.value for f in test.number_input if "in force" in f.label}
    assert fields == pytest.approx(chosen.thresholds)
    shown = table(test, "Escape")
    after = services.evaluation.plant_estimates(
        whole.select("test"), chosen.thresholds, services.evaluation.Costs(escape={"defect": 500.0}), None
    )
    costs = shown[shown["Thresholds"] == "as typed"]["Cost of 1,000 sheets"]
    assert [cost.split(" ")[0] for cost in costs] == [f"{cost:.1f}" for cost in after["cost_per_1000"]]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["", ""], "no image has a label"),
        (["rust", "rust"], "are unknown to this checkpoint"),
        (["clear", "clear"], "No image of defect"),
        (["clear", "rust", ""], "1 image has no label"),
        (["clear"], "Only 1 image has a label"),
    ],
)
def test_odd_labels_get_a_sentence_and_what_can_still_be_shown(app, evaluated, own_data, labels, says):
    folder = own_data("odd", labels)
    evaluated("b-clear", folder)
    for tab in ("Confusion", "Worst images", "Figures", "Calibration", "Thresholds", "Weak spots"):
        test = app("evaluate", model="b-clear", data="odd", tab=tab)
        assert not test.exception and not test.error, (tab, [e.value for e in test.error])
        said = words(test).replace("\\", "")
        assert says in said or labels == ["rust", "rust"]  # a binary model takes rust for a defect
    assert len(files(app("evaluate", model="b-clear", data="odd", tab="Worst images"))) >= 1


def test_images_that_are_not_counted_can_be_seen(app, evaluated, own_data):
    evaluated("b-clear", own_data("odd", ["clear", "", "", "clear"]))
    test = app("evaluate", model="b-clear", data="odd", tab="Worst images")
    assert set(files(test)) == {"sheet-000010.png", "sheet-000013.png"}
    assert "2 images without a label that the model knows" in words(test)
    test = app("evaluate", model="b-clear", data="odd", tab="Worst images", images="not counted")
    assert set(files(test)) == {"sheet-000011.png", "sheet-000012.png"} and not test.error


def test_a_part_without_images_says_so(app, evaluated, own_data):
    evaluated("b-clear", own_data("odd", ["clear", "patches"]))
    test = app("evaluate", model="b-clear", data="odd", part="val")
    assert "This part holds no image" in words(test) and not test.error and not test.exception


def test_two_models_are_compared_on_the_same_images(app, evaluated):
    a, b = evaluated("a-six"), evaluated("c-bare")
    test = app("evaluate", model="a-six", data="sheets", part="all", tab="Compare", other="c-bare")
    assert not test.error and not test.exception
    rows = table(test, "Difference").set_index("Figure")
    for name, evaluation in (("a-six", a), ("c-bare", b)):
        counted = evaluation.labelled.table
        assert rows.loc["Accuracy", name] == pytest.approx((counted["label"] == counted["pred"]).mean())
    assert "McNemar p" in words(test)
    assert "b-clear" not in test.selectbox(key="other").options, "other classes do not compare"


def test_a_model_that_compares_with_no_other_says_so(app, evaluated):
    evaluated("b-clear")
    test = app("evaluate", model="b-clear", data="sheets", part="all", tab="Compare")
    assert "No other model here knows the same classes" in words(test) and not test.error


def test_blank_and_unfamiliar_images_get_no_prediction_set(evaluated):
    """An image that gets no verdict neither chooses the sets nor is counted among them."""
    whole = evaluated("b-clear")
    rows = {part: np.flatnonzero((whole.table["split"] == part).to_numpy()) for part in ("val", "test")}
    assert len(rows["val"]) > 2 and len(rows["test"]) > 3
    strange = whole.table["strangeness"].to_numpy(copy=True)
    judgeable = whole.table["judgeable"].to_numpy(copy=True)
    strange[[rows["val"][0], rows["test"][0], rows["test"][1]]] = 2.0
    judgeable[rows["test"][2]] = False
    odd = dataclasses.replace(whole, table=whole.table.assign(strangeness=strange, judgeable=judgeable))
    gone = [rows["val"][0], *rows["test"][:3]]
    without = dataclasses.replace(whole, table=whole.table.drop(index=gone).reset_index(drop=True))
    sets, same = (services.evaluation.prediction_sets(each, 0.8, "aps") for each in (odd, without))
    assert (sets.chosen_on, sets.estimates) == (same.chosen_on, same.estimates)
    assert (sets.unjudged, same.unjudged) == (3, 0)


def test_held_out_says_that_it_is_not_the_division_of_the_data_set(app, evaluated):
    """These models name no images that they learnt from, so all are held out, whatever the folder calls them."""
    whole = evaluated("b-clear").table
    elsewhere = int(whole["split"].isin(["train", "val"]).sum())
    assert elsewhere
    said = words(app("evaluate", model="b-clear", data="sheets"))
    assert f"{elsewhere} of them lie in the train or val part of the data set" in said
    assert "of them lie in" not in words(app("evaluate", model="b-clear", data="sheets", part="test"))


def test_a_model_of_several_classes_an_image_has_its_own_figures(app, home, evaluated, own_data):
    kinds = ("crazing", "inclusion", "scratches")
    make_checkpoint(home / "models" / "x-several", kinds, head="sigmoid", multi_label=True)
    try:
        folder = own_data("odd", ["clear", "crazing", "crazing|inclusion", "scratches", "clear", "inclusion"] * 3)
        evaluation = evaluated("x-several", folder)
        for tab in ("Confusion", "Worst images", "Figures", "Calibration", "Thresholds", "Weak spots", "Take away"):
            test = app("evaluate", model="x-several", data="odd", part="all", tab=tab)
            assert not test.error and not test.exception, tab
            shown = {metric.label: metric.value for metric in test.metric}
            right = 1 - evaluation.wrong.mean()
            assert shown["Exactly right"] == f"{100 * right:.1f} %", tab
        cells = table(app("evaluate", model="x-several", data="odd", part="all"), "Share of row")
        assert set(cells["Actual"]) == {"clear", "defect"} and cells["Images"].sum() == len(evaluation)
    finally:
        shutil.rmtree(home / "models" / "x-several")


def test_without_a_model_it_says_so(app, tmp_path, monkeypatch):
    app("overview")
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path))
    test = app("evaluate")
    assert "No model is here yet" in words(test) and not test.exception


def test_an_unfamiliar_image_gets_no_verdict_in_words(app):
    from dashboard.components.common import verdict
    from steel_core.reports.image_report import describe_verdict

    said = Prediction("cat.png", "clear", UNFAMILIAR, {"clear": 0.99, "defect": 0.01}, np.zeros(2, np.float32), 0.5,
                      "0" * 64, "1" * 64, ood_score=4.0)  # fmt: skip
    assert verdict.words(said) == "Unfamiliar: no verdict"
    assert describe_verdict(said).startswith("Unfamiliar: no verdict")


def test_a_gate_shows_its_measured_rates_and_what_it_stopped(app, home, copy, evaluated):
    folder = home / "models" / copy
    image = open_dataset(home / "data" / "sheets").image(10)
    width = Predictor.load(folder).features([image]).shape[1]
    noise = np.random.default_rng(0).normal(50, 1, (90, width))
    rates = {"sheets, test part": {"unfamiliar": 0.02, "interval": [0.004, 0.1], "n": 50, "effective": 50.0}}
    none, pieces = np.zeros(90, int), np.arange(60)
    gate = fit_gate((noise[:60], none[:60], pieces), (noise[60:], none[60:]), 2)
    install_gate(folder, gate, rates, "Ada", "a gate that knows none of the sheets")
    evaluated(copy)
    test = app("evaluate", model=copy, data="sheets", tab="Weak spots")
    assert table(test, "Called unfamiliar").iloc[0].to_list() == ["sheets, test part", "2.0 %", "0.4 % to 10.0 %", 50]
    assert "**59 of 59** images are unfamiliar" in words(test) and "called unfamiliar: no verdict" in words(test)
    seen = app("inspect", model=copy, data="sheets", image="images/sheet-000010.png")
    assert "Unfamiliar: no verdict" in words(seen).replace("\\", "")
