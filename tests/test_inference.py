"""The Predictor: any size, any batch, refer below the threshold, provenance."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.small import make_checkpoint, steel_image
from scipy.special import softmax

from steel_core.data.transforms import Preprocessing
from steel_core.errors import UsageError
from steel_core.inference import Predictor
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
    found = predictor.predict([image])[0]
    np.testing.assert_allclose(list(found.probs.values()), softmax(logits[0].astype(float)), rtol=1e-4)
    assert found.pred == predictor.classes[int(logits.argmax())]


def test_a_batch_of_many_sizes_equals_one_by_one(predictor):
    images = [
        steel_image(h, w, seed=i) for i, (h, w) in enumerate([(64, 64), (200, 64), (64, 90), (30, 30), (64, 64)] * 4)
    ]
    together = predictor.predict(images)
    for image, found in zip(images, together, strict=True):
        alone = predictor.predict([image])[0]
        np.testing.assert_allclose(found.logits, alone.logits, rtol=1e-4, atol=1e-5)
        assert found.image_sha256 == image.sha256


def test_no_images_give_no_predictions(predictor):
    assert predictor.predict([]) == []


def test_below_the_threshold_is_referred(tmp_path):
    folder = make_checkpoint(tmp_path / "strict", thresholds={"clear": 0.99, "defect": 0.99})
    found = Predictor.load(folder, "cpu").predict([steel_image()])[0]
    assert found.confidence < 0.99
    assert found.outcome == "refer"
    assert found.pred in ("clear", "defect")
    lax = make_checkpoint(tmp_path / "lax", thresholds={"clear": 0.0, "defect": 0.0})
    assert Predictor.load(lax, "cpu").predict([steel_image()])[0].outcome == found.pred


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
    found = lax.predict([SteelImage(pixels, "blank.png", "0" * 64)])[0]
    assert found.outcome == "refer"
    assert why in found.note
    assert lax.predict([steel_image()])[0].outcome != "refer"


def test_temperature_softens(tmp_path, predictor):
    soft = Predictor.load(make_checkpoint(tmp_path / "soft", temperature=5.0), "cpu").predict([steel_image()])[0]
    assert 0.5 < soft.confidence < predictor.predict([steel_image()])[0].confidence


def test_sigmoid_probabilities_need_not_sum_to_one(tmp_path):
    found = Predictor.load(make_checkpoint(tmp_path / "each", head="sigmoid"), "cpu").predict([steel_image()])[0]
    np.testing.assert_allclose(list(found.probs.values()), 1 / (1 + np.exp(-found.logits.astype(float))), rtol=1e-6)


def test_eight_and_sixteen_bits_score_alike(predictor):
    image = steel_image()
    deep = SteelImage(image.pixels.astype(np.uint16) * 257, "deep", "0" * 64)
    one, other = (list(predictor.predict([i])[0].probs.values()) for i in (image, deep))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_progress_counts_to_the_end(predictor):
    seen = []
    predictor.predict([steel_image(seed=i) for i in range(11)], lambda done, of: seen.append((done, of)))
    assert seen[-1] == (11, 11)
    assert seen == sorted(seen)


def test_explanation_carries_its_provenance(predictor):
    image = steel_image(100, 64)
    found = predictor.explain(image, "shap", "clear", seed=3, samples=10)
    assert found.values.shape == (100, 64)
    assert found.provenance() | {"seconds": 0} == {
        "method": "shap", "target": "clear", "layer": "", "baseline": "random grey", "parameters": {"samples": 10},
        "seed": 3, "image_sha256": image.sha256, "checkpoint": predictor.hash, "seconds": 0, "shape": [100, 64],
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
    for expected, found in zip(serial * 2, parallel, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


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
