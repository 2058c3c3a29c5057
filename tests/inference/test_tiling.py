"""Long strips: tiles that leave nothing out, verdicts equal to those of each alone, one map of all without seams."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.small import steel_image
from hypothesis import given, settings
from hypothesis import strategies as st

from steel_core.cli.main import main
from steel_core.data.images.read import encode_png
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill
from steel_core.data.transforms import resize
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.inference import tiling as strips
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import (
    OVERLAP,
    TILED_METHODS,
    TiledPrediction,
    _starts,
    _windows,
    crop_tile,
    explain_tiled,
    grid_boxes,
    is_strip,
    needs_tiling,
    predict_images,
    squeeze_warning,
    tile_boxes,
)
from steel_core.metrics.decisions import decide_outcomes
from steel_core.types import Box, Prediction, SteelImage


@settings(deadline=None)
@given(
    st.integers(1, 900), st.integers(1, 9000), st.integers(8, 400), st.integers(8, 400), st.sampled_from([1, 16, 32])
)
def test_tiles_cover_every_pixel_and_overlap(height, width, rows, columns, stride):
    result = grid_boxes(Box("", 0, 0, width, height), (rows, columns), stride)
    moved = grid_boxes(Box("", 30, 7, 30 + width, 7 + height), (rows, columns), stride)
    assert moved == [Box("", b.xmin + 30, b.ymin + 7, b.xmax + 30, b.ymax + 7) for b in result]
    zoom = min(height / rows, width / columns, 2)
    down, right = (max(1, round(zoom * side)) for side in (rows, columns))
    for box in result:
        assert (box.ymax - box.ymin, box.xmax - box.xmin) == (down, right)
        assert box.xmin >= 0 and box.xmax <= width and box.ymin >= 0 and box.ymax <= height
    for starts, side, length in (
        (sorted({box.ymin for box in result}), down, height),
        (sorted({box.xmin for box in result}), right, width),
    ):
        assert (starts[0], starts[-1] + side) == (0, length)
        assert all(b - a <= side * (1 - OVERLAP) + 1 for a, b in pairwise(starts))  # rounded to a pixel
    assert len(result) == len({box.ymin for box in result}) * len({box.xmin for box in result})


def test_neighbours_cut_the_strip_into_the_same_cells():
    """A tile of 256 x 256 is seen at 200 x 200, where a cell is 16 wide: 20.48 pixels of the strip."""
    starts = [box.xmin for box in grid_boxes(Box("", 0, 0, 1600, 256), (200, 200), stride=16)]
    assert starts == [0, 184, 369, 553, 737, 922, 1106, 1290, 1344]  # by hand: 9 cells, then what is left


@pytest.mark.parametrize(
    ("size", "strip"),
    [((256, 1600), True), ((1600, 256), True), ((200, 800), False), ((4000, 4000), False), ((4001, 4000), True)],
)
def test_what_is_a_strip(size, strip):
    assert is_strip(*size) is strip


@pytest.mark.parametrize(
    ("height", "width", "squeezed_to"),
    [(64, 64, False), (64, 128, False), (64, 129, True), (129, 64, True), (640, 640, False), (70, 500, True)],
)
def test_which_images_one_look_squeezes(tmp_path, height, width, squeezed_to):
    """Twice the input's proportions still fit, by hand; a file that is no picture does not count."""
    for i, size in enumerate(((64, 64), (height, width))):
        (tmp_path / "data" / f"class {i}").mkdir(parents=True)
        (tmp_path / "data" / f"class {i}" / "a.png").write_bytes(encode_png(steel_image(*size).pixels))
    (tmp_path / "data" / "class 1" / "b.png").write_bytes(b"no picture")
    said = squeeze_warning(open_dataset(tmp_path / "data"), (64, 64))
    assert said.startswith("1 of 3 images do not fit an input of 64 x 64 pixels") is squeezed_to
    assert bool(said) is squeezed_to


def turned(image, kind, upright):
    """The same picture in another type and direction."""
    pixels = {"grey": image, "colour": np.repeat(image[..., None], 3, axis=2), "16 bits": image.astype(np.uint16) * 257}
    result = pixels[kind]
    return strip_of(result.swapaxes(0, 1) if upright else result)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("kind", ["grey", "colour", "16 bits"])
def test_black_ends_are_no_part_of_a_strip(checkpoint, kind, upright):
    """A strip with black beside it is told what the same strip is told without; and how much is black."""
    predictor, steel = Predictor(checkpoint, "cpu"), np.maximum(steel_image(70, 320, seed=3).pixels, 20)
    image = turned(np.pad(steel, ((0, 0), (120, 60)), constant_values=16), kind, upright)
    alone, result = predict_images(predictor, [turned(steel, kind, upright)])[0], predict_images(predictor, [image])[0]
    dx, dy = (0, 120) if upright else (120, 0)
    assert list(result.tiles) == [Box("", b.xmin + dx, b.ymin + dy, b.xmax + dx, b.ymax + dy) for b in alone.tiles]
    np.testing.assert_allclose(result.verdict.logits, alone.verdict.logits, atol=1e-5)
    assert (result.verdict.outcome, alone.black_ends) == (alone.verdict.outcome, "")
    ends = ("at the top", "at the bottom") if upright else ("at the left", "at the right")
    answer = f"120 pixels {ends[0]} and 60 pixels {ends[1]} are black, without steel, and were not judged"
    assert answer in result.verdict.note and answer in result.to_json()["note"] and "black" not in alone.verdict.note
    expected = explain_tiled(predictor, turned(steel, kind, upright), target=alone.verdict.pred).values
    stitched = explain_tiled(predictor, image, target=alone.verdict.pred).values
    np.testing.assert_allclose(stitched[dy : dy + expected.shape[0], dx : dx + expected.shape[1]], expected, atol=1e-7)
    assert np.count_nonzero(stitched) == np.count_nonzero(expected)


@pytest.mark.parametrize(
    ("black", "grey", "covered"),
    [
        (np.s_[:, 200:400], 0, (0, 500)),  # between steel: a lamp has failed
        (np.s_[:, :], 0, (0, 500)),  # no steel at all
        (np.s_[:, 300:], 17, (0, 500)),  # dark, but not black
        (np.s_[1:, 300:], 0, (0, 500)),  # one bright pixel is enough to look
        (np.s_[:, 10:], 0, (0, 71)),  # so little steel that one tile would do
        (np.s_[:, :490], 0, (429, 500)),
    ],
)
def test_what_may_be_steel_is_looked_at(checkpoint, black, grey, covered):
    pixels = np.maximum(steel_image(70, 500, seed=3).pixels, 20)
    pixels[black] = grey
    result = predict_images(Predictor(checkpoint, "cpu"), [strip_of(pixels)])[0]
    assert (min(box.xmin for box in result.tiles), max(box.xmax for box in result.tiles)) == covered
    assert len(result.tiles) > 1
    if covered == (0, 500) and grey == 0:
        assert any(not one.judgeable for one in result.predictions) and result.verdict.outcome != "clear"


def test_each_tile_gets_the_verdict_that_it_gets_alone(checkpoint):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(70, 500, seed=3)
    answer = []
    result = predict_images(predictor, [image], lambda what, done, of: answer.append((done, of)))[0]
    assert answer[-1] == (len(result.tiles), len(result.tiles))
    for box, one in zip(result.tiles, result.predictions, strict=True):
        part = image.pixels[box.ymin : box.ymax, box.xmin : box.xmax]
        alone = predictor.predict([dataclasses.replace(image, pixels=part.copy())])[0]
        np.testing.assert_allclose(list(one.probs.values()), list(alone.probs.values()), atol=1e-5)
        assert np.shares_memory(crop_tile(image, box).pixels, image.pixels)
    assert sum(result.counts.values()) == len(result.tiles)


def test_pictures_of_all_sizes_are_judged_together_as_they_are_one_by_one(checkpoint):
    predictor = Predictor(checkpoint, "cpu")
    images = [steel_image(64, 64, seed=1), steel_image(70, 500, seed=3), steel_image(64, 80, seed=2)] * 20
    together = predict_images(predictor, images)
    for image, result in zip(images[:3], together[-3:], strict=True):
        alone = predict_images(predictor, [image])[0]
        assert (result.tiles, result.worst, result.height, result.width) == (
            alone.tiles, alone.worst, image.height, image.width,
        )  # fmt: skip
        np.testing.assert_allclose(result.verdict.logits, alone.verdict.logits, atol=1e-4)
    short = predictor.predict(images[:1])[0]
    assert together[0].verdict.note == short.note == "" and "tiles" not in together[0].to_json()


def answer(outcome, confidence, pred="", **more):
    """What is said of a tile by a model that knows clear, rust and dent."""
    pred = pred or ("rust" if outcome in ("refer", "unfamiliar") else outcome)
    probs = dict.fromkeys(("clear", "rust", "dent"), (1 - confidence) / 2) | {pred: confidence}
    return Prediction("strip", pred, outcome, probs, np.zeros(3, np.float32), 0.5, "", "", **more)


def strip_of_tiles(*said):
    boxes = tuple(Box("", 10 * i, 0, 10 * i + 10, 10) for i in range(len(said)))
    return TiledPrediction(boxes, said, 10, 10 * len(boxes))


BLANK, STRANGE = answer("refer", 0.99, judgeable=False), answer("unfamiliar", 0.9, ood_score=1.5)


@pytest.mark.parametrize(
    ("said", "worst", "outcome"),
    [
        ([answer("clear", 0.9), answer("clear", 0.99)], 0, "clear"),
        ([answer("clear", 0.99), answer("clear", 0.9)], 1, "clear"),
        ([answer("clear", 0.99), answer("refer", 0.6, "clear")], 1, "refer"),
        ([answer("clear", 0.9), answer("refer", 0.4, "rust"), STRANGE], 1, "refer"),
        ([answer("clear", 1.0), STRANGE, BLANK], 1, "unfamiliar"),
        ([answer("clear", 1.0), answer("refer", 0.6, "clear"), BLANK], 2, "refer"),
        ([BLANK, answer("rust", 0.6), answer("dent", 0.8), answer("clear", 1.0)], 2, "dent"),
        ([BLANK, STRANGE], 0, "refer"),
    ],
)
def test_the_strip_is_as_bad_as_its_worst_tile(said, worst, outcome):
    result = strip_of_tiles(*said)
    assert (result.worst, result.verdict.outcome) == (worst, outcome)
    note = f"judged in {len(said)} tiles; this is the worst, number {worst + 1}, {10 * worst} pixels from the left, 0"
    assert result.verdict.note.startswith(note)
    assert result.decisive.probs == said[worst].probs


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-6, 6)] * 3), min_size=1, max_size=9), st.tuples(*[st.floats(0, 1)] * 3))
def test_a_strip_is_clear_only_where_every_tile_is_whatever_the_thresholds(logits, lines):
    """And what decides does not hang on them: the same tile, read with other thresholds, tells the same."""
    thresholds = dict(zip(("clear", "rust", "dent"), lines, strict=True))
    probs = [np.exp(z) / np.exp(z).sum() for z in np.array(logits)]
    outcomes = decide_outcomes(np.array(probs), tuple(thresholds), thresholds)
    said = [
        Prediction("", list(thresholds)[p.argmax()], str(o), dict(zip(thresholds, p, strict=True)), z, 0, "", "")
        for p, z, o in zip(probs, np.array(logits), outcomes, strict=True)
    ]
    result = strip_of_tiles(*said)
    assert (result.verdict.outcome == "clear") == all(outcome == "clear" for outcome in outcomes)
    assert (
        result.worst == strip_of_tiles(*(dataclasses.replace(one, outcome="refer", threshold=1) for one in said)).worst
    )


def test_a_tile_that_cannot_be_judged_leaves_the_probabilities_to_the_others():
    result = strip_of_tiles(answer("clear", 0.98), BLANK, answer("clear", 0.95)).verdict
    assert (result.pred, result.confidence, result.outcome, result.judgeable) == ("clear", 0.95, "refer", False)
    result = strip_of_tiles(answer("clear", 0.98), STRANGE).verdict
    assert (result.pred, result.outcome, result.ood_score) == ("clear", "unfamiliar", 1.5)


def test_a_class_is_in_the_strip_if_a_tile_has_it():
    def tile(outcome, hole, scratch, defects, **more):
        logits, probs = np.log([hole, scratch]).astype(np.float32), {"hole": hole, "scratch": scratch}
        return Prediction("", "hole", outcome, probs, logits, 0.5, "", "", defects=defects, **more)

    first, second = tile("defect", 0.7, 0.1, ("hole",)), tile("defect", 0.2, 0.9, ("scratch",))
    blank = tile("refer", 0.99, 0.99, ("hole", "scratch"), judgeable=False)
    clear = tile("clear", 0.01, 0.02, ())
    result = strip_of_tiles(clear, first, second, blank).verdict
    assert (result.outcome, result.defects, result.probs) == (
        "defect",
        ("scratch", "hole"),
        {"hole": 0.7, "scratch": 0.9},
    )
    np.testing.assert_allclose(result.logits, np.log([0.7, 0.9]), rtol=1e-6)
    assert strip_of_tiles(clear, clear).verdict.outcome == "clear"
    assert strip_of_tiles(clear, tile("refer", 0.3, 0.1, ())).verdict.outcome == "refer"
    result = strip_of_tiles(clear, blank).verdict
    assert (result.outcome, result.defects, result.probs["hole"]) == ("refer", (), 0.01)


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
    card = checkpoint.card.replace(input_size=learnt)
    assert needs_tiling(Predictor(dataclasses.replace(checkpoint, card=card), "cpu"), *size) is in_tiles


def test_the_command_line_judges_a_strip_in_tiles(checkpoint_folder, checkpoint, tmp_path, capsys):
    image = steel_image(70, 500, seed=3)
    (tmp_path / "long.png").write_bytes(encode_png(image.pixels))
    assert main(["predict", str(tmp_path / "long.png"), "--checkpoint", str(checkpoint_folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["results"][0]
    result = predict_images(Predictor(checkpoint), [image])[0]
    assert answer["outcome"] == result.verdict.outcome and "tiles" in answer["note"]
    assert [(tile["left"], tile["top"]) for tile in answer["tiles"]] == [(box.xmin, box.ymin) for box in result.tiles]
    assert [tile["outcome"] for tile in answer["tiles"]] == [one.outcome for one in result.predictions]


def test_the_command_line_explains_the_worst_tile_and_the_whole_strip(checkpoint_folder, checkpoint, tmp_path, capsys):
    image = steel_image(70, 500, seed=3)
    (tmp_path / "long.png").write_bytes(encode_png(image.pixels))
    call = ["explain", str(tmp_path / "long.png"), "--methods", "grad-cam,occlusion", "--json", "--device", "cpu"]
    assert main([*call, "--checkpoint", str(checkpoint_folder), "--out", str(tmp_path / "maps")]) == 0
    answer = json.loads(capsys.readouterr().out)["results"][0]
    predictor = Predictor(checkpoint, "cpu")
    result = predict_images(predictor, [image])[0]
    assert answer["note"] == result.decisive.note and "this is the worst, number" in answer["note"]
    assert set(answer["maps"]) == {"grad-cam", "occlusion"} and set(answer["whole"]["maps"]) == {"grad-cam"}
    part = predictor.explain(result.decisive_part(image), "grad-cam", result.decisive.pred)
    whole = explain_tiled(predictor, image, "grad-cam", result.decisive.pred)
    for expected, names in ((part, answer["maps"]["grad-cam"]), (whole, answer["whole"]["maps"]["grad-cam"])):
        np.testing.assert_allclose(np.load(tmp_path / "maps" / names["npy"]), expected.values, atol=1e-7)


# The stitched map


@settings(deadline=None)
@given(st.integers(4, 400), st.integers(0, 3000), st.sampled_from([1, 16, 20.48]))
def test_what_tiles_count_sums_to_one_everywhere(side, more, cell):
    total = np.zeros(side + more)
    for start, weights in _windows(_starts(side + more, side, cell), side).items():
        assert weights.shape == (side,) and (weights > -1e-6).all()
        total[start : start + side] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("method", TILED_METHODS)
def test_the_map_of_a_picture_that_is_no_strip_is_its_map(checkpoint, method):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(64, 64, seed=5)
    alone, result = predictor.explain(image, method, "defect"), explain_tiled(predictor, image, method, "defect")
    np.testing.assert_array_equal(result.values, alone.values)
    assert result.provenance() | {"seconds": 0} == alone.provenance() | {"seconds": 0}


def test_the_map_of_a_large_picture_is_stitched_both_ways(checkpoint, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 50_000)
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(200, 300, seed=6)
    answer = []
    result = explain_tiled(predictor, image, target="defect", progress=lambda what, done, of: answer.append((done, of)))
    count = len(tile_boxes(predictor, image))
    assert result.values.shape == (200, 300) and answer == [(i + 1, count) for i in range(count)] and count > 4
    corner = predictor.explain(crop_tile(image, Box("", 0, 0, 128, 128)), "grad-cam", "defect").values
    np.testing.assert_allclose(result.values[:60, :60], resize(corner, 128, 128)[:60, :60], rtol=1e-5, atol=1e-9)


def test_a_strip_is_explained_for_the_class_of_its_worst_tile(checkpoint):
    predictor, image = Predictor(checkpoint, "cpu"), steel_image(70, 500, seed=3)
    assert explain_tiled(predictor, image).target == predict_images(predictor, [image])[0].verdict.pred
    with pytest.raises(UsageError, match="expected grad-cam or guided-grad-cam, got 'shap'"):
        explain_tiled(predictor, image, "shap")
    with pytest.raises(UsageError, match="unknown class 'dent'"):
        explain_tiled(predictor, image, target="dent")


@pytest.fixture(scope="module")
def mill():
    """A checkpoint that has learnt something, and nine sheets side by side, a defect on every second.

    A tile of 200 pixels leaves 8 of them beside its last cell of 16; so does the strip, cut to 1784 and moved by half a
    cell. So the cells of all maps are enlarged by nearly the same factor.
    """
    sheets = [StripMill(size=(200, 200), seed=1).render(i, ("clear", "patches")[i % 2]).pixels for i in range(9)]
    pixels = np.concatenate(sheets, axis=1)
    return Predictor.load("strip-mill", "cpu"), pixels[:, :1784], pixels[:, 8:1792]


def strip_of(pixels: np.ndarray) -> SteelImage:
    return SteelImage(np.ascontiguousarray(pixels), "strip.png", "")


def untiled(predictor: Predictor, pixels: np.ndarray, method: str) -> np.ndarray:
    """The map of a whole strip, seen by the network in one piece.

    The head averages over the whole grid, so each place counts as much less as the strip is longer than a tile; in
    Guided Grad-CAM twice, as it is the product of two such maps.
    """
    inputs = predictor.card.preprocessing.normalise(torch.from_numpy(strip_of(pixels).grey())[None, None])
    result = EXPLAINERS[method]().attribute(predictor.model, inputs, torch.tensor([1]))[0, 0].numpy()
    return result * (pixels.shape[1] / pixels.shape[0]) ** (2 if method == "guided-grad-cam" else 1)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Relative L2, without the strip's ends."""
    return float(np.linalg.norm((a - b)[:, 50:-50]) / np.linalg.norm(b[:, 50:-50]))


@pytest.mark.parametrize("method", TILED_METHODS)
def test_the_stitched_map_is_that_of_the_whole_strip(mill, method):
    """The limit follows from the network, not from the outcome.

    Its grid has a cell each 16 pixels, so it cannot tell a place to better than half a cell: the map of the very same
    strip moved by 8 pixels is another. Stitching may cost less than that, in both measures.
    """
    predictor, still, moved = mill
    whole, again = untiled(predictor, still, method), untiled(predictor, moved, method)[:, :-8]
    stitched = explain_tiled(predictor, strip_of(still), method, "defect").values
    assert apart(stitched, whole) < apart(again, whole[:, 8:])
    middle = np.s_[:, 50:-50]
    alike = np.corrcoef(stitched[middle].ravel(), whole[middle].ravel())[0, 1]
    assert alike > np.corrcoef(again[middle].ravel(), whole[:, 8:][middle].ravel())[0, 1]


@pytest.mark.parametrize("method", TILED_METHODS)
def test_the_stitched_map_has_no_seams(mill, method):
    """The limit is a sum: where a fades into b over some pixels, w a + (1 - w) b is nowhere steeper than a, b and their

    distance spread over the ramp. Tiles laid side by side jump by the whole distance, and break it.
    """
    predictor, pixels, _ = mill
    places, stitched = (
        tile_boxes(predictor, strip_of(pixels)),
        explain_tiled(predictor, strip_of(pixels), method, "defect").values,
    )
    maps = np.full((len(places), *pixels.shape), np.nan, np.float32)
    for values, box in zip(maps, places, strict=True):
        values[:, box.xmin : box.xmax] = predictor.explain(crop_tile(strip_of(pixels), box), method, "defect").values
    ramp = 0.75 * min(one.xmax - following.xmin for one, following in pairwise(places))
    own = np.nanmax(np.abs(np.diff(maps, axis=2)), axis=0)
    between = np.nanmax(maps, axis=0) - np.nanmin(maps, axis=0)
    limit = own + np.maximum(between[:, :-1], between[:, 1:]) / ramp + 1e-6 * np.abs(stitched).max()
    assert (np.abs(np.diff(stitched, axis=1)) <= limit).all()
    side_by_side = stitched.copy()
    for values, box in zip(maps, places, strict=True):
        side_by_side[:, box.xmin : box.xmax] = values[:, box.xmin : box.xmax]
    assert (np.abs(np.diff(side_by_side, axis=1)) > limit).any()
