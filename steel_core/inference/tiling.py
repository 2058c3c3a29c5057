"""Long strips and large pictures: judged in overlapping tiles, because a network shrinks what it sees to its input.

A strip of 256 x 6400 pixels squeezed into 200 x 400 shows none of its defects; so each tile is judged on its own, the
strip is as bad as its worst tile, and the maps of the tiles are stitched into one. `predict_images` is the one way from
pictures to verdicts: pages, commands and evaluations call it, so that what is counted is what an inspector is told.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np

from steel_core.data.index import DatasetIndex
from steel_core.data.transforms import Preprocessing, resize
from steel_core.device import batch_size
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, DEFECT, REFER, AnyArray, Attribution, Box, Float32Array, Prediction, SteelImage

LONG = 4.0
"""A picture whose longer side is more than so many times the shorter one is a strip."""

LARGE = 16_000_000
"""So is one of more pixels than this."""

OVERLAP = 0.25
"""Share of a tile's side that the next one repeats at least, so that a defect on a seam is whole in one of them."""

BLACK = 16 / 255
"""No brighter than this is black (the black level of video, ITU-R BT.601): at the ends of a strip, no steel."""

TILED_METHODS = ("grad-cam", "guided-grad-cam")
"""The explainers whose maps are stitched: one pass a tile, and what they say of a place hangs on its surroundings."""

_RAMP = 0.75  # share of an overlap in which one tile's map fades into the next; nearer to its edge a tile is not heard
_ZOOM = 2  # a tile is at most so many times as large as the input: finer defects would be lost
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class TiledPrediction:
    """The predictions of a picture, of all of it or tile by tile; `tiles` are in its pixels, row by row."""

    tiles: tuple[Box, ...]
    predictions: tuple[Prediction, ...]
    height: int
    width: int

    @property
    def worst(self) -> int:
        """Number of the tile that decides.

        The surest of those whose likeliest class is a defect; else the first that cannot be judged, so that a person
        must see it; else the one least surely clear. No threshold has a part in it, so new thresholds ask no new look.
        Where classes have unlike thresholds, the surest tile may be referred although a less sure one names its defect.
        """
        return max(range(len(self.tiles)), key=lambda i: (*_badness(self.predictions[i]), -i))

    @property
    def decisive(self) -> Prediction:
        """That of the worst tile alone, whose note tells its place."""
        one, box = self.predictions[self.worst], self.tiles[self.worst]
        if len(self.tiles) == 1:
            return one
        where = f"{box.xmin} pixels from the left, {box.ymin} from the top"
        note = f"judged in {len(self.tiles)} tiles; this is the worst, number {self.worst + 1}, {where}"
        return replace(one, note="; ".join(filter(None, (note, self.black_ends, one.note))))

    def decisive_part(self, image: SteelImage) -> SteelImage:
        """What the worst tile covers of the picture: what there is to explain, where only one look can be."""
        return crop_tile(image, self.tiles[self.worst])

    @property
    def verdict(self) -> Prediction:
        """That on the whole picture: what the worst tile says.

        Where a tile that cannot be judged decides, its outcome stands beside the probabilities of the worst that can.
        Where several classes can be in one picture, a class is as likely as in the tile where it is likeliest.
        """
        decisive = self.decisive
        verdicts = [one for one in self.predictions if _has_verdict(one)]
        if len(self.tiles) == 1 or not verdicts:
            return decisive
        worst = max(verdicts, key=_badness)
        if worst.defects is not None:
            worst = _combine_defects(verdicts, worst)
        if _has_verdict(decisive):
            return replace(worst, note=decisive.note)
        return replace(
            worst, outcome=decisive.outcome, judgeable=decisive.judgeable, ood_score=decisive.ood_score,
            note=decisive.note,
        )  # fmt: skip

    @property
    def black_ends(self) -> str:
        """What no tile covers because it is black, in words; "" where the tiles cover everything."""
        beside = {
            "at the left": min(box.xmin for box in self.tiles),
            "at the right": self.width - max(box.xmax for box in self.tiles),
            "at the top": min(box.ymin for box in self.tiles),
            "at the bottom": self.height - max(box.ymax for box in self.tiles),
        }
        ends = " and ".join(f"{pixels:,} pixels {side}" for side, pixels in beside.items() if pixels)
        return f"{ends} are black, without steel, and were not judged" if ends else ""

    @property
    def counts(self) -> dict[str, int]:
        """How many tiles got each outcome, the most frequent first."""
        return dict(Counter(one.outcome for one in self.predictions).most_common())

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write: the verdict; in `tiles`, if several, the place and verdict of each."""
        if len(self.tiles) == 1:
            return self.verdict.to_json()
        return self.verdict.to_json() | {
            "tiles": [
                {"left": box.xmin, "top": box.ymin, "width": box.xmax - box.xmin, "height": box.ymax - box.ymin,
                 "pred": one.pred, "outcome": one.outcome, "probs": one.probs, "note": one.note}
                for box, one in zip(self.tiles, self.predictions, strict=True)
            ]
        }  # fmt: skip


def is_strip(height: int, width: int) -> bool:
    return max(height, width) > LONG * min(height, width) or height * width > LARGE


def needs_tiling(predictor: Predictor, height: int, width: int) -> bool:
    """Whether a checkpoint should judge a picture of this size in tiles: a strip, unless it has learnt from strips."""
    _, squeezed = predictor.card.preprocessing.grid_size(height, width)
    return is_strip(height, width) and (squeezed or height * width > LARGE)


def squeeze_warning(index: DatasetIndex, input_size: tuple[int, int]) -> str:
    """A sentence on the images whose proportions an input (H, W) must change at one look; "" if there are none.

    Only headers are read; an image that is refused does not count.
    """
    shape, count = Preprocessing(input_size, 0.0, 1.0), 0
    for i in range(len(index)):
        with suppress(ImageError, DataError):
            count += shape.grid_size(*index.size(i))[1]
    if not count:
        return ""
    return (
        f"{count:,} of {len(index):,} images do not fit an input of {input_size[0]} x {input_size[1]} pixels: they "
        "are squeezed out of proportion, and training sees no more than their middle. Cut them into pieces, or "
        "choose an input of their proportions."
    )


def grid_boxes(part: Box, input_size: tuple[int, int], stride: int = 1) -> list[Box]:
    """Boxes that cover a part of a picture, row by row, neighbours overlapping by a quarter at least.

    They have the proportions of the network's input (H, W), and are as large as the part allows, at most twice the
    input. All but the last ones begin where a cell of the network's grid does, `stride` pixels of the input from the
    one before, so that neighbours cut the picture into the same cells.
    """
    height, width = part.ymax - part.ymin, part.xmax - part.xmin
    zoom = min(height / input_size[0], width / input_size[1], _ZOOM)
    rows, columns = (max(1, round(zoom * side)) for side in input_size)
    return [
        Box("", part.xmin + left, part.ymin + top, part.xmin + left + columns, part.ymin + top + rows)
        for top in _starts(height, rows, zoom * stride)
        for left in _starts(width, columns, zoom * stride)
    ]  # fmt: skip


def tile_boxes(predictor: Predictor, image: SteelImage) -> list[Box]:
    """Where a checkpoint looks at a picture: at all of it; or at a strip tile by tile, without its black ends."""
    whole = Box("", 0, 0, image.width, image.height)
    if not needs_tiling(predictor, image.height, image.width):
        return [whole]
    shape = predictor.card.input_size, predictor.stride
    first = grid_boxes(whole, *shape)[0]
    return grid_boxes(_without_black_ends(image, first), *shape)


def crop_tile(image: SteelImage, tile: Box) -> SteelImage:
    """The part of a picture that a tile covers; it shares the picture's pixels."""
    pixels = image.pixels[tile.ymin : tile.ymax, tile.xmin : tile.xmax]
    return SteelImage(pixels, image.name, image.sha256, image.note)


def predict_images(
    predictor: Predictor, images: Sequence[SteelImage], progress: Progress = no_progress
) -> list[TiledPrediction]:
    """Predict pictures of any size, in the same order. Memory is bounded by them and some tiles."""
    boxes_of_each = [tile_boxes(predictor, image) for image in images]
    crops = [(image, box) for image, boxes in zip(images, boxes_of_each, strict=True) for box in boxes]
    predictions: list[Prediction] = []
    size = max(_CHUNK, 2 * batch_size(predictor.device))
    for start in range(0, len(crops), size):
        predictions += predictor.predict([crop_tile(image, box) for image, box in crops[start : start + size]])
        progress("looking at tiles", len(predictions), len(crops))
    rest = iter(predictions)
    return [
        TiledPrediction(tuple(boxes), tuple(islice(rest, len(boxes))), image.height, image.width)
        for image, boxes in zip(images, boxes_of_each, strict=True)
    ]


def explain_tiled(
    predictor: Predictor,
    image: SteelImage,
    method: str = TILED_METHODS[0],
    target: str | None = None,
    progress: Progress = no_progress,
) -> Attribution:
    """Evidence for one class in a whole picture; where it is judged in tiles, stitched from their maps.

    Tiles ask for one of `TILED_METHODS`, and for the predicted class of the worst if `target` is None. In an overlap
    one tile's map fades into the next, and the edge of a tile, where the network sees the padding, is left out. Every
    value is that of a tile judged on its own, so the scale of ordinary pictures holds. A stitched map is in the pixels
    of the picture; memory is bounded by both and one tile. UsageError for an unknown method or class.
    """
    boxes = tile_boxes(predictor, image)
    if len(boxes) == 1:
        return predictor.explain(image, method, target)
    if method not in TILED_METHODS:
        raise UsageError(f"a map of a strip: expected {' or '.join(TILED_METHODS)}, got {method!r}")
    started = time.perf_counter()
    target = target or predict_images(predictor, [image])[0].verdict.pred
    rows, columns = boxes[0].ymax - boxes[0].ymin, boxes[0].xmax - boxes[0].xmin
    down = _windows([box.ymin for box in boxes], rows)
    right = _windows([box.xmin for box in boxes], columns)
    values = np.zeros((image.height, image.width), dtype=np.float32)
    for done, box in enumerate(boxes, 1):
        attribution = predictor.explain(crop_tile(image, box), method, target)
        weighed = resize(attribution.values, rows, columns) * down[box.ymin][:, None] * right[box.xmin]
        values[box.ymin : box.ymax, box.xmin : box.xmax] += weighed
        progress("looking at tiles", done, len(boxes))
    return replace(attribution, values=values, seconds=time.perf_counter() - started)


def _without_black_ends(image: SteelImage, tile: Box) -> Box:
    """What lies between the first and the last pixels of a strip that are not black; all of it where there are none.

    Black between steel stays: there a lamp or a camera has failed. A pixel more than one tile is left at least, so that
    a strip is always told tile by tile.
    """
    along = 0 if image.height > image.width else 1
    across = tuple(axis for axis in range(image.pixels.ndim) if axis != along)
    lit = np.flatnonzero(image.pixels.max(axis=across) > BLACK * np.iinfo(image.pixels.dtype).max)
    length, least = image.pixels.shape[along], 1 + (tile.xmax if along else tile.ymax)
    if not lit.size or least > length:
        return Box("", 0, 0, image.width, image.height)
    begin = min(int(lit[0]), length - least)
    end = max(int(lit[-1]) + 1, begin + least)
    return Box("", begin, 0, end, image.height) if along else Box("", 0, begin, image.width, end)


def _has_verdict(one: Prediction) -> bool:
    return one.judgeable and not (one.ood_score is not None and one.ood_score > 1)


def _badness(one: Prediction) -> tuple[int, float]:
    if not _has_verdict(one):
        return 1, 0.0
    if one.defects is not None:  # each class has a probability of its own, and none is "clear"
        return (2 if one.confidence >= 0.5 else 0), one.confidence
    return (0, -one.confidence) if one.pred == CLEAR else (2, one.confidence)


def _combine_defects(verdicts: Sequence[Prediction], worst: Prediction) -> Prediction:
    """What tiles say together where several classes can be in one picture."""
    probs = {name: max(one.probs[name] for one in verdicts) for name in worst.probs}
    named = {name for one in verdicts for name in one.defects or ()}
    outcomes = {one.outcome for one in verdicts}
    return replace(
        worst,
        probs=probs,
        logits=np.max([one.logits for one in verdicts], axis=0),
        outcome=next(outcome for outcome in (DEFECT, REFER, CLEAR) if outcome in outcomes),
        defects=tuple(sorted(named, key=lambda name: -probs[name])),
    )


def _windows(begins: Sequence[int], side: int) -> dict[int, Float32Array]:
    """How much each tile counts along one side (side,), by where it begins; at every pixel they sum to one."""
    starts = sorted(set(begins))
    weights = {start: np.ones(side, dtype=np.float32) for start in starts}
    places = np.arange(side) + 0.5
    for before, after in pairwise(starts):
        weights[before] -= _fade(before, after, side, before + places)
        weights[after] -= 1 - _fade(before, after, side, after + places)
    return weights


def _fade(before: int, after: int, side: int, at: AnyArray) -> Float32Array:
    """How much the later one of two tiles counts at some places, with all that follow it: 0 to 1."""
    overlap = before + side - after
    return np.clip((at - (after + overlap / 2)) / max(_RAMP * overlap, 1) + 0.5, 0, 1, dtype=np.float32)


def _starts(length: int, side: int, cell: float) -> list[int]:
    """Where tiles begin along one side: whole cells apart, the last one at the end."""
    most = side * (1 - OVERLAP)
    step = cell * (most // cell) or most
    last = length - side
    return sorted({*(round(k * step) for k in range(math.ceil(last / step))), last})
