"""What a user carries away: words, page, numbers."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.small import make_checkpoint, steel_image
from PIL import Image

from steel_core import render
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.reports import image_report


@pytest.fixture(scope="module")
def predictor(checkpoint_folder):
    return Predictor.load(checkpoint_folder, "cpu")


@pytest.fixture(scope="module")
def prediction(predictor):
    return predictor.predict([steel_image()])[0]


def test_the_verdict_is_a_word_and_a_probability(prediction):
    sure = replace(prediction, pred="clear", outcome="clear", probs={"clear": 0.934, "defect": 0.066})
    assert image_report.describe_verdict(sure) == "Clear (93.4 %)"
    unsure = replace(sure, outcome="refer", threshold=0.95)
    assert image_report.describe_verdict(unsure).startswith("Refer to a person: clear (93.4 %) is below the 95.0 %")


def test_a_map_is_drawn_on_the_scale_of_the_checkpoint(predictor):
    image = steel_image()
    attribution = predictor.explain(image, "grad-cam", "defect")
    panel = image_report.draw_panel(predictor, image, attribution)
    np.testing.assert_array_equal(panel.picture, render.overlay(image, map_evidence(attribution), 0.01))
    assert "defect" in panel.caption
    assert "not comparable" not in panel.caption


def test_a_map_without_a_fixed_scale_says_so(tmp_path):
    bare = Predictor.load(make_checkpoint(tmp_path / "bare", map_scale={}), "cpu")
    image = steel_image()
    attribution = bare.explain(image, "grad-cam")
    assert "not comparable" in image_report.draw_panel(bare, image, attribution).caption
    assert image_report.result_to_json(bare, bare.predict([image])[0], [attribution])["maps"]["grad-cam"]["scale"] > 0


def test_the_page_and_the_numbers(predictor, prediction):
    image = steel_image()
    maps = [predictor.explain(image, method) for method in ("grad-cam", "guided-grad-cam")]
    with Image.open(io.BytesIO(image_report.render_image_png(predictor, image, prediction, maps))) as page:
        assert page.width == 1600
        assert page.height > 400
    numbers = json.loads(json.dumps(image_report.result_to_json(predictor, prediction, maps)))
    assert numbers["outcome"] == prediction.outcome
    for attribution in maps:
        made = numbers["maps"][attribution.method]
        assert made["target"] == prediction.pred
        assert made["scale_fixed_on_validation"]
        summary = render.summarise_map(map_evidence(attribution), made["scale"])
        assert made["evidence"]["sentence"] == summary.sentence
        assert made["evidence"]["half_area"] == pytest.approx(summary.half_area)


def test_two_classes_of_one_method_are_both_in_the_numbers(predictor, prediction):
    maps = [predictor.explain(steel_image(), "grad-cam", name) for name in predictor.classes]
    maps.append(predictor.explain(steel_image(), "shap", "defect", against="clear"))
    maps_json = image_report.result_to_json(predictor, prediction, maps)["maps"]
    assert list(maps_json) == ["grad-cam for clear", "grad-cam for defect", "shap"]
    assert maps_json["shap"]["against"] == "clear"


def test_an_unfamiliar_picture_gets_no_class(prediction):
    assert image_report.describe_verdict(replace(prediction, outcome="unfamiliar")).startswith("Unfamiliar")
