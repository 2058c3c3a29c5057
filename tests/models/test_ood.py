"""The gate against the textbook distance, against planted outliers, and in a checkpoint."""

import dataclasses

import numpy as np
import pytest
from helpers.small import make_checkpoint, steel_image
from PIL import Image
from scipy.spatial.distance import mahalanobis

from steel_core.data.open import open_dataset
from steel_core.errors import CheckpointError, DataError
from steel_core.evaluation.ood import (
    fit_ood_gate,
    install_gate,
    load_photographs,
    measure_unfamiliar_rate,
    store_ood_gate,
)
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import load_checkpoint, save_checkpoint
from steel_core.models.ood import OODGate, fit_gate
from steel_core.types import REFER, UNFAMILIAR, SteelImage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))


def cloud(n, seed, features=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, features)) @ np.diag([5, 3, 2, 1, 1, 1.0][:features]) + 10


def test_distance_is_mahalanobis_of_the_stated_covariance():
    """scipy's distance under the covariance built from the gate's directions and its rest."""
    gate = fit_gate(cloud(400, 0), cloud(200, 1), directions=3)
    axes = gate.axes.astype(float)
    covariance = axes @ np.diag(gate.variance) @ axes.T + gate.rest * (np.eye(6) - axes @ axes.T)
    inverse = np.linalg.inv(covariance)
    points = cloud(10, 2)
    expected = [mahalanobis(point, gate.mean, inverse) / gate.limit for point in points]
    np.testing.assert_allclose(gate.ood_score(points), expected, rtol=1e-5)


def test_with_all_but_one_direction_it_is_the_sample_covariance():
    train = cloud(500, 0)
    gate = fit_gate(train, cloud(200, 1), directions=5)
    assert gate.axes.shape == (6, 5)
    points = cloud(10, 2)
    inverse = np.linalg.inv(np.cov(train.T))
    expected = [mahalanobis(point, train.mean(axis=0), inverse) / gate.limit for point in points]
    np.testing.assert_allclose(gate.ood_score(points), expected, rtol=1e-3)


def test_the_stated_share_of_familiar_images_passes():
    passed = [(fit_gate(cloud(300, s), cloud(199, s + 100)).ood_score(cloud(300, s + 200)) <= 1).mean()
              for s in range(30)]  # fmt: skip
    assert 0.985 <= np.mean(passed) <= 0.997


def test_what_is_far_away_is_strange_in_kept_and_in_other_directions():
    gate = fit_gate(cloud(400, 0), cloud(200, 1), directions=3)
    centre = gate.mean.astype(float)
    assert gate.ood_score(centre[None])[0] < 0.1
    for axis in np.eye(6):
        assert gate.ood_score(centre[None] + 60 * axis)[0] > 1


def test_features_that_never_vary_do_not_break_it():
    train, val = (np.hstack([cloud(n, s), np.zeros((n, 3))]) for n, s in ((100, 0), (50, 1)))
    gate = fit_gate(train, val)
    assert np.isfinite(gate.ood_score(val)).all()
    assert gate.ood_score(val[:1] + 100)[0] > 1


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="at least 20"):
        fit_gate(cloud(100, 0), cloud(5, 1))


def test_a_gate_comes_back_whole_and_a_damaged_one_is_refused():
    gate = fit_gate(cloud(100, 0), cloud(50, 1))
    content = gate.to_bytes()
    np.testing.assert_array_equal(OODGate.from_bytes(content).ood_score(cloud(9, 2)), gate.ood_score(cloud(9, 2)))
    for bad in (content[:-8], b"", b"no safetensors at all"):
        with pytest.raises(CheckpointError, match="damaged"):
            OODGate.from_bytes(bad)
    for wrong in ({"limit": 0.0}, {"rest": float("nan")}, {"variance": gate.variance[1:]}):
        with pytest.raises(CheckpointError, match="fit together"):
            OODGate.from_bytes(dataclasses.replace(gate, **wrong).to_bytes())


RATE = {"unfamiliar": 0.0, "interval": [0.0, 0.8], "n": 1, "effective": 1.0}


@pytest.fixture
def taught(tmp_path):
    """A checkpoint that knows noisy grey plates: 40 of training, 30 of validation, 10 of test."""
    (tmp_path / "plates" / "clear").mkdir(parents=True)
    (tmp_path / "plates" / "defect").mkdir()
    for i in range(80):
        pixels = steel_image(seed=i).pixels
        Image.fromarray(pixels).save(tmp_path / "plates" / ("clear", "defect")[i % 2] / f"{i:03d}.png")
    index = open_dataset(tmp_path / "plates")
    hashes = [h[:16] for h in index.file_hashes()]
    files = {"train": hashes[:40], "val": hashes[40:70], "test": hashes[70:]}
    folder = make_checkpoint(tmp_path / "m", split={"files": files}, thresholds={"clear": 0.0, "defect": 0.0})
    return folder, index


def install(folder, index):
    gate, _, _ = fit_ood_gate(Predictor.load(folder, "cpu"), index)
    install_gate(folder, gate, {"none": RATE}, "A. Tester", "a test")


def test_a_taught_checkpoint_gives_no_verdict_on_what_it_does_not_know(taught, tmp_path):
    folder, index = taught
    before = Predictor.load(folder, "cpu")
    assert before.predict([index.image(0)])[0].ood_score is None
    rates = store_ood_gate(folder, index, {"itself": index}, "A. Tester", device="cpu")
    after = Predictor.load(folder, "cpu")
    assert after.hash != before.hash
    assert after.card.weights_sha256 == before.card.weights_sha256
    assert after.card.to_json()["familiarity"]["rates"] == rates
    assert after.card.history[-1].who == "A. Tester"
    assert rates["itself"]["n"] == 10, "what it has learnt from is not counted"
    assert rates["photographs"]["n"] > 15

    steel = after.predict([index.image(i) for i in range(70, 80)])
    assert sum(p.outcome == UNFAMILIAR for p in steel) <= 2
    for gated, plain in zip(steel, before.predict([index.image(i) for i in range(70, 80)]), strict=True):
        np.testing.assert_allclose(gated.logits, plain.logits, rtol=1e-6)
    checker = (np.indices((64, 64)).sum(axis=0) // 8 % 2 * 200 + 20).astype(np.uint8)
    strange = after.predict([SteelImage(checker, "checker.png", "0")])[0]
    assert strange.outcome == UNFAMILIAR
    assert strange.ood_score > 1
    blank = after.predict([SteelImage(np.full((64, 64), 128, np.uint8), "blank.png", "0")])[0]
    assert blank.outcome == REFER, "what nobody can judge comes first"


def test_a_gate_that_is_not_the_cards_is_refused(taught):
    folder, index = taught
    install(folder, index)
    file = next(folder.glob("familiar-*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="not its card's"):
        load_checkpoint(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(folder)


def test_a_gate_is_replaced_and_travels_with_the_checkpoint(taught, tmp_path):
    folder, index = taught
    install(folder, index)
    loaded = load_checkpoint(folder)
    wider = dataclasses.replace(loaded.gate, limit=loaded.gate.limit * 100)
    install_gate(folder, wider, {"none": RATE}, "B. Tester", "wider")
    assert len(list(folder.glob("familiar-*"))) == 1
    assert load_checkpoint(folder).gate.limit == wider.limit
    with pytest.raises(DataError, match="measured"):
        install_gate(folder, wider, {}, "B. Tester", "unmeasured")

    again = load_checkpoint(folder)
    save_checkpoint(tmp_path / "copy", again.card, again.model.state_dict(), again.background, again.gate)
    assert load_checkpoint(tmp_path / "copy").gate.limit == wider.limit
    save_checkpoint(tmp_path / "bare", again.card, again.model.state_dict())
    assert load_checkpoint(tmp_path / "bare").gate is None


def test_rates_have_intervals_by_group():
    gate = fit_gate(cloud(100, 0), cloud(50, 1))
    far = np.full((12, 6), 1000.0)
    alone, together = measure_unfamiliar_rate(gate, far), measure_unfamiliar_rate(gate, far, ["one"] * 12)
    assert alone["unfamiliar"] == together["unfamiliar"] == 1.0
    assert together["interval"][0] < alone["interval"][0] < 1
    assert (together["n"], together["effective"]) == (12, 1.0)


def test_photographs_come_from_installed_packages_alone(monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    pictures = load_photographs()
    assert len(pictures["photographs"]) > 15
    assert len(pictures["textures"]) == 27
