"""The Predictor: any size, any batch, refer below the threshold, provenance."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small import make_checkpoint, steel_image
from scipy.special import softmax

from steel_core.data.transforms import Preprocessing
from steel_core.errors import UsageError
from steel_core.inference.backgrounds import draw_background
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import load_checkpoint
from steel_core.types import SteelImage


@pytest.fixture(scope="module")
def predictor(checkpoint_folder):
    return Predictor.load(checkpoint_folder, "cpu")


def test_probabilities_by_hand(predictor, checkpoint_folder):
    image = steel_image()
    grey = image.pixels.astype(np.float32) / 255
    inputs = torch.from_numpy((grey - 0.5) / 0.2).expand(1, 3, 64, 64)
    with torch.no_grad():
        logits = load_checkpoint(checkpoint_folder).model(inputs).numpy()
    result = predictor.predict([image])[0]
    np.testing.assert_allclose(list(result.probs.values()), softmax(logits[0].astype(float)), rtol=1e-4)
    assert result.pred == predictor.classes[int(logits.argmax())]


def test_a_batch_of_many_sizes_equals_one_by_one(predictor):
    images = [
        steel_image(h, w, seed=i) for i, (h, w) in enumerate([(64, 64), (200, 64), (64, 90), (30, 30), (64, 64)] * 4)
    ]
    together = predictor.predict(images)
    for image, result in zip(images, together, strict=True):
        alone = predictor.predict([image])[0]
        np.testing.assert_allclose(result.logits, alone.logits, rtol=1e-4, atol=1e-5)
        assert result.image_sha256 == image.sha256


def test_no_images_give_no_predictions(predictor):
    assert predictor.predict([]) == []


def test_below_the_threshold_is_referred(tmp_path):
    folder = make_checkpoint(tmp_path / "strict", thresholds={"clear": 0.99, "defect": 0.99})
    result = Predictor.load(folder, "cpu").predict([steel_image()])[0]
    assert result.confidence < 0.99
    assert result.outcome == "refer"
    assert result.pred in ("clear", "defect")
    lax = make_checkpoint(tmp_path / "lax", thresholds={"clear": 0.0, "defect": 0.0})
    assert Predictor.load(lax, "cpu").predict([steel_image()])[0].outcome == result.pred


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.full((64, 64), 255, np.uint8), "nearly alike"),
        (np.full((64, 64), 118, np.uint8), "nearly alike"),
        (np.where(np.arange(64 * 64).reshape(64, 64) % 30 == 0, 200, 255).astype(np.uint8), "pure white"),
        (np.arange(9, dtype=np.uint8).reshape(3, 3) * 20, "only 3 x 3 pixels"),
    ],
)
def test_a_picture_that_shows_nothing_is_referred_however_sure_the_model_is(tmp_path, pixels, why):
    lax = Predictor.load(make_checkpoint(tmp_path / "lax", thresholds={"clear": 0.0, "defect": 0.0}), "cpu")
    result = lax.predict([SteelImage(pixels, "blank.png", "0" * 64)])[0]
    assert result.outcome == "refer"
    assert why in result.note
    assert lax.predict([steel_image()])[0].outcome != "refer"


def test_temperature_softens(tmp_path, predictor):
    soft = Predictor.load(make_checkpoint(tmp_path / "soft", temperature=5.0), "cpu").predict([steel_image()])[0]
    assert 0.5 < soft.confidence < predictor.predict([steel_image()])[0].confidence


def test_sigmoid_probabilities_need_not_sum_to_one(tmp_path):
    result = Predictor.load(make_checkpoint(tmp_path / "each", head="sigmoid"), "cpu").predict([steel_image()])[0]
    np.testing.assert_allclose(list(result.probs.values()), 1 / (1 + np.exp(-result.logits.astype(float))), rtol=1e-6)


def test_eight_and_sixteen_bits_score_alike(predictor):
    image = steel_image()
    deep = SteelImage(image.pixels.astype(np.uint16) * 257, "deep", "0" * 64)
    one, other = (list(predictor.predict([i])[0].probs.values()) for i in (image, deep))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_progress_counts_to_the_end(predictor):
    seen = []
    predictor.predict([steel_image(seed=i) for i in range(11)], lambda what, done, of: seen.append((done, of)))
    assert seen[-1] == (11, 11)
    assert seen == sorted(seen)


def test_explanation_carries_its_provenance(predictor):
    image = steel_image(100, 64)
    result = predictor.explain(image, "shap", "clear", seed=3, samples=10)
    assert result.values.shape == (100, 64)
    assert result.provenance() | {"seconds": 0} == {
        "method": "shap", "target": "clear", "against": "", "noise": result.noise and round(result.noise, 4),
        "layer": "", "baseline": "random grey", "parameters": {"samples": 10}, "seed": result.seed,
        "image_sha256": image.sha256, "checkpoint": predictor.hash, "seconds": 0, "shape": [100, 64],
    }  # fmt: skip
    assert predictor.explain(image, "grad-cam").layer == "features"


def test_the_default_target_is_the_prediction(predictor):
    image = steel_image()
    assert predictor.explain(image, "grad-cam").target == predictor.predict([image])[0].pred


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "unknown explainer"),
        ({"method": "grad-cam", "target": "rust"}, "unknown class"),
        ({"method": "shap", "speed": 3}, "expected parameters"),
        ({"method": "shap", "background": "sky"}, "unknown background"),
        ({"method": "grad-cam", "target": "clear", "against": "clear"}, "two classes"),
        ({"method": "grad-cam", "layer": "roof"}, "layer 'roof'"),
    ],
)
def test_a_wrong_call_is_a_sentence(predictor, arguments, message):
    with pytest.raises(UsageError, match=message):
        predictor.explain(steel_image(), **arguments)


def test_an_unknown_device_is_a_sentence(checkpoint):
    with pytest.raises(UsageError, match="device"):
        Predictor(checkpoint, "tpu")


def test_threads_share_one_predictor(predictor):
    jobs = [(seed, method) for seed in range(4) for method in ("grad-cam", "guided-grad-cam", "shap")]

    def run(job):
        seed, method = job
        extra = {"samples": 8} if method == "shap" else {}
        return predictor.explain(steel_image(seed=seed), method, "defect", **extra).values

    serial = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(run, jobs * 2))
    for expected, result in zip(serial * 2, parallel, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("height", "width", "expected", "squeezed"),
    [
        (64, 64, (64, 64), False), (128, 128, (64, 64), False),
        (480, 640, (64, 85), False), (640, 480, (85, 64), False),
        (10, 20, (64, 128), False), (64, 1000, (64, 128), True),
        (1, 1, (64, 64), False),
    ],
)  # fmt: skip
def test_grid_keeps_proportions(height, width, expected, squeezed):
    assert Preprocessing((64, 64), 0, 1).grid_size(height, width) == (expected, squeezed)


def test_a_squeezed_strip_says_so(predictor):
    assert "squeezed" in predictor.predict([steel_image(40, 400)])[0].note


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(checkpoint_folder, predictor):
    on_gpu = Predictor.load(checkpoint_folder, "cuda")
    image = steel_image()
    np.testing.assert_allclose(
        on_gpu.predict([image])[0].logits, predictor.predict([image])[0].logits, rtol=1e-3, atol=1e-3
    )
    for method in ("grad-cam", "guided-grad-cam"):
        one, other = (p.explain(image, method, "clear").values for p in (on_gpu, predictor))
        assert np.linalg.norm(one - other) <= 0.02 * np.linalg.norm(other)


def test_one_pass_gives_what_single_calls_give(predictor):
    images = [steel_image(h, w, seed=i) for i, (h, w) in enumerate([(64, 64), (100, 64), (64, 64)])]
    seen = []
    result = predictor.predict_and_explain(images, lambda what, done, of: seen.append((done, of)))
    assert seen[-1] == (3, 3)
    for image, (prediction, maps) in zip(images, result, strict=True):
        alone = predictor.predict([image])[0]
        assert (prediction.name, prediction.pred, prediction.outcome) == (alone.name, alone.pred, alone.outcome)
        np.testing.assert_allclose(prediction.logits, alone.logits, rtol=1e-4, atol=1e-5)
        assert set(maps) == {"grad-cam", "guided-grad-cam"}
        for method, got in maps.items():
            expected = predictor.explain(image, method)
            assert got.provenance() | {"seconds": 0} == expected.provenance() | {"seconds": 0}
            assert np.linalg.norm(got.values - expected.values) <= 1e-3 * np.linalg.norm(expected.values)
    assert predictor.predict_and_explain([]) == []


def test_a_contrast_asks_why_one_class_and_not_the_other(predictor):
    image = steel_image()
    one, other = (predictor.explain(image, "grad-cam", name).values for name in ("clear", "defect"))
    result = predictor.explain(image, "grad-cam", "clear", against="defect")
    assert (result.target, result.against) == ("clear", "defect")
    np.testing.assert_allclose(result.values, one - other, rtol=1e-3, atol=1e-6)


def test_a_doubtful_prediction_asks_for_a_contrast(tmp_path, predictor):
    strict = Predictor.load(make_checkpoint(tmp_path / "strict", thresholds={"clear": 0.9999, "defect": 0.9999}), "cpu")
    referred = strict.predict([steel_image()])[0]
    other = next(name for name in strict.classes if name != referred.pred)
    assert strict.is_doubtful(referred)
    sure = replace(referred, outcome=referred.pred, probs={referred.pred: 0.95, other: 0.05})
    assert not strict.is_doubtful(sure)
    close = replace(sure, probs={referred.pred: 0.55, other: 0.45})
    assert strict.is_doubtful(close)


def test_backgrounds_by_name(predictor):
    image = steel_image(100, 64)
    assert list(predictor.backgrounds) == ["stored", "drawn", "grey"]
    maps = {
        name: predictor.explain(image, "shap", "clear", background=name, samples=8) for name in predictor.backgrounds
    }
    assert {name: result.baseline for name, result in maps.items()} == predictor.backgrounds
    assert np.array_equal(maps["stored"].values, predictor.explain(image, "shap", "clear", samples=8).values)
    assert not np.allclose(maps["grey"].values, maps["drawn"].values)


def test_drawn_sheets_are_as_bright_and_contrasty_as_training():
    drawn = draw_background(Preprocessing((64, 80), 0.4, 0.1)) / 255
    assert drawn.shape[1:] == (64, 80)
    assert drawn.mean() == pytest.approx(0.4, abs=0.01)
    assert drawn.std() == pytest.approx(0.1, abs=0.01)


def test_a_checkpoint_without_background_is_compared_with_draw_background(checkpoint):
    bare = Predictor(replace(checkpoint, background=None), "cpu")
    assert list(bare.backgrounds) == ["drawn", "grey"]
    assert bare.explain(steel_image(), "shap", "clear", samples=4).baseline == bare.backgrounds["drawn"]


def test_the_last_step_of_refine_is_what_explain_returns(predictor):
    image = steel_image()
    *_, last = predictor.refine(image, "shap", "clear", samples=30)
    result = predictor.explain(image, "shap", "clear", samples=30)
    assert np.array_equal(last.values, result.values)
    assert last.provenance() | {"seconds": 0} == result.provenance() | {"seconds": 0}


def test_another_layer_is_said_and_scaled_by_itself(predictor):
    image = steel_image()
    usual, earlier = predictor.explain(image, "grad-cam"), predictor.explain(image, "grad-cam", layer="features.3")
    assert (usual.layer, earlier.layer) == ("features", "features.3")
    assert predictor.map_scale(usual)[1]
    assert not predictor.map_scale(earlier)[1]
    assert predictor.layers()["features.3"] > predictor.layers()["features"]
