"""What the Audit page says of a stain, of a run, of its history and of a cure, without a browser."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.dash import ROOT, png, write_model
from helpers.dash import words as said_by

from dashboard import services
from dashboard.components.audit.result import marked_verdict
from dashboard.components.audit.stain import CUT
from steel_core.audit.bench import run_bench
from steel_core.audit.sheets import read_defect_mask
from steel_core.audit.stains import cut_stain
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError
from steel_core.files import new_run_name
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stencil import cut_box
from steel_core.render import audit_plots, percent
from steel_core.store.audits import AuditStore

SHIPPED = ROOT / "assets" / "models" / "strip-mill"


@pytest.fixture
def audit(app, monkeypatch, tmp_path):
    """Starts the Audit page with a history of its own: `audit(view="Data set", model="b-clear")`."""
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "kept"))
    return lambda **query: app("audit", **query)


@pytest.fixture
def shipped(audit, monkeypatch):
    """The same with the shipped models and sheets."""
    if not SHIPPED.is_dir():
        pytest.skip("the shipped model is not here")
    monkeypatch.setenv("STEEL_MODELS", str(ROOT / "assets" / "models"))
    monkeypatch.setenv("STEEL_DATA", str(ROOT / "assets" / "demo"))
    return audit


def effect(**changed):
    return {
        "n": 50,
        "groups": 50,
        "flip_rate": 0.3,
        "control_flip_rate": 0.02,
        "excess": 0.28,
        "interval": [0.15, 0.4],
        "p": 0.0001,
        "control": "mean-grey",
        "controls": {"mean-grey": 0.02, "dark-stain": 0.0},
        "drop": 0.2,
        "drop_interval": [0.1, 0.3],
        "detectable": 0.15,
    } | changed


def report(verdict="evidence for a shortcut", **changed):
    """A report as `AuditReport.to_json` writes it."""
    first = effect()
    finding = {"name": "towards clear", "sentence": "A white stain turns 30 %.", "p_corrected": 0.0001, "legs": {}}
    finding |= first | {"per_class": {"defect": first}, "verdict": verdict}
    doses = [
        {"position": position, "area": area, "brightness": light, "n": 50, "excess": 0.1, "interval": [0, 0.2]}
        for position in ("off", "anywhere", "on")
        for area in (0.01, 0.05)
        for light in (0.7, 0.92)
    ]
    return {
        "audit": "white-stain",
        "question": "Does a harmless white stain turn the verdict of this model?",
        "verdict": verdict,
        "finding": "towards clear",
        **{key: first[key] for key in ("flip_rate", "control_flip_rate", "excess", "interval", "n", "groups")},
        "detectable": 0.15,
        "per_class": {"defect": first},
        "findings": [finding],
        "limits": ["3 of 60 images are no evidence."],
        "detail": {"towards": "clear", "doses": doses, "evidence_inside": {}, "examples": []},
        "settings": {"tolerated": 0.05, "stain": "drawn"},
        "model": "gone",
        "model_hash": "a" * 64,
        "data": "sheets",
        "data_hash": "b" * 64,
        "images": 60,
        "seed": 0,
        "code_version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
    } | changed


def wait(test, until):
    deadline = time.monotonic() + 100
    while not until(said_by(test)):
        assert time.monotonic() < deadline, said_by(test)
        time.sleep(0.2)
        test.run()
    return said_by(test)


# One image


def test_out_of_the_box_a_stain_lets_a_bad_sheet_out_and_no_control_does(shipped):
    test = shipped(model="strip-mill", data="strip-mill")
    said = said_by(test)
    index = open_dataset(ROOT / "assets" / "demo" / "strip-mill")
    row = int((index.table["path"] == "images/sheet-000014.png").to_numpy().argmax())
    model, image = Predictor.load(SHIPPED), index.image(row)
    mask = read_defect_mask(index, row, (image.height, image.width), model.card.input_size)
    rows = run_bench(model, image, WhiteStain(), 0.05, defect=mask, watched="clear")
    p = [percent(one.prediction.probs["clear"]) for one in rows]
    assert "sheet-000014.png: rolled-in scale" in test.selectbox(key="sheet strip-mill").options[0]
    assert f"from **{p[0]}** to **{p[1]}**" in said
    assert "Defect]" in said and "Clear]" in said and "lets a bad sheet out" in said
    assert "None of the 4 controls" in said
    assert all(f"clear {one}" in said for one in p)
    assert "keeps off the defect on file" in said and "A map shows influence, not cause" in said
    assert "this one comes first because the stain shows its effect on it" in said
    test.selectbox(key="sheet strip-mill").select_index(1).run()
    assert "comes first because" not in said_by(test)


def test_a_small_stain_changes_nothing_and_the_smallest_that_does_is_found(shipped):
    test = shipped(model="strip-mill", data="strip-mill")
    test.slider(key="stain area").set_value(0.5).run()
    before = said_by(test).count("The likeliest class stays defect")  # once more where a cured model stands below
    assert before
    next(b for b in test.button if b.label.startswith("Find the smallest")).click().run()
    said = said_by(test)
    assert "of the sheet turns it from defect to **clear**; no control of that size does" in said
    next(b for b in test.button if b.label == "Show this stain").click().run()
    assert 0.5 < test.slider(key="stain area").value < 5
    assert said_by(test).count("The likeliest class stays") == before - 1


def test_the_stain_is_drawn_as_it_was_asked_for(shipped, monkeypatch):
    asked = []
    made = services.bench.Stain.perturbation
    monkeypatch.setattr(services.bench.Stain, "perturbation", lambda stain: asked.append(made(stain)) or asked[-1])
    test = shipped(model="strip-mill", data="strip-mill")
    test.selectbox(key="stain shape").set_value("ring")
    test.selectbox(key="stain texture").set_value("grain")
    test.number_input(key="stain number").set_value(3)
    test.number_input(key="stain seed").set_value(7).run()
    assert (asked[-1].shape, asked[-1].texture, asked[-1].number) == ("ring", "grain", 3)
    assert "The likeliest class" in said_by(test)


def test_a_stain_that_is_put_on_the_defect_proves_nothing(shipped):
    test = shipped(model="strip-mill", data="strip-mill")
    test.toggle(key="stain by hand").set_value(True).run()
    test.slider(key="stain row").set_value(62)
    test.slider(key="stain column").set_value(60)
    test.slider(key="stain area").set_value(20.0).run()
    assert "touches the defect" in said_by(test)
    assert "it is what the stain shows" not in said_by(test) and "lets a bad sheet out" not in said_by(test)
    assert "The stain lies where you put it" in said_by(test)


def test_the_points_that_can_be_clicked_lie_where_they_say():
    figure = audit_plots.click_pad(np.zeros((20, 20), np.uint8), 3)
    assert list(zip(figure.data[0].y, figure.data[0].x, strict=True))[5] == (50, 100)  # rows first, from the top
    assert figure.layout.yaxis.range == (100, 0)


def test_a_box_is_dragged_on_a_picture_in_its_proportions_and_stays_there():
    figure = audit_plots.box_pad(np.zeros((20, 40), np.uint8), (10, 20, 30, 60))
    marked = figure.layout.shapes[0]
    assert figure.layout.dragmode == "select" and figure.layout.yaxis.range == (100, 0)
    assert (marked.x0, marked.y0, marked.x1, marked.y1) == (10, 20, 30, 60)
    assert figure.layout.yaxis.scaleratio == 0.5


def cut(test, *box):
    """Marks a box (left, top, width, height) as the keyboard does."""
    for field, value in zip(("left", "top", "width", "height"), box, strict=True):
        test.number_input(key=f"cut {field}").set_value(value)
    return test.run()


def test_a_real_stain_is_cut_out_and_judged_like_a_drawn_one(shipped):
    test = shipped(model="strip-mill", data="strip-mill")
    test.segmented_control(key="stain kind").set_value(CUT).run()
    assert "Drag a box over the stain" in said_by(test) and "**Controls**" not in said_by(test)
    assert "sheet-000001.png: clear" in test.selectbox(key="cut of strip-mill").options[0]
    said = said_by(cut(test, 90, 40, 46, 52))

    index = open_dataset(ROOT / "assets" / "demo" / "strip-mill")
    row, stained = (
        int((index.table["path"] == f"images/{name}.png").to_numpy().argmax())
        for name in ("sheet-000014", "sheet-000001")
    )
    model, image = Predictor.load(SHIPPED), index.image(row)
    mask = read_defect_mask(index, row, (image.height, image.width), model.card.input_size)
    stain = WhiteStain(source=cut_box(index.image(stained).grey(), (90, 40, 46, 52)))
    rows = run_bench(model, image, stain, 0.05, defect=mask, watched="clear")
    p = [percent(one.prediction.probs["clear"]) for one in rows]
    assert f"from **{p[0]}** to **{p[1]}**" in said and all(f"clear {one}" in said for one in p)
    assert "None of the 4 controls" in said and "far brighter than the steel in the box" in said
    assert not test.exception and not test.error
    assert not [slider for slider in test.slider if slider.key == "stain brightness"]  # it keeps its own

    said = said_by(cut(test, 110, 120, 50, 40))  # bare steel beside the stain
    assert "all of the box is cut out" in said and "The likeliest class stays defect" in said
    assert f"to **{p[1]}**" not in said

    test.selectbox(key="cut of strip-mill").select_index(1).run()
    assert "Drag a box over the stain" in said_by(test)  # a box belongs to its image


@pytest.mark.parametrize("box", [(10, 10, 3, 20), (40, 10, 30, 20)], ids=["too small", "off the picture"])
def test_a_box_that_cuts_nothing_out_says_why(audit, box):
    test = audit(model="b-clear", data="sheets")
    test.segmented_control(key="stain kind").set_value(CUT).run()
    assert "sheet-000003.png" in test.error[0].value.replace("\\", "")  # a damaged file says so, too
    test.selectbox(key="cut of sheets").select_index(1).run()
    cut(test, *box)
    assert "at least 4 x 4 pixels inside the picture of 64 x 64" in test.error[0].value.replace("\\", "")
    assert "**Controls**" not in said_by(test) and not test.exception


def test_an_uploaded_image_can_show_the_stain(audit):
    test = audit(model="b-clear", data="sheets")
    test.segmented_control(key="stain kind").set_value(CUT).run()
    test.file_uploader(key="cut file").set_value(("no.png", b"no picture", "image/png")).run()
    assert "no.png" in test.error[0].value.replace("\\", "")
    test.file_uploader(key="cut file").set_value(("own.png", png(size=(30, 40)), "image/png")).run()
    cut(test, 30, 20, 10, 10)
    assert "**Controls**" in said_by(test) and not test.error


def test_two_stains_cut_out_alike_are_one_and_others_are_not(home):
    index = open_dataset(home / "data" / "sheets")
    kinds = [cut_stain(index.image(i), (5, 5, 20, 20), services.bench.StainSettings()) for i in (0, 0, 1)]
    keys = [services.bench.Stain(kind).key for kind in kinds]
    assert keys[0] == keys[1] != keys[2]


def test_a_model_without_clear_is_watched_for_the_class_that_it_names(audit):
    test = audit(model="a-six", data="sheets")
    said = said_by(test)
    assert not test.exception and not test.error
    assert "**Controls**" in said and "The probability of **" in said
    assert "lets a bad sheet out" not in said


# A whole data set


def test_a_run_is_made_beside_the_page_kept_and_linked(audit):
    test = audit(view="Data set", model="b-clear", data="sheets")
    assert "About" in said_by(test)
    test.session_state["audit kinds"] = ["edges"]
    test.run()
    next(b for b in test.button if b.label == "Start the audit").click().run()
    name = "".join(test.query_params["run"])
    said = wait(test, lambda said: "Settings and hashes" in said)
    kept = AuditStore().get(name)
    assert kept and kept.data == "sheets" and kept.reports[0]["audit"] == "edges"
    words = kept.verdict
    assert f"{words[0].upper()}{words[1:]}" in said
    assert "A map shows influence, not cause" in said.replace("\\", "")
    written = json.loads(services.files.as_json(kept.to_json()))
    assert written["reports"][0]["model_hash"] == kept.reports[0]["model_hash"]


def test_a_stain_that_was_cut_out_is_tried_on_the_whole_data_set(audit):
    test = audit(view="Data set", model="b-clear", data="sheets")
    test.segmented_control(key="stain kind").set_value(CUT).run()
    test.selectbox(key="cut of sheets").select_index(1).run()
    assert next(b for b in test.button if b.label == "Start the audit").disabled
    cut(test, 5, 6, 20, 21)
    next(b for b in test.button if b.label == "Start the audit").click().run()
    name = "".join(test.query_params["run"])
    said = wait(test, lambda said: "Settings and hashes" in said).replace("\\", "")
    kept = AuditStore().get(name).reports[0]
    settings = kept["settings"]
    assert settings["stain"] == "cut out of a picture" and settings["cut_from"].endswith("box 5,6,20,21")
    assert f"The stain was cut out of {settings['cut_from']}" in said
    assert kept["detail"]["examples"], "this model must leave an image to show"
    assert "With and without" in said and said.count("Cut-out stain") == min(4, len(kept["detail"]["examples"]))


def test_a_patch_that_a_search_found_is_tested_by_itself_with_one_click(audit):
    index, model = services.datasets.dataset("sheets"), services.models.predictor("b-clear")
    exemplars = [
        {"row": row, "file": one.name, "path": f"images/{one.name}", "sha256": one.sha256, "box": [5, 6, 20, 21]}
        for row in (5, 6)
        for one in [index.image(row)]
    ]
    cluster = {"kind": "patches", "label": "defect", "share": 0.9, "prior": 0.5, "interval": [0.8, 0.95], "n": 30}
    cluster |= {"exemplars": exemplars, "beside_the_defect": 0.9}
    other = cluster | {"n": 31, "beside_the_defect": 0.25}
    finding = report()["findings"][0] | {"name": "patches of defect", "cluster": cluster}
    search = report(audit="discover", findings=[finding], detail={"clusters": [other, cluster]}, images=20)
    name = new_run_name()
    AuditStore().add(name, "sheets", 9.0, [search | {"model": "b-clear", "model_hash": model.hash}])
    test = audit(view="Data set", run=name, model="b-clear", data="sheets")
    said = said_by(test).replace("\\", "")
    assert "30 images whose evidence lies on a patch that looks alike: 90.0 % of them are defect" in said
    assert said.count("20 × 21 pixels at 5, 6") == 4 and "75.0 % of these patches meet the defect" in said
    assert f"--stain-from FOLDER/images/{exemplars[0]['file']} --box 5,6,20,21 --towards defect" in test.code[0].value
    (button,) = [b for b in test.button if b.label == "Test the first patch by itself"]
    button.click().run()
    made = "".join(test.query_params["run"])
    assert made != name
    wait(test, lambda said: "Settings and hashes" in said)
    settings = AuditStore().get(made).reports[0]["settings"]
    assert settings["cut_from"].startswith(exemplars[0]["file"]) and settings["cut_from"].endswith("box 5,6,20,21")
    assert settings["towards"] == "defect"
    back = said_by(audit(view="Data set", run=name, model="b-clear", data="sheets"))
    assert f"tested by itself: {marked_verdict(AuditStore().get(made).verdict)}" in back


def test_a_search_of_before_its_boxes_were_kept_still_shows(audit):
    old = {"kind": "maps", "label": "clear", "share": 0.9, "prior": 0.5, "interval": [0.8, 0.95], "n": 30, "p": 0.1}
    old |= {"exemplars": [{"row": 5, "file": "sheet-000005.png"}], "beside_the_defect": None}
    name = new_run_name()
    AuditStore().add(
        name, "sheets", 9.0, [report(audit="discover", excess=None, findings=[], detail={"clusters": [old]})]
    )
    test = audit(view="Data set", run=name, model="b-clear", data="sheets")
    assert "a place cannot be cut out" in said_by(test)
    assert not test.exception and not test.error


def test_a_run_can_be_stopped_and_nothing_is_kept(audit, monkeypatch):
    began, over = threading.Event(), threading.Event()

    def endless(*_, progress, **__):
        try:
            for done in range(10_000):
                progress("audit: white-stain", done, 10_000)
                began.set()
                time.sleep(0.01)
        finally:
            over.set()

    monkeypatch.setattr("dashboard.services.audits.audit", endless)
    test = audit(view="Data set", model="b-clear", data="sheets")
    next(b for b in test.button if b.label == "Start the audit").click().run()
    assert began.wait(60)
    assert "of 10,000" in str([e.proto for e in test.run().get("progress")])
    next(b for b in test.button if b.label == "Stop").click().run()
    assert over.wait(60)
    assert "was stopped" in said_by(test.run())
    assert AuditStore().history() == ([], [])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(DataError("no image is left to look at"), "no image is left"), (RuntimeError("/secret"), "noted in the log")],
)
def test_a_run_that_fails_says_why_and_shows_no_trace(audit, monkeypatch, error, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("dashboard.services.audits.audit", fail)
    test = audit(view="Data set", model="b-clear", data="sheets")
    next(b for b in test.button if b.label == "Start the audit").click().run()
    wait(test, lambda said: sentence in said)
    assert "/secret" not in said_by(test)


def test_a_link_to_no_run_says_so(audit):
    assert "There is no audit" in said_by(audit(view="Data set", run="../../etc", model="b-clear"))


def test_a_model_without_clear_is_told_what_is_asked_instead(audit, monkeypatch, tmp_path):
    write_sheets(StripMill(size=(64, 64), seed=1, clear_share=0.0), 12, tmp_path / "data" / "defective")
    monkeypatch.setenv("STEEL_DATA", str(tmp_path / "data"))
    test = audit(view="Data set", model="a-six", data="defective")
    assert "no class “clear”" in said_by(test)
    assert "Start the audit" in [button.label for button in test.button]


def test_labels_that_the_model_does_not_know_are_told_before_an_audit_is_started(audit):
    test = audit(view="Data set", model="a-six", data="sheets")
    assert "labels clear are unknown to this checkpoint" in test.error[0].value.replace("\\", "")
    assert "Start the audit" not in [button.label for button in test.button]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("evidence for a shortcut", "takes a harmless white stain for a sign of clear"),
        ("evidence against", "turns more verdicts"),
        ("not enough data", "too few"),
    ],
)
def test_a_kept_run_is_shown_with_verdict_interval_and_what_could_be_missed(audit, verdict, words):
    name = new_run_name()
    AuditStore().add(name, "sheets", 60.0, [report(verdict)])
    test = audit(view="Data set", run=name, model="b-clear", data="sheets")
    said = said_by(test).replace("\\", "")
    assert f"{verdict[0].upper()}{verdict[1:]}" in said and words in said
    assert "95 %: +15.0 % to +40.0 %" in said
    assert [metric.value for metric in test.metric] == ["30.0 %", "2.0 %", "+28.0 %", "5.0 %"]
    assert "15.0 % or more would have been found 4 times in 5" in said
    assert "3 of 60 images are no evidence" in said
    assert "need the very model" in said  # the model of this run is not here, so there are no pairs
    assert not test.exception and not test.error


# History and cure


def test_the_history_lists_runs_with_links_and_hides_none_behind_a_bad_file(audit, tmp_path):
    store = AuditStore()
    store.add("20260101T000000-00000001", "sheets", 60.0, [report()])
    store.add("20260102T000000-00000002", "sheets", 60.0, [report("not enough data")])
    (store.folder / "20260103T000000-00000003.json").write_text("{")
    test = audit(view="History", model="b-clear")
    said = said_by(test)
    assert said.index("Not enough data") < said.index("Evidence for a shortcut")
    assert "20260103T000000" in said and str(tmp_path) not in said
    links = [link.proto.query_string for link in test.get("page_link") if "run=" in link.proto.query_string]
    assert "run=20260102T000000-00000002" in links[0] and "run=20260101T000000-00000001" in links[1]


def test_an_empty_history_says_how_to_begin(audit):
    assert "No audit was finished here yet" in said_by(audit(view="History", model="b-clear"))


def test_the_cure_names_its_command_and_says_when_there_is_none_yet(audit):
    test = audit(view="Cure", model="b-clear")
    assert "steel_core cure --checkpoint b-clear" in test.code[0].value
    assert "No cured model" in said_by(test)


def test_the_ledger_of_a_cured_model_stands_beside_the_one_it_was_made_of(audit, home, monkeypatch, tmp_path):
    def side(excess, verdict):
        return {
            "verdict": verdict,
            "flip_rate": excess,
            "control_flip_rate": 0.0,
            "excess": excess,
            "excess_interval": [excess - 0.01, excess + 0.05],
            "excess_n": 112,
            "accuracy": 0.98,
            "accuracy_interval": [0.957, 0.991],
            "n": 301,
            "escapes": {"defect": {"share": 0.04, "interval": [0.02, 0.08], "n": 151}},
            "ece": 0.016,
            "evidence_inside_stain": {"stain": 0.3},
        }

    summary = {"before": side(0.214, "evidence for a shortcut"), "after": side(0.018, "evidence against")}
    for name in ("b-clear",):
        (tmp_path / "models" / name).mkdir(parents=True)
        for file in (home / "models" / name).iterdir():
            (tmp_path / "models" / name / file.name).write_bytes(file.read_bytes())
    write_model(
        tmp_path / "models" / "b-clear-cured",
        ("clear", "defect"),
        training={"cure": {"of": "b-clear", "of_hash": "", "audit": summary}},
    )
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path / "models"))
    test = audit(view="Cure", model="b-clear")
    said = said_by(test).replace("\\", "")
    assert "b-clear before, b-clear-cured after" in said
    assert [metric.value for metric in test.metric] == ["21.4 %", "1.8 %"]
    assert "Evidence for a shortcut" in said and "Evidence against" in said
    table = test.table[0].value
    escapes = table[table["Figure"] == "Escapes of defect"].iloc[0]
    assert escapes["After"] == "4.0 % (2.0 % to 8.0 %), n = 151"
    beside = audit(model="b-clear", data="sheets")
    assert "The same pictures, seen by b\\-clear\\-cured" in said_by(beside)


def test_without_model_or_data_the_page_says_what_to_do(audit, monkeypatch):
    monkeypatch.delenv("STEEL_DATA")
    monkeypatch.setattr("dashboard.services.datasets.SHIPPED", Path("nowhere"))
    assert "no sheet with a defect" in said_by(audit(model="b-clear"))
    assert "No data set is here" in said_by(audit(model="b-clear", view="Data set"))
    monkeypatch.delenv("STEEL_MODELS")
    assert "No model is here yet" in said_by(audit())
