"""Baselines: their contract, and what each can and cannot tell apart."""

import numpy as np
import pytest

from steel_core.baselines.base import BASELINES
from steel_core.baselines.methods.classical_chain import measure_regions
from steel_core.data.strip_mill import StripMill


@pytest.fixture(scope="module")
def sheets():
    """60 drawn sheets of three kinds, and the kind of each."""
    mill = StripMill(size=(64, 64), seed=4)
    labels = np.arange(60) % 3
    kinds = ("clear", "scratches", "patches")
    grids = [mill.render(i, kinds[k]).pixels.astype(np.float32) / 255 for i, k in enumerate(labels)]
    return np.stack(grids), labels


@pytest.mark.parametrize("name", BASELINES)
def test_probabilities_over_all_classes_the_same_each_time(name, sheets):
    grids, labels = sheets
    runs = []
    for _ in range(2):
        baseline = BASELINES[name](seed=3)
        baseline.fit(grids[:40], labels[:40] * 2, 6)  # classes 1, 3 and 5 never occur
        runs.append(baseline.predict(grids[40:]))
    assert runs[0].shape == (20, 6)
    np.testing.assert_allclose(runs[0].sum(axis=1), 1)
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0][:, [1, 3, 5]], 0)


def test_majority_says_how_often_each_class_occurred(sheets):
    grids, _ = sheets
    baseline = BASELINES["majority"]()
    baseline.fit(grids[:4], np.array([0, 0, 0, 2]), 3)
    np.testing.assert_array_equal(baseline.predict(grids[:2]), [[0.75, 0, 0.25]] * 2)


def test_pixels_see_brightness_and_the_chain_sees_shape(sheets):
    grids, labels = sheets
    rng = np.random.default_rng(0)
    dark = rng.normal(0.3, 0.05, (240, 32, 32)).astype(np.float32)
    dark[::2] += 0.2
    pixels = BASELINES["pixels"]()
    pixels.fit(dark[:200], np.arange(200) % 2, 2)
    assert (pixels.predict(dark[200:]).argmax(axis=1) == np.arange(40) % 2).mean() > 0.9
    chain = BASELINES["classical-chain"]()
    chain.fit(grids[:40], labels[:40], 3)
    assert (chain.predict(grids[40:]).argmax(axis=1) == labels[40:]).mean() > 0.7


def test_the_detector_finds_a_bright_square_and_nothing_on_an_even_sheet():
    rng = np.random.default_rng(1)
    even = np.full((100, 100), 0.5, np.float32) + rng.normal(0, 0.002, (100, 100)).astype(np.float32)
    marked = even.copy()
    marked[40:50, 60:70] += 0.3
    regions = measure_regions(marked)
    square = np.zeros((100, 100), bool)
    square[40:50, 60:70] = True
    overlap = (regions.candidates > 0) & square
    assert overlap.sum() > 90
    assert regions.features["candidates"] >= 1
    assert measure_regions(np.full((50, 50), 0.5, np.float32)).features["candidates"] == 0


def test_shap_values_of_the_chain_sum_to_its_output(sheets):
    grids, labels = sheets
    chain = BASELINES["classical-chain"]()
    chain.fit(grids[:40], labels[:40], 3)
    values = chain.importances(grids[40:44])
    base = np.bincount(labels[:40]) / 40  # with balanced weights, the forest's mean is near the even shares
    total = sum(values.values())
    np.testing.assert_allclose(chain.predict(grids[40:44]) - total, np.tile(base, (4, 1)), atol=0.05)
    assert set(values) == set(measure_regions(grids[0]).features)
