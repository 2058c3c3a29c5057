"""Methods: the table says what was measured, on how many images, and which methods fail."""

import gzip
import json
import shutil

import pandas as pd
import pytest
from helpers.dash import words

from dashboard import services

ROWS = [
    (f"sheet-{i:06d}.png", i, label, f"g{i}", method, metric, value + i / 1000, float("nan"))
    for i, label in ((1, "crazing"), (2, "patches"), (4, "crazing"))
    for method, metric, value in (("grad-cam", "dice", 0.4), ("random", "dice", 0.2), ("sobel", "dice", 0.3))
]
COLUMNS = ["file", "row", "class", "group", "method", "metric", "value", "chance"]


def figure(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "lift": None, "n": 3}


@pytest.fixture
def measured(home):
    """A model whose maps were measured; the fixture of a session is left as it was."""
    folder = home / "models" / "e-measured"
    shutil.copytree(home / "models" / "a-six", folder)
    card = json.loads((folder / "card.json").read_text())
    methods = {
        "grad-cam": {"dice": figure(0.4), "randomised-model": figure(0.2)},
        "sobel": {"dice": figure(0.3), "randomised-model": figure(1.0)},
        "random": {"dice": figure(0.2)},
    }
    card["quality"] = {
        "sheets": {
            "data": "sheets",
            "evidence": "masks",
            "date": "2026-01-02T03:04:05+00:00",
            "code_version": "0",
            "images": 3,
            "methods": methods,
            "quantiles": {"grad-cam": {"road": [0.0, 0.1, 0.2]}},
            "agreement": [
                {"a": "grad-cam", "b": "sobel", "n": 3.0}
                | {"spearman": 0.61, "spearman_low": 0.5, "spearman_high": 0.7}
                | {"top_iou": 0.2, "top_iou_low": 0.1, "top_iou_high": 0.3},
                {"a": "grad-cam", "b": "random", "n": 3.0}
                | {"spearman": -0.04, "spearman_low": -0.1, "spearman_high": 0.1}
                | {"top_iou": 0.05, "top_iou_low": 0.0, "top_iou_high": 0.1},
            ],
            "seconds": {"grad-cam": 0.02, "sobel": 0.001, "random": 0.001},
        }
    }
    (folder / "card.json").write_text(json.dumps(card))
    rows = pd.DataFrame(ROWS, columns=COLUMNS).to_csv(index=False)
    (folder / "quality-sheets.csv.gz").write_bytes(gzip.compress(rows.encode()))
    yield "e-measured"
    shutil.rmtree(folder)


def test_a_data_set_that_shares_the_name_alone_stands_in_for_no_measured_image(app, home, measured):
    """The names of drawn sheets are the same in every set: those of another set are not shown as the measured ones."""
    card = home / "models" / measured / "card.json"
    here = services.datasets.named("sheets", ["sheet-000001.png"])
    assert services.quality.images_behind(measured, "sheets", ["sheet-000001.png"]) == here != []
    card.write_text(json.dumps(json.loads(card.read_text()) | {"data": {"name": "sheets", "images": 2000}}))
    services.models.card.clear()
    assert services.quality.images_behind(measured, "sheets", ["sheet-000001.png"]) == []
    assert "These are 3 of the 2,000 images that the model was made with" in words(app("methods", model=measured))


def test_a_model_that_was_not_measured_says_how_to_measure(app):
    test = app("methods", model="a-six")
    assert "not measured yet" in words(test) and "python -m steel_core quality" in test.code[0].value
    assert "Beside a published study" in words(test) and not test.exception


def test_the_best_method_stands_beside_the_controls(app, measured):
    test = app("methods", model=measured, data="sheets")
    said = words(test)
    assert not test.error and not test.exception
    assert "**Grad\\-CAM** reaches the highest Dice, 0.40 (0.30 to 0.50)" in said
    assert "0.20 (0.10 to 0.30) for random" in said and "0.30 (0.20 to 0.40) for edges" in said
    assert "3 images of sheets with masks" in said and "no race" in said
    assert "the intervals overlap" in said and "3 images are a small sample" in said
    table = test.dataframe[0].value.set_index("Method")
    assert table.loc["Grad-CAM", "Explains this model"] == "yes"
    assert table.loc["Control: edges", "Explains this model"] == "no, it survives"
    assert table.loc["Control: random", "Explains this model"] == "not clear"
    assert table.loc["Grad-CAM", "Dice ↑"] == "0.40 (0.30 to 0.50)" and table.loc["Grad-CAM", "Images a second"] == "50"


def test_the_images_behind_a_cell_are_shown_and_lead_to_their_maps(app, measured):
    test = app("methods", model=measured, data="sheets")
    test.session_state["quality"] = {"selection": {"rows": [], "columns": [], "cells": [(0, "Dice ↑")]}}
    test.run()
    assert "Behind Dice" in words(test) and "Best" in words(test)
    links = [link.proto for link in test.get("page_link")]
    assert [link.label.replace("\\", "") for link in links] == [f"sheet-{i:06d}.png" for i in (4, 2, 1)]
    assert all(link.page == "explain" and "methods=Grad-CAM" in link.query_string for link in links)


def test_a_measured_model_carries_badges_under_its_maps(app, measured):
    from helpers.dash import finished

    test = finished(
        app("explain", model=measured, data="sheets", image="images/sheet-000001.png", methods="Grad-CAM", slow="")
    )
    said = words(test)
    assert "shows what the model learnt" in said and "more faithful than" in said and not test.error
    assert "was not measured yet" not in said


def test_agreement_names_the_methods_that_are_farthest_apart(app, measured):
    said = words(app("methods", model=measured, data="sheets"))
    assert "Farthest apart: Grad-CAM and Control: random, -0.04" in said
    assert "n 3; intervals" in said


def test_the_headline_tells_what_the_best_map_keeps_of_a_model_that_forgot(app, measured):
    assert "is 0.20 (0.10 to 0.30) n 3: 0 shows the model alone" in words(app("methods", model=measured, data="sheets"))


def test_damaged_values_get_a_sentence(app, home, measured):
    (home / "models" / measured / "quality-sheets.csv.gz").write_bytes(b"no archive")
    services.quality.rows.clear()
    test = app("methods", model=measured, data="sheets")
    assert "are damaged" in test.error[0].value and not test.exception
