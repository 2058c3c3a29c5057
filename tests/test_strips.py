"""Long strips: tiles that leave nothing out, verdicts equal to those of each alone, one map of all without seams."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.small import steel_image
from hypothesis import given
from hypothesis import strategies as st

from steel_core.cli import main
from steel_core.data.pixels import encode_png
from steel_core.data.strip_mill import StripMill
from steel_core.data.transforms import resize
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.inference import Predictor
from steel_core.strips import (
    METHODS,
    OVERLAP,
    Strip,
    _windows,
    cut,
    explain_strip,
    is_strip,
    judge,
    judged_in_tiles,
    predict_strip,
    tiles,
)
from steel_core.types import Box, Prediction, SteelImage


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


def test_a_single_verdict_on_a_strip_is_that_on_its_worst_tile(checkpoint):
    predictor, long, short = Predictor(checkpoint, "cpu"), steel_image(70, 500, seed=3), steel_image(70, 200, seed=3)
    found, one = predict_strip(predictor, long), judge(predictor, long)
    assert one.probs == found.predictions[found.worst].probs
    assert one.note.startswith(f"judged in {len(found.tiles)} tiles; this is the worst, number {found.worst + 1}, ")
    assert judge(predictor, short).probs == predictor.predict([short])[0].probs


@pytest.mark.parametrize(
    ("learnt", "size", "in_tiles"),
    [
        ((64, 64), (256, 1600), True),
        ((64, 64), (256, 900), False),
        ((64, 400), (256, 1600), False),  # has learnt from strips
        ((64, 400), (256, 6400), True),
        ((64, 400), (3000, 16000), True),  # would be shrunk to nothing
    ],
)
def test_a_model_that_has_learnt_from_strips_sees_them_whole(checkpoint, learnt, size, in_tiles):
    card = dataclasses.replace(checkpoint.card, input_size=learnt)
    assert judged_in_tiles(Predictor(dataclasses.replace(checkpoint, card=card), "cpu"), *size) is in_tiles


def test_the_command_line_judges_a_strip_in_tiles(checkpoint_folder, checkpoint, tmp_path, capsys):
    image = steel_image(70, 500, seed=3)
    (tmp_path / "long.png").write_bytes(encode_png(image.pixels))
    assert main(["predict", str(tmp_path / "long.png"), "--checkpoint", str(checkpoint_folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["results"][0]
    found = predict_strip(Predictor(checkpoint), image)
    assert told["outcome"] == found.verdict.outcome and "tiles" in told["note"]
    assert [(tile["left"], tile["top"]) for tile in told["tiles"]] == [(box.xmin, box.ymin) for box in found.tiles]
    assert [tile["outcome"] for tile in told["tiles"]] == [one.outcome for one in found.predictions]


# The stitched map


@given(st.integers(1, 400), st.integers(0, 3000))
def test_what_tiles_count_sums_to_one_everywhere(side, more):
    total = np.zeros(side + more)
    for start, weights in _windows(side + more, side).items():
        assert weights.shape == (side,) and (weights > -1e-6).all()
        total[start : start + side] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_one_tile_is_the_map_of_that_picture(checkpoint, method):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(64, 64, seed=5)
    alone = predictor.explain(image, method, "defect")
    found = explain_strip(predictor, image, method, "defect")
    np.testing.assert_allclose(found.values, alone.values, rtol=1e-5, atol=1e-9)
    assert found.provenance() | {"seconds": 0} == alone.provenance() | {"seconds": 0}


def test_the_map_of_a_large_picture_is_stitched_both_ways(checkpoint):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(200, 300, seed=6)
    told = []
    found = explain_strip(predictor, image, target="defect", progress=lambda done, of: told.append((done, of)))
    count = len(tiles(200, 300, (64, 64)))
    assert found.values.shape == (200, 300) and told == [(i + 1, count) for i in range(count)] and count > 4
    corner = predictor.explain(cut(image, Box("", 0, 0, 128, 128)), "grad-cam", "defect").values
    np.testing.assert_allclose(found.values[:60, :60], resize(corner, 128, 128)[:60, :60], rtol=1e-5, atol=1e-9)


def test_a_strip_is_explained_for_the_class_of_its_worst_tile(checkpoint):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(70, 500, seed=3)
    assert explain_strip(predictor, image).target == predict_strip(predictor, image).verdict.pred
    with pytest.raises(UsageError, match="expected grad-cam or guided-grad-cam, got 'shap'"):
        explain_strip(predictor, image, "shap")
    with pytest.raises(UsageError, match="unknown class 'dent'"):
        explain_strip(predictor, image, target="dent")


@pytest.fixture(scope="module")
def mill():
    """A checkpoint that has learnt something, and nine sheets side by side: 200 x 1800, a defect on every second."""
    sheets = [StripMill(size=(200, 200), seed=1).render(i, ("clear", "patches")[i % 2]).pixels for i in range(9)]
    return Predictor.load("strip-mill", "cpu"), np.concatenate(sheets, axis=1)


def strip_of(pixels: np.ndarray) -> SteelImage:
    return SteelImage(np.ascontiguousarray(pixels), "strip.png", "")


def untiled(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    """Grad-CAM of a whole strip, seen by the network in one piece.

    The head averages over the whole grid, so each place counts as much less as the strip is longer than a tile.
    """
    inputs = predictor.card.preprocessing.normalise(torch.from_numpy(strip_of(pixels).grey())[None, None])
    found = EXPLAINERS["grad-cam"]().attribute(predictor.model, inputs, torch.tensor([1]))[0, 0].numpy()
    return found * (pixels.shape[1] / pixels.shape[0])


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Relative L2, without the strip's ends."""
    return float(np.linalg.norm((a - b)[:, 50:-50]) / np.linalg.norm(b[:, 50:-50]))


def steps(values: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each column and the next."""
    return np.abs(np.diff(values, axis=1)).mean(axis=0)


def test_the_stitched_map_is_that_of_the_whole_strip(mill):
    """The network's own grid is 16 pixels wide, so its map of the very same strip changes when the strip is moved by 8.

    Tiles begin anywhere on that grid, and at their edges the network sees its padding: the stitched map may differ from
    that of the whole by half as much again as that one differs from itself, moved. Measured: 0.36 and 0.29.
    """
    predictor, pixels = mill
    still, moved = pixels[:, :-8], pixels[:, 8:]
    whole, stitched = untiled(predictor, still), explain_strip(predictor, strip_of(still), target="defect").values
    assert apart(stitched, whole) < 1.5 * apart(untiled(predictor, moved)[:, :-8], whole[:, 8:])
    assert np.corrcoef(stitched[:, 50:-50].ravel(), whole[:, 50:-50].ravel())[0, 1] > 0.9


def test_the_stitched_map_has_no_seams(mill):
    """Against the map of the whole, tiles laid side by side jump 22 times as far at a joint as it ever goes; stitched

    ones 1.5 times. In the overlaps, where one fades into the next, it is 1.4 times as steep as elsewhere, not 1.6.
    """
    predictor, pixels = mill
    whole, stitched = untiled(predictor, pixels), explain_strip(predictor, strip_of(pixels), target="defect").values
    places = tiles(*pixels.shape, predictor.card.input_size)
    cut_off, overlaps = np.zeros_like(stitched), np.zeros(pixels.shape[1] - 1, bool)
    for box in places:
        found = predictor.explain(cut(strip_of(pixels), box), "grad-cam", "defect")
        cut_off[:, box.xmin : box.xmax] = found.values
    for one, following in pairwise(places):
        overlaps[following.xmin - 1 : one.xmax] = True

    def seams(values: np.ndarray) -> float:
        there, elsewhere = (steps(values)[part].sum() / steps(whole)[part].sum() for part in (overlaps, ~overlaps))
        return float(there / elsewhere)

    assert seams(stitched) < 1.5 < seams(cut_off)
    assert steps(stitched).max() < 2 * steps(whole).max() < steps(cut_off).max()
