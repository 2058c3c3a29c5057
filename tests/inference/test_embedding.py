"""Features of the model, exact neighbours, and the map."""

import cv2
import numpy as np
import pytest
import torch
from helpers.small import steel_image

from steel_core.data.open import open_dataset
from steel_core.errors import DataError
from steel_core.inference.embedding import Embedding, embed_images, find_embedding, load_or_embed
from steel_core.inference.predictor import Predictor


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint, "cpu")


@pytest.fixture
def index(tmp_path):
    for k in range(9):
        path = tmp_path / "set" / ("clear", "defect")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), steel_image(seed=k).pixels)
    (tmp_path / "set" / "defect" / "7.png").write_bytes(b"no picture")
    return open_dataset(tmp_path / "set")


def test_features_are_the_mean_of_the_grid_of_each_picture_alone(predictor):
    """Oracle: one picture at a time through the network, averaged by hand; pictures of other sizes between."""
    images = [steel_image(seed=0), steel_image(90, 64, seed=1), steel_image(seed=2)]
    result = embed_images(predictor, images)
    for image, row in zip(images, result, strict=True):
        grid, _ = predictor.card.preprocessing.to_grid(image)
        inputs = predictor.card.preprocessing.normalise(torch.from_numpy(grid)[None, None])
        with torch.inference_mode():
            mean = predictor.model.features(inputs)[0].double().numpy().mean(axis=(1, 2))
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-5)


def test_they_are_kept_and_made_anew_when_a_file_changes(predictor, index, cache, monkeypatch):
    answer = []
    assert find_embedding(predictor, index) is None
    first = load_or_embed(predictor, index, lambda what, done, of: answer.append((done, of)))
    assert answer[-1] == (9, 9)
    assert first.readable.sum() == 8
    answer.clear()
    again = load_or_embed(predictor, index, lambda what, done, of: answer.append((done, of)))
    np.testing.assert_array_equal(again.features, first.features)
    assert not answer
    np.testing.assert_array_equal(find_embedding(predictor, index).features, first.features)
    cv2.imwrite(str(index[0].path), steel_image(seed=99).pixels)
    assert find_embedding(predictor, index) is None
    changed = load_or_embed(predictor, index)
    assert changed.key != first.key
    assert not np.allclose(changed.features[0], first.features[0])
    for file in (cache / "embeddings").iterdir():  # a damaged file is no harm
        file.write_bytes(b"damaged")
    np.testing.assert_array_equal(load_or_embed(predictor, index).features, changed.features)


@pytest.mark.parametrize("indexed", [20_000, 100])  # by a matrix product, and by the library's index
def test_neighbours_are_those_of_a_plain_search(monkeypatch, indexed):
    monkeypatch.setattr("steel_core.inference.embedding.INDEXED", indexed)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[[3, 77]] = np.nan
    embedding = Embedding(features, "x")
    rows, likeness = embedding.nearest(features[[5, 6]], 10)
    for query, result, values in zip((5, 6), rows, likeness, strict=True):
        dots = {i: float(features[i].astype(float) @ features[query].astype(float)) for i in range(200)}
        wanted = sorted((i for i in dots if np.isfinite(dots[i])), key=lambda i: -dots[i])[:10]
        assert result.tolist() == wanted
        np.testing.assert_allclose(values, [dots[i] for i in wanted], atol=1e-5)
    assert embedding.nearest(features[:1], 500)[0].shape == (1, 198)
    with pytest.raises(DataError, match="picture number 4 could not be read"):
        embedding.row(3)


def test_an_uploaded_picture_finds_itself(predictor, index):
    embedding = load_or_embed(predictor, index)
    rows, likeness = embedding.nearest(embed_images(predictor, [index.image(4)]), 3)
    assert rows[0, 0] == 4
    assert likeness[0, 0] == pytest.approx(1, abs=1e-5)


def test_groups_lie_apart_on_the_map_and_the_map_is_kept(cache, monkeypatch):
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(3, 16))
    features = (np.repeat(centres, 20, axis=0) + rng.normal(0, 0.05, (60, 16))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[7] = np.nan
    assert Embedding(features, "k").find_layout() is None
    places = Embedding(features, "k").layout()
    assert np.isnan(places[7]).all()
    group = np.repeat(range(3), 20)
    middles = np.array([np.nanmean(places[group == g], axis=0) for g in range(3)])
    near = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert (near == group)[np.arange(60) != 7].all()
    monkeypatch.setattr("steel_core.inference.embedding._tsne", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(Embedding(features, "k").layout(), places)


def test_beyond_the_mapped_ones_pictures_lie_beside_their_neighbours(monkeypatch):
    monkeypatch.setattr("steel_core.inference.embedding.MAPPED", 30)
    rng = np.random.default_rng(2)
    features = (np.repeat(rng.normal(size=(2, 8)), 25, axis=0) + rng.normal(0, 0.05, (50, 8))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    places = Embedding(features, "many").layout()
    middles = np.array([places[:25].mean(axis=0), places[25:].mean(axis=0)])
    assert (np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1) == np.repeat([0, 1], 25)).all()
