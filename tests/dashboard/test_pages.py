"""What each page says for a model, a data set and a URL, without a browser."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from helpers.dash import DEFECTS, finished, png, upload, words, write_model
from helpers.small import make_checkpoint

from dashboard import services
from steel_core.data.open import open_dataset
from steel_core.types import CLEAR

# What a visit begins with


def test_a_visit_begins_with_a_model_and_the_data_set_that_it_learnt_from(app, tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path))
    for name, learnt in (("a-first", "elsewhere"), ("b-own", "sheets"), ("c-last", "")):
        write_model(tmp_path / name, DEFECTS, data={"name": learnt})
    chosen = app().session_state
    assert (chosen["model"], chosen["data"]) == ("b-own", "sheets")
    assert app(model="c-last").session_state["model"] == "c-last", "who names a model gets it"
    assert app(data="sheets").session_state["model"] == "b-own"
    # One that has learnt nothing is nobody's first model, unless there is no other for these sheets.
    figures = {"val": {"n": 9, "support": {"clear": 4, "defect": 5}, "macro_recall": 0.5,
                       "intervals": {"macro_recall": [0.3, 0.7]}}}  # fmt: skip
    write_model(tmp_path / "d-blind", DEFECTS, data={"name": "sheets"}, metrics=figures)
    several = {"val": {"multi_label": True, "intervals": {"auc": [0.4, 0.6]}}}
    write_model(tmp_path / "e-blind", DEFECTS, data={"name": "sheets"}, metrics=several)
    assert app(data="sheets").session_state["model"] == "b-own"
    shutil.rmtree(tmp_path / "b-own")
    assert app(data="sheets").session_state["model"] == "e-blind"
    write_model(tmp_path / "f-other", DEFECTS, data={"name": "sheets"}, metrics={"val": {"intervals": {}}})
    assert app(data="sheets").session_state["model"] == "f-other", "a card that does not tell speaks against nothing"


def test_a_visit_begins_with_a_plant_s_own_data_though_no_model_has_learnt_from_it(app, tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path))
    write_model(tmp_path / "a-first", DEFECTS, data={"name": "elsewhere"})
    assert app().session_state["data"] == "sheets"


def test_a_figure_that_misses_its_target_by_less_than_is_shown_has_more_digits(app, tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path))
    figures = {"n": 99, "auc": 0.98952, "accuracy": 0.97996, "intervals": {}}
    write_model(tmp_path / "near", (*DEFECTS, CLEAR), metrics={"test": figures})
    assert [metric.value for metric in app(model="near").metric] == ["97.996 %", "0.98952"]


def test_samples_are_none_that_the_model_has_learnt_from(app, home, tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path))
    index = open_dataset(home / "data" / "sheets")
    table = index.table.reset_index(drop=True)
    test_part = [i for i in table.index[table["split"] == "test"] if i != 3]
    hashes = {i: index.image(i).sha256[:16] for i in test_part}
    learnt, left = test_part[::2], test_part[1::2]
    files = {"train": [hashes[i] for i in learnt], "val": [], "test": []}
    write_model(tmp_path / "own", (*DEFECTS, CLEAR), data={"name": "sheets"}, split={"files": files})
    offered = {link.proto.label.replace("\\", "") for link in app("inspect").get("page_link")}
    assert offered & {Path(table["path"][i]).name for i in left}
    assert not offered & {Path(table["path"][i]).name for i in learnt}


# Overview


def test_overview_shows_the_figures_with_interval_target_number_and_date(app, monkeypatch):
    targets = {"accuracy": 0.95, "macro_recall": 0.95, "auc": 0.98, "ece": 0.05}
    monkeypatch.setattr("dashboard.services.models.TARGETS", targets)
    test = app(model="a-six")
    said = words(test)
    assert [metric.value for metric in test.metric] == ["96.0 %", "97.0 %", "20.0 %"]  # no AUC was measured: no tile
    assert "95 %: 90.0 % to 99.0 %" in said
    assert "120 test images" in said and "which show 110 different places" in said and "2026\\-01\\-02" in said
    assert "small sample" in said
    assert "found least often: crazing, 81.0 %" in said
    assert "Target at least 95.0 %: reached, not yet certain" in said
    assert "Target at most 5.0 %: missed" in said


def test_overview_of_a_large_sample_does_not_call_it_small(app):
    assert "small sample" not in words(app(model="b-clear"))


def test_overview_shows_the_notes_of_the_card_as_plain_text(app):
    assert [w.value for w in app(model="b-clear").warning] == ["It learnt a \\*planted\\* shortcut\\."]


def test_overview_without_figures_says_so_and_shows_no_zero(app):
    test = app(model="c-bare")
    assert not test.metric
    assert "not evaluated yet" in words(test)


def test_overview_with_a_model_that_cannot_clear_shows_no_sound_sheet(app):
    assert "Labelled: clear" not in words(app(model="a-six"))
    assert "Labelled: clear" in words(app(model="b-clear"))


@pytest.mark.parametrize("page", ["overview", "inspect"])
def test_a_damaged_model_gets_a_sentence_and_another_can_be_chosen(app, page):
    test = app(page, model="d-damaged")
    assert [e.value for e in test.error] == ["checkpoint d\\-damaged\\: its weights are missing or damaged"]
    test.selectbox(key="model").select("a-six").run()
    assert not test.error


@pytest.mark.parametrize("page", ["overview", "inspect", "explore"])
def test_an_unknown_model_in_the_url_gets_a_sentence_and_the_first_is_used(app, page):
    test = app(page, model="../../etc", data="sheets")
    assert "There is no model" in words(test) and "a\\-six" in words(test)
    assert test.selectbox(key="model").value == "a-six"
    assert not test.exception and not test.error


@pytest.mark.parametrize("page", ["overview", "inspect", "explore"])
def test_without_model_and_data_every_page_says_what_to_do(app, monkeypatch, page):
    monkeypatch.delenv("STEEL_MODELS")
    monkeypatch.delenv("STEEL_DATA")
    monkeypatch.setattr("dashboard.services.datasets.SHIPPED", Path("nowhere"))
    test = app(page)
    said = words(test)
    assert ("No data set is here" if page == "explore" else "No model is here yet") in said
    assert not test.exception and not test.error


def test_an_unexpected_error_shows_a_number_that_the_log_holds(app, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("dashboard.services.models.predictor", fail)
    test = app(model="a-six")
    said = test.error[0].value
    number = said.split("**")[1]
    assert number in caplog.text and "RuntimeError" in caplog.text
    assert "secret" not in words(test) and not test.exception


# Inspect


def test_inspect_without_images_states_limits_and_offers_samples(app):
    test = app("inspect", model="a-six")
    assert "50 megapixels" in test.file_uploader(key="files").label
    assert "Or try a sample" in words(test)
    assert len(test.get("page_link")) == 6  # one sheet of each label, none clear: this model cannot say so
    assert not test.camera_input  # nothing asks for the camera before it is wanted


def test_the_camera_appears_when_it_is_asked_for(app):
    test = app("inspect", model="a-six")
    test.toggle(key="camera on").set_value(True).run()
    assert len(test.camera_input) == 1


def test_one_image_gets_verdict_bars_three_maps_and_downloads(app):
    test = finished(upload(app("inspect", model="c-bare"), ("plate *1*.png", png())))
    said = words(test)
    assert not test.error and not test.exception
    assert "cannot clear a sheet" in said
    assert said.count('role="listitem"') == 6
    assert all(title in said for title in ("**Grad-CAM**", "**Guided Grad-CAM**", "**SHAP"))
    assert "its noise: " in said  # of the sampled map
    assert services.maps.CAUTION in said
    assert "plate \\*1\\*\\.png" in said and "plate *1*" not in said
    assert len(test.get("download_button")) == 2


def test_a_model_that_knows_clear_may_clear_and_does_not_say_otherwise(app):
    assert "cannot clear" not in words(upload(app("inspect", model="b-clear"), ("a.png", png())))


def test_a_doubtful_image_is_referred_in_words(app):
    said = words(upload(app("inspect", model="b-clear"), ("a.png", png())))
    assert "Refer to a person" in said and "100.0 % needed" in said


def test_the_class_to_explain_can_be_chosen(app):
    test = upload(app("inspect", model="a-six"), ("a.png", png()))
    question = next(box for box in test.selectbox if box.label == "Class to explain")
    other = next(o for o in ("crazing", "patches") if o != question.value[0])
    question.select((other, "")).run()
    assert finished(test) and words(test).count(f"For {other}\\.") == 3


def test_a_referred_image_begins_with_the_contrast_of_the_two_likeliest_classes(app):
    test = finished(upload(app("inspect", model="b-clear"), ("a.png", png())))
    assert " rather than " in test.selectbox[2].value[0] or test.selectbox[2].value[1]
    assert "The maps show what makes the model lean to" in words(test)
    assert words(test).count(" rather than ") >= 3


def test_opacity_draws_anew_but_computes_nothing(app, monkeypatch):
    test = finished(upload(app("inspect", model="a-six"), ("a.png", png())))

    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("steel_core.inference.predictor.Predictor.explain", fail)
    monkeypatch.setattr("steel_core.inference.predictor.Predictor.refine", fail)
    monkeypatch.setattr("steel_core.inference.predictor.Predictor.predict", fail)
    test.slider(key="opacity").set_value(0.2).run()
    assert not test.error and not test.exception


def test_a_bad_file_gets_its_sentence_and_the_good_ones_finish(app):
    test = upload(
        app("inspect", model="a-six"),
        ("a.png", png(1)),
        ("note.txt", b"hello"),
        ("half.png", png(2)[:900]),
        ("b.png", png(3)),
    )
    said = words(test)
    assert len(test.error) == 2
    assert "note\\.txt" in test.error[0].value and "this is text" in test.error[0].value
    assert "**4 images:**" in said and "2 not read" in said
    assert list(test.dataframe[0].value["File"]) == ["a.png", "note.txt", "half.png", "b.png"]
    assert list(test.dataframe[0].value["Verdict"])[1:3] == ["Not read", "Not read"]
    detail = test.selectbox(key="detail")
    assert [o.split(":")[0] for o in detail.options] == ["a.png", "b.png"]
    detail.select_index(1).run()
    assert "b\\.png" in words(test) and not test.exception
    assert len(test.get("download_button")) == 4


def test_only_bad_files_show_their_sentences_and_no_verdict(app):
    test = upload(app("inspect", model="a-six"), ("a.gif", b"GIF89a"))
    assert "a GIF" in test.error[0].value
    assert "Verdict" not in words(test) and not test.exception


def test_an_image_of_the_data_set_opens_by_its_link(app):
    test = app("inspect", model="a-six", data="sheets", image="images/sheet-000001.png")
    assert "Labelled in its data set" in words(test) and not test.error


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "images/../manifest.csv", "images/none.png"])
def test_a_path_in_the_url_is_looked_up_and_never_opened(app, monkeypatch, path):
    monkeypatch.setattr("dashboard.services.datasets.read_image", lambda *_, **__: pytest.fail("opened"))
    test = app("inspect", model="a-six", data="sheets", image=path)
    assert "holds no image of this name" in test.error[0].value
    assert "etc/" not in words(test) and not test.exception


@pytest.mark.parametrize("warned", [False, True])
def test_a_model_of_other_steel_warns_beside_its_verdict(app, home, warned):
    learnt = "another mill" if warned else services.datasets.dataset("sheets").spec.name
    folder = make_checkpoint(home / "models" / f"d-{warned}", data={"name": learnt})
    said = words(app("inspect", model=folder.name, data="sheets", image="images/sheet-000001.png"))
    shutil.rmtree(folder)
    assert ("expect wrong verdicts on its pictures" in said) == warned


def test_an_image_of_the_training_data_is_marked_as_such(app, monkeypatch):
    monkeypatch.setattr("steel_core.models.checkpoint.Card.part_of", lambda *_: "train")
    assert "training data" in words(upload(app("inspect", model="a-six"), ("a.png", png(11))))


def test_more_images_than_are_looked_at_together_are_named(app, monkeypatch):
    monkeypatch.setattr("dashboard.services.images.MOST_FILES", 2)
    test = upload(app("inspect", model="a-six"), *((f"{name}.png", png(i)) for i, name in enumerate("abcd")))
    assert "At most 2 images" in test.warning[0].value
    assert "c\\.png, d\\.png" in test.warning[0].value and "a\\.png" not in test.warning[0].value
    assert "**2 images:**" in words(test)


# Exports


def test_the_table_of_verdicts_defuses_formulas(home, monkeypatch):
    model = services.models.Predictor.load(home / "models" / "a-six")
    source = services.datasets.Source(
        "=cmd|' /C calc'!A0.png", "k", home / "data" / "sheets" / "images" / "sheet-000001.png"
    )
    seen = services.images.take_first_look(model, source)
    assert isinstance(seen, services.images.FirstLook)
    bad = services.datasets.Refused("-1 is no picture")
    rows = list(
        csv.DictReader(io.StringIO(services.images.verdicts_csv([(source, seen), (source, bad)]).decode("utf-8-sig")))
    )
    assert rows[0]["file"] == "sheet-000001.png" and float(rows[0]["confidence"]) == pytest.approx(
        seen.prediction.confidence, abs=1e-6
    )
    assert rows[1]["file"].startswith("'=cmd") and rows[1]["error"].startswith("'-1")
    results = json.loads(services.images.verdicts_json(model, [(source, seen), (source, bad)]))["results"]
    assert results[0]["outcome"] == seen.prediction.outcome and results[1]["error"] == "-1 is no picture"


def test_uploads_are_still_there_after_a_visit_to_another_page(app):
    test = upload(app("inspect"), ("a.png", png()))
    test.switch_page("app_pages/explore.py").run()
    test.switch_page("app_pages/inspect.py").run()
    assert "Still here: your image" in words(test) and "a\\.png" in words(test)
    next(button for button in test.button if button.label == "Remove").click().run()
    assert "Still here" not in words(test)
    assert "Or try a sample" in words(test)


def test_a_blank_picture_is_referred_and_says_why(app):
    said = words(upload(app("inspect", model="b-clear"), ("white.png", png(white=True))))
    assert "Refer to a person" in said and "nearly alike" in said
