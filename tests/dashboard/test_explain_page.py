"""Explain: what is asked lies in the URL, and what is shown is what was asked."""

import dataclasses
import json
import threading

import numpy as np
import pytest
from helpers.dash import finished, png, upload, words

from dashboard import services
from steel_core.data.images.read import encode_png
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import TiledPrediction, crop_tile, predict_images
from steel_core.types import Attribution, Box

IMAGE = {"data": "sheets", "image": "images/sheet-000001.png"}


def box(test, label):
    return next(box for box in test.selectbox if box.label == label)


def explain(app, **query):
    return finished(app("explain", **({"model": "a-six"} | IMAGE | query)))


def test_without_an_image_it_offers_samples_that_lead_back_here(app):
    test = app("explain", model="a-six")
    assert "Or try a sample" in words(test)
    assert {link.proto.page for link in test.get("page_link")} == {"explain"}


def test_cheap_methods_and_shap_come_by_default_and_every_method_can_be_chosen(app):
    test = explain(app)
    said = words(test)
    assert not test.error and not test.exception
    assert said.count("How this map was made") == 3
    quick, slow = services.maps.methods()
    assert {"grad-cam", "random", "sobel"} <= set(quick) and {"shap", "lime", "occlusion"} <= set(slow)
    assert "LIME about" in said  # the expected time stands there before it is chosen
    assert "its noise: " in said and "Rough" not in said


def test_methods_classes_and_contrast_are_read_from_the_url(app):
    test = explain(
        app, methods=["Grad-CAM", "Control: edges"], slow="", classes=["crazing", "patches"], against="clear"
    )
    said = words(test)
    assert "For **crazing**" in said and "For **patches**" in said  # "clear" is no class of this model
    assert said.count("How this map was made") == 4
    test = explain(app, methods="Grad-CAM", slow="", classes="crazing", against="patches")
    assert "For **crazing** rather than **patches**" in words(test)
    assert test.query_params["against"] == "patches" and test.query_params["classes"] == "crazing"


def test_a_choice_goes_into_the_url(app):
    test = explain(app, slow="", methods="Grad-CAM")
    assert "against" not in test.query_params
    box(test, "Rather than").select("patches").run()
    assert test.query_params["against"] == "patches"
    layer = box(test, "Layer of Grad-CAM")
    other = next(option for option in layer.options if "usual" not in option)
    layer.select_index(layer.options.index(other)).run()
    assert "layer" in test.query_params and "not comparable" in words(test)  # only the usual layer has a fixed scale
    assert not test.error and not test.exception


def test_a_doubtful_image_begins_with_the_contrast(app):
    test = explain(app, model="b-clear", slow="", methods="Grad-CAM")
    assert " rather than **" in words(test)


def test_opacity_and_threshold_compute_nothing(app, monkeypatch):
    test = explain(app)

    def fail(*_, **__):
        raise AssertionError("computed again")

    for name in ("explain", "refine", "predict"):
        monkeypatch.setattr(f"steel_core.inference.predictor.Predictor.{name}", fail)
    test.slider(key="opacity").set_value(0.2).run()
    test.slider(key="threshold").set_value(0.5).run()
    assert not test.error and not test.exception


def test_another_background_is_another_map(app, monkeypatch):
    usual = words(explain(app, methods="", slow="SHAP (expected gradients)"))
    other = explain(app, methods="", slow="SHAP (expected gradients)", background="grey")
    assert "one plain sheet of mean grey" in words(other)
    assert "one plain sheet of mean grey" not in usual and not other.error
    assert "Effect of the background" in words(other) and "Effect of the background" not in usual
    counted = []
    monkeypatch.setattr(services.maps, "compare_methods", counted.append)
    other.slider(key="opacity").set_value(0.2).run()
    assert "Effect of the background" in words(other) and not counted and not other.exception, "counted once"
    assert words(other).count("How this map was made") == 2


def test_side_by_side_with_another_model_that_lacks_the_class(app):
    test = explain(app, slow="", methods="Grad-CAM", beside="another model", second="b-clear")
    said = words(test)
    assert "This model does not know" in said and not test.error and not test.exception
    test = explain(app, slow="", methods="Grad-CAM", beside="another model", second="c-bare")
    assert words(test).count("How this map was made") == 2


def test_side_by_side_with_another_image(app):
    test = explain(app, slow="", methods="Grad-CAM", beside="another image", second="images/sheet-000002.png")
    assert words(test).count("How this map was made") == 2 and "sheet\\-000002\\.png" in words(test)
    bad = explain(app, slow="", methods="Grad-CAM", beside="another image", second="images/sheet-000003.png")
    assert "sheet\\-000003\\.png" in bad.error[0].value and words(bad).count("How this map was made") == 1


def test_a_bad_upload_gets_its_sentence(app):
    test = upload(app("explain", model="a-six"), ("note.txt", b"hello"))
    assert "this is text" in test.error[0].value and not test.exception


def test_an_upload_can_be_explained(app):
    test = finished(upload(app("explain", model="a-six"), ("a.png", png())))
    assert "a\\.png" in words(test) and not test.error


def test_no_method_or_no_class_says_what_to_do(app):
    assert "Choose at least one method" in words(explain(app, methods="", slow=""))


def test_a_method_that_fails_shows_its_sentence_beside_the_others(app, monkeypatch):
    refine = Predictor.refine

    def fail(self, image, method, *rest, **more):
        if method == "shap":
            raise services.datasets.ImageError("no such map")
        return refine(self, image, method, *rest, **more)

    monkeypatch.setattr("steel_core.inference.predictor.Predictor.refine", fail)
    test = explain(app, image="images/sheet-000007.png")  # of no other test: maps are kept for a session
    assert [e.value for e in test.error] == ["no such map"]
    assert words(test).count("How this map was made") == 2


# Strips


@pytest.fixture
def long_strip(monkeypatch, tmp_path):
    """A data set of one strip, 64 x 640."""
    folder = tmp_path / "data" / "strips" / "defect"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(90, 150, (64, 640), dtype=np.uint8)
    (folder / "long.png").write_bytes(encode_png(pixels))
    monkeypatch.setenv("STEEL_DATA", str(tmp_path / "data"))
    return {"data": "strips", "image": "defect/long.png", "model": "c-bare"}


def test_of_a_strip_the_worst_tile_is_explained_and_its_place_is_told(app, long_strip, monkeypatch):
    explained = []
    refine = Predictor.refine
    monkeypatch.setattr(
        Predictor, "refine", lambda self, image, *a, **b: explained.append(image.pixels) or refine(self, image, *a, **b)
    )
    test = explain(app, methods="Grad-CAM", slow="", **long_strip)
    said = words(test)
    assert not test.error and not test.exception
    model = services.models.predictor("c-bare")
    image = services.datasets.find(services.datasets.dataset("strips"), "defect/long.png").read()
    tiled = predict_images(model, [image])[0]
    tile = tiled.tiles[tiled.worst]
    assert "Only one tile is explained here" in said
    assert f"this is the worst, number {tiled.worst + 1}, {tile.xmin} pixels from the left" in said
    assert [pixels.shape for pixels in explained] == [(64, 64)]
    np.testing.assert_array_equal(explained[0], crop_tile(image, tile).pixels)
    other = explain(app, methods="Grad-CAM", slow="", beside="another model", second="b-clear", **long_strip)
    assert words(other).count("Only one tile is explained here") == 2


def test_inspect_judges_a_strip_once(app, long_strip, monkeypatch):
    calls = []
    predict = Predictor.predict
    monkeypatch.setattr(
        Predictor, "predict", lambda self, images, *more: calls.append(len(images)) or predict(self, images, *more)
    )
    test = app("inspect", **long_strip)
    assert "Tile by tile" in words(test) and "13 tiles:" in words(test)
    assert [n for n in calls if n > 1] == [13]


# From map to region


@pytest.fixture
def seen(home):
    model = Predictor.load(home / "models" / "a-six", "cpu")
    path = home / "data" / "sheets" / "images" / "sheet-000001.png"
    look = services.images.take_first_look(model, services.datasets.Source(path.name, "k", path))
    return model, look


def blob(model, look):
    values = np.zeros((64, 64), np.float32)
    values[8:16, 40:56] = 1.0
    values[0, 0] = -1.0
    return Attribution(values, "grad-cam", model.classes[0], "", "", {}, None, look.prediction.image_sha256, model.hash)


def test_without_a_rule_the_region_is_what_reaches_half_of_the_strongest_evidence(seen):
    model, look = seen
    marked = services.maps.mark_region(model, look, blob(model, look))
    (box,) = marked.region.boxes
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == (40, 8, 56, 16) and not marked.own
    assert marked.sentence == "100 % of the positive evidence lies in 3 % of the image, mostly at the upper right."
    content = json.loads(services.maps.region_json(model, look, blob(model, look), marked))
    assert content["boxes"][0]["xmax"] == 56 and content["area"] == pytest.approx(128 / 4096)
    assert services.files.png(marked.region.mask).startswith(b"\x89PNG")


def test_boxes_in_the_tile_of_a_strip_lie_where_they_lie_in_the_strip(seen):
    model, look = seen
    tile = dataclasses.replace(
        look, tiled=TiledPrediction((Box("", 100, 5, 164, 69),), look.tiled.predictions, 70, 640)
    )
    marked = services.maps.mark_region(model, tile, blob(model, look))
    content = json.loads(services.maps.region_json(model, tile, blob(model, look), marked))
    assert content["boxes"] == [
        {"label": marked.region.boxes[0].label, "xmin": 140, "ymin": 13, "xmax": 156, "ymax": 21}
    ]
    assert (content["left"], content["top"], content["width"], content["height"]) == (100, 5, 64, 64)


def test_a_map_without_positive_evidence_has_no_region(seen):
    model, look = seen
    made = blob(model, look)
    made.values[:] = -1
    marked = services.maps.mark_region(model, look, made)
    assert not marked.region.boxes and marked.sentence.startswith("No region")


# Workers


def steps(stop, count):
    for number in range(count):
        yield number
        stop.wait(0.01)


def test_a_job_gives_its_first_step_and_then_its_last():
    stop = threading.Event()
    job = services.jobs.Refinement(lambda: steps(stop, 20))
    first, _, _ = job.look(10)
    assert first is not None
    stop.set()
    job._future.result(30)
    assert job.look(0) == (19, True, False)


def test_a_job_that_nobody_asks_for_stops_and_begins_again_when_asked(monkeypatch):
    stop = threading.Event()
    job = services.jobs.Refinement(lambda: steps(stop, 10_000))
    job.look(10)
    job.give_up()
    job._future.result(30)
    assert job._latest < 9_999
    stop.set()
    assert job.look(0)[1] is False
    job._future.result(60)
    assert job.look(0) == (9_999, True, False)


def test_a_job_hands_on_what_its_worker_met():
    def fail():
        raise services.datasets.DataError("no steel")
        yield

    job = services.jobs.Refinement(fail)
    with pytest.raises(services.datasets.DataError, match="no steel"):
        job._first.wait(30) and job._future.exception(30) and job.look(0)
