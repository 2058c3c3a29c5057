"""The gate against scipy's distance, against planted outliers, and in a checkpoint."""

import dataclasses
import hashlib

import numpy as np
import pytest
from helpers.small import make_checkpoint, steel_image
from PIL import Image
from safetensors.numpy import save
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from steel_core.data.open import open_dataset
from steel_core.errors import CheckpointError, DataError
from steel_core.evaluation.ood import (
    Looks,
    install_gate,
    load_photographs,
    make_ood_gate,
    measure_unfamiliar_rate,
    store_ood_gate,
)
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import load_checkpoint, save_checkpoint, update_card
from steel_core.models.ood import OODGate, fit_gate
from steel_core.types import REFER, UNFAMILIAR, SteelImage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))


def cloud(n, seed, features=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, features)) @ np.diag([5, 3, 2, 1, 1, 1.0][:features]) + 10


def alone(n):
    return np.array([f"piece {i}" for i in range(n)])


def fit(train, val, named=None, new_named=None, groups=None, classes=1, **more):
    named = np.zeros(len(train), int) if named is None else named
    new_named = np.zeros(len(val), int) if new_named is None else new_named
    return fit_gate((train, named, alone(len(train)) if groups is None else groups), (val, new_named), classes, **more)


def none(n):
    return np.zeros(n, int)


def test_distance_is_that_to_the_nearest_by_the_covariance_within_classes():
    """scipy's distance of Mahalanobis under scikit-learn's covariance of what is left beside the classes' means."""
    train, named = np.vstack([cloud(200, 0), cloud(200, 1) + 40]), np.repeat([0, 1], 200)
    gate = fit(train, cloud(100, 2), named, none(100), classes=2)
    means = np.stack([train[named == k].mean(axis=0) for k in (0, 1)])
    inverse = np.linalg.inv(ledoit_wolf(train - means[named], assume_centered=True)[0])
    points = cloud(5, 3)
    for k in (0, 1):
        expected = [
            min(mahalanobis(point, one, inverse) for one in train[named == k]) / gate.limits[k] for point in points
        ]
        np.testing.assert_allclose(gate.ood_score(points, np.full(5, k)), expected, rtol=5e-3)


def test_directions_that_are_not_kept_count_by_what_is_left(monkeypatch):
    """Of two directions the third's length is one more coordinate; a point far along it is far."""
    monkeypatch.setattr("steel_core.models.ood._DIRECTIONS", 3)
    gate = fit(cloud(400, 0), cloud(200, 1))
    assert gate.references.shape == (400, 4)
    centre = gate.mean.astype(float)
    assert gate.ood_score(centre[None], none(1))[0] < 1
    for axis in np.eye(6):
        assert gate.ood_score(centre[None] + 60 * axis, none(1))[0] > 1


def test_the_stated_share_of_familiar_images_passes():
    passed = [(fit(cloud(300, s), cloud(199, s + 100)).ood_score(cloud(300, s + 200), none(300)) <= 1).mean()
              for s in range(30)]  # fmt: skip
    assert 0.955 <= np.mean(passed) <= 0.99


def two_kinds(n, seed, wide=6.0):
    """n narrow pieces of class 0, and as many of class 1 that vary `wide` times as much."""
    rng = np.random.default_rng(seed)
    return np.vstack([rng.normal(size=(n, 6)), 100 + wide * rng.normal(size=(n, 6))]), np.repeat([0, 1], n)


def test_each_class_passes_alike_however_much_it_varies():
    shares = []
    for seed in range(20):
        (train, named), (val, new_named), (new, of) = (two_kinds(n, 3 * seed + i) for i, n in enumerate((200, 60, 200)))
        familiar = fit(train, val, named, new_named, classes=2).ood_score(new, of) <= 1
        shares.append([familiar[of == k].mean() for k in (0, 1)])
    assert (np.mean(shares, axis=0) > 0.95).all()
    assert abs(np.subtract(*np.mean(shares, axis=0))) < 0.03
    # a narrow class does not borrow the room of a wide one
    odd = np.zeros((1, 6)) + 6.0
    gate = fit(train, val, named, new_named, classes=2)
    assert gate.ood_score(odd, [0])[0] > 1 > gate.ood_score(odd + 100, [1])[0]


def test_copies_of_a_piece_do_not_narrow_what_is_familiar():
    """Ten shots of each of forty pieces: their own copies lie close, and a new piece must pass all the same."""
    rng = np.random.default_rng(0)
    pieces, groups = rng.normal(size=(40, 6)), np.repeat(alone(40), 10)
    train = np.repeat(pieces, 10, axis=0) + 0.01 * rng.normal(size=(400, 6))
    val = rng.normal(size=(30, 6))
    gate = fit(train, val, groups=groups)
    fresh = rng.normal(size=(500, 6))
    assert (gate.ood_score(fresh, none(500)) <= 1).mean() > 0.9
    with pytest.raises(DataError, match="near-duplicates"):
        fit(train, val, groups=np.full(400, "one"))


def test_a_few_odd_pieces_do_not_open_the_gate_of_their_class():
    (train, named), (val, new_named) = two_kinds(200, 0, wide=1.0), two_kinds(60, 1, wide=1.0)
    odd = train.copy()
    odd[:4] = 10 * np.sign(np.random.default_rng(0).normal(size=(4, 6)))
    limits = [fit(rows, val, named, new_named, classes=2).limits for rows in (train, odd)]
    reach = [gate[0] / gate[1] for gate in limits]
    assert reach[1] == pytest.approx(reach[0], rel=0.1)


def test_a_class_with_few_images_is_compared_with_all():
    train, named = cloud(103, 0), np.r_[np.zeros(100, int), 1, 1, 1]
    gate = fit(train, cloud(50, 1), named, classes=3)
    point = cloud(1, 5)
    np.testing.assert_allclose(gate.ood_score(point, [1]), gate.ood_score(point, [2]), rtol=1e-6)
    assert gate.ood_score(point + 100, [2])[0] > 1


def test_features_that_never_vary_do_not_break_it():
    train, val = (np.hstack([cloud(n, s), np.zeros((n, 3))]) for n, s in ((100, 0), (50, 1)))
    gate = fit(train, val)
    assert np.isfinite(gate.ood_score(val, none(50))).all()
    assert gate.ood_score(val[:1] + 100, none(1))[0] > 1


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match="at least 20"):
        fit(cloud(100, 0), cloud(5, 1))


def test_a_gate_comes_back_whole_and_a_damaged_one_is_refused():
    gate = fit(cloud(100, 0), cloud(50, 1))
    content = gate.to_bytes()
    again = OODGate.from_bytes(content)
    np.testing.assert_array_equal(again.ood_score(cloud(9, 2), none(9)), gate.ood_score(cloud(9, 2), none(9)))
    for bad in (content[:-8], b"", b"no safetensors at all"):
        with pytest.raises(CheckpointError, match="damaged"):
            OODGate.from_bytes(bad)
    for wrong in ({"limits": gate.limits * 0}, {"rest": float("nan")}, {"axes": gate.axes[:, 1:]}, {"named": none(0)}):
        with pytest.raises(CheckpointError, match="damaged"):
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
    gate, _ = make_ood_gate(Predictor.load(folder, "cpu"), index)
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
    assert {name.partition(": ")[2]: rate["n"] for name, rate in rates.items() if "test part: " in name} == {
        "defect": 10
    }
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
    wider = dataclasses.replace(loaded.gate, limits=loaded.gate.limits * 100)
    install_gate(folder, wider, {"none": RATE}, "B. Tester", "wider")
    assert len(list(folder.glob("familiar-*"))) == 1
    assert load_checkpoint(folder).gate.limits.tolist() == wider.limits.tolist()
    with pytest.raises(DataError, match="measured"):
        install_gate(folder, wider, {}, "B. Tester", "unmeasured")

    again = load_checkpoint(folder)
    save_checkpoint(tmp_path / "copy", again.card, again.model.state_dict(), again.background, again.gate)
    assert load_checkpoint(tmp_path / "copy").gate.limits.tolist() == wider.limits.tolist()
    save_checkpoint(tmp_path / "bare", again.card, again.model.state_dict())
    assert load_checkpoint(tmp_path / "bare").gate is None


def test_rates_have_intervals_by_group():
    gate = fit(cloud(100, 0), cloud(50, 1))
    far = np.full((12, 6), 1000.0, np.float32)
    single, together = (
        measure_unfamiliar_rate(gate, Looks(far, none(12), groups, none(12)))
        for groups in (alone(12), np.array(["one"] * 12))
    )
    assert single["unfamiliar"] == together["unfamiliar"] == 1.0
    assert together["interval"][0] < single["interval"][0] < 1
    assert (together["n"], together["effective"]) == (12, 1.0)


def test_a_gate_of_an_earlier_version_is_named_and_can_be_made_anew(taught):
    folder, index = taught
    old = save({"mean": np.zeros(3, np.float32), "axes": np.eye(3, dtype=np.float32), "scalars": np.ones(2)})
    digest = hashlib.sha256(old).hexdigest()
    (folder / "familiar-old.safetensors").write_bytes(old)
    facts = {"file": "familiar-old.safetensors", "sha256": digest}
    update_card(folder, lambda _: {"familiarity": facts})
    with pytest.raises(CheckpointError, match="earlier version; `checkpoint familiarity` makes a new one"):
        load_checkpoint(folder)
    rates = store_ood_gate(folder, index, {}, "A. Tester", device="cpu")
    assert load_checkpoint(folder).card.to_json()["familiarity"]["rates"] == rates


def test_photographs_come_from_installed_packages_alone(monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    pictures = load_photographs()
    assert len(pictures["photographs"]) > 15
    assert len(pictures["textures"]) == 27
