"""Long strips: tiles that leave nothing out, verdicts equal to those of each tile alone, the worst one decides."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from helpers.small import steel_image
from hypothesis import given
from hypothesis import strategies as st

from steel_core.inference import Predictor
from steel_core.strips import OVERLAP, Strip, cut, is_strip, predict_strip, tiles
from steel_core.types import Box, Prediction


@given(st.integers(1, 900), st.integers(1, 9000), st.integers(8, 400))
def test_tiles_cover_every_pixel_and_overlap(height, width, side):
    found = tiles(height, width, (side, side))
    seen = np.zeros((height, width), bool)
    for box in found:
        seen[box.ymin : box.ymax, box.xmin : box.xmax] = True
        assert box.ymax - box.ymin == box.xmax - box.xmin == min(height, width, 2 * side)
        assert box.xmin >= 0 and box.xmax <= width and box.ymin >= 0 and box.ymax <= height
    assert seen.all()
    for starts in (sorted({box.xmin for box in found}), sorted({box.ymin for box in found})):
        size = found[0].xmax - found[0].xmin
        assert all(b - a <= size * (1 - OVERLAP) + 1 for a, b in pairwise(starts))


@pytest.mark.parametrize(
    ("size", "strip"),
    [((256, 1600), True), ((1600, 256), True), ((200, 800), False), ((4000, 4000), False), ((4001, 4000), True)],
)
def test_what_is_a_strip(size, strip):
    assert is_strip(*size) is strip


def test_each_tile_gets_the_verdict_that_it_gets_alone(checkpoint):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(70, 500, seed=3)
    told = []
    found = predict_strip(predictor, image, lambda done, of: told.append((done, of)))
    assert told[-1] == (len(found.tiles), len(found.tiles))
    for box, one in zip(found.tiles, found.predictions, strict=True):
        part = image.pixels[box.ymin : box.ymax, box.xmin : box.xmax]
        alone = predictor.predict([dataclasses.replace(image, pixels=part.copy())])[0]
        np.testing.assert_allclose(list(one.probs.values()), list(alone.probs.values()), atol=1e-5)
        assert np.shares_memory(cut(image, box).pixels, image.pixels)
    assert sum(found.counts.values()) == len(found.tiles)


def said(outcome, confidence):
    return Prediction("strip", "rust", outcome, {"rust": confidence}, np.zeros(1, np.float32), 0.5, "", "")


@pytest.mark.parametrize(
    ("outcomes", "worst", "outcome"),
    [
        ([("clear", 0.9), ("clear", 0.99)], 0, "clear"),
        ([("clear", 0.9), ("refer", 0.4), ("unfamiliar", 0.9)], 1, "refer"),
        ([("clear", 1.0), ("unfamiliar", 0.9)], 1, "refer"),
        ([("refer", 0.9), ("rust", 0.6), ("rust", 0.8), ("clear", 1.0)], 2, "rust"),
    ],
)
def test_the_strip_is_as_bad_as_its_worst_tile(outcomes, worst, outcome):
    boxes = tuple(Box("", 10 * i, 0, 10 * i + 10, 10) for i in range(len(outcomes)))
    found = Strip(boxes, tuple(said(*one) for one in outcomes), 10, 10 * len(boxes))
    assert (found.worst, found.outcome) == (worst, outcome)
