"""What a user carries away: words, page, numbers."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.small import make_checkpoint, steel_image
from PIL import Image

from steel_core import render
from steel_core.inference.predictor import Predictor, evidence
from steel_core.reports import image_report


@pytest.fixture(scope="module")
def predictor(checkpoint_folder):
    return Predictor.load(checkpoint_folder, "cpu")


@pytest.fixture(scope="module")
def prediction(predictor):
    return predictor.predict([steel_image()])[0]


def test_the_verdict_is_a_word_and_a_probability(prediction):
    sure = replace(prediction, pred="clear", outcome="clear", probs={"clear": 0.934, "defect": 0.066})
    assert image_report.verdict_sentence(sure) == "Clear (93.4 %)"
    unsure = replace(sure, outcome="refer", threshold=0.95)
    assert image_report.verdict_sentence(unsure).startswith("Refer to a person: clear (93.4 %) is below the 95.0 %")


def test_a_map_is_drawn_on_the_scale_of_the_checkpoint(predictor):
    image = steel_image()
    found = predictor.explain(image, "grad-cam", "defect")
    panel = image_report.panel(predictor, image, found)
    np.testing.assert_array_equal(panel.picture, render.overlay(image, evidence(found), 0.01))
    assert "defect" in panel.caption
    assert "not comparable" not in panel.caption


def test_a_map_without_a_fixed_scale_says_so(tmp_path):
    bare = Predictor.load(make_checkpoint(tmp_path / "bare", map_scale={}), "cpu")
    image = steel_image()
    found = bare.explain(image, "grad-cam")
    assert "not comparable" in image_report.panel(bare, image, found).caption
    assert image_report.result_json(bare, bare.predict([image])[0], [found])["maps"]["grad-cam"]["scale"] > 0


def test_the_page_and_the_numbers(predictor, prediction):
    image = steel_image()
    maps = [predictor.explain(image, method) for method in ("grad-cam", "guided-grad-cam")]
    with Image.open(io.BytesIO(image_report.report_png(predictor, image, prediction, maps))) as page:
        assert page.width == 1600
        assert page.height > 400
    numbers = json.loads(json.dumps(image_report.result_json(predictor, prediction, maps)))
    assert numbers["outcome"] == prediction.outcome
    for found in maps:
        made = numbers["maps"][found.method]
        assert made["target"] == prediction.pred
        assert made["scale_fixed_on_validation"]
        told = render.summary(evidence(found), made["scale"])
        assert made["evidence"]["sentence"] == told.sentence
        assert made["evidence"]["half_area"] == pytest.approx(told.half_area)


def test_two_classes_of_one_method_are_both_in_the_numbers(predictor, prediction):
    maps = [predictor.explain(steel_image(), "grad-cam", name) for name in predictor.classes]
    maps.append(predictor.explain(steel_image(), "shap", "defect", against="clear"))
    told = image_report.result_json(predictor, prediction, maps)["maps"]
    assert list(told) == ["grad-cam for clear", "grad-cam for defect", "shap"]
    assert told["shap"]["against"] == "clear"


def test_an_unfamiliar_picture_gets_no_class(prediction):
    assert image_report.verdict_sentence(replace(prediction, outcome="unfamiliar")).startswith("Unfamiliar")
