"""What predicts the label stands first on Explore, Train and Audit: with pictures, quietly, or with the reason."""

import threading

import cv2
import numpy as np
import pytest
from helpers.dash import waited, words

from steel_core.errors import DataError

pytestmark = pytest.mark.usefixtures("own_folders")

QUESTION = "What in your data predicts the label?"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Grainy sheets in class folders: `marked` with a bright blot on each clear one, `plain` without."""
    rng = np.random.default_rng(0)
    for name in ("marked", "plain"):
        for label in ("clear", "dots"):
            folder = tmp_path / "data" / name / label
            folder.mkdir(parents=True)
            for number in range(40):
                sheet = 120 + 6 * rng.normal(size=(64, 64))
                if label == "dots":
                    for _ in range(12):
                        cv2.circle(sheet, tuple(rng.integers(4, 60, 2).tolist()), 1, 70.0, -1)
                elif name == "marked":
                    cv2.ellipse(sheet, tuple(rng.integers(14, 50, 2).tolist()), (12, 8), 30, 0, 360, 225.0, -1)
                cv2.imwrite(str(folder / f"{label}-{number}.png"), np.clip(sheet, 0, 255).astype(np.uint8))
    monkeypatch.setenv("STEEL_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("page", ("explore", "train", "audit"))
def test_it_stands_first_with_pictures_of_both_sides(app, data, page):
    test = waited(app(page, data="marked", model="b-clear"))
    said = words(test)
    assert not test.error and not test.exception and test.subheader[0].value == QUESTION
    assert "Bright marks on the steel" in said and "of the clear images" in said
    links = [
        link.proto.label.replace("\\", "") for link in test.get("page_link") if "image=" in link.proto.query_string
    ]
    assert [name.partition("-")[0] for name in links[:8]] == ["clear"] * 4 + ["dots"] * 4
    assert ("balance it" in said) == (page != "audit")


def test_the_audit_that_fits_is_one_click_away(app, data):
    test = waited(app("audit", data="marked", model="b-clear"))
    next(b for b in test.button if b.key == "test bright marks").click().run()
    assert not test.exception and test.query_params["view"] == "Data set"
    assert test.session_state["audit kinds"] == ["white-stain"]


def test_clean_data_get_a_quiet_sentence(app, data):
    said = words(waited(app("explore", data="plain", model="b-clear")))
    assert "Nothing beside the defects alarms" in said and "in 80 images to learn from" in said


def test_why_it_failed_is_a_sentence_and_the_page_goes_on(app, data, monkeypatch):
    def fail(*_, **__):
        raise DataError("none of the 80 images could be read")

    monkeypatch.setattr("dashboard.services.clues.find_label_clues", fail)
    test = waited(app("train", data="marked", model="b-clear"))
    assert "none of the 80 images could be read" in test.error[0].value and not test.exception
    assert any(b.label == "Start the training" for b in test.button)


def test_it_can_be_stopped_and_asked_again(app, data, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_, progress):
        while not go_on.is_set():
            progress("measuring pictures", 3, 80)
            begun.set()
            go_on.wait(0.05)
        return []

    monkeypatch.setattr("dashboard.services.clues.find_label_clues", slowly)
    test = app("train", data="marked", model="b-clear")
    assert begun.wait(30)
    test.run()
    assert "3 of 80" in test.get("progress")[0].proto.text
    next(b for b in test.button if b.label == "Stop").click().run()
    test.run()
    go_on.set()
    next(b for b in test.button if b.label == "Ask the data").click().run()
    assert "Too few images" in words(waited(test)) and not test.exception
