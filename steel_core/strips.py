"""Long strips and large pictures: judged in overlapping tiles, because a network shrinks what it sees to its input.

A model has learnt defects at one size. A strip of 256 x 6400 pixels squeezed into 200 x 400 shows it none of them;
so each tile is judged on its own, and the strip is as bad as its worst tile. The maps of the tiles are stitched into
one of the whole strip.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core.data.base import Progress
from steel_core.data.transforms import resize
from steel_core.errors import UsageError
from steel_core.inference import Predictor
from steel_core.types import CLEAR, REFER, UNFAMILIAR, Attribution, Box, Prediction, SteelImage

LONG = 4.0
"""A picture whose longer side is more than so many times the shorter one is a strip."""

LARGE = 16_000_000
"""So is one of more pixels than this."""

OVERLAP = 0.25
"""Share of a tile's side that the next one repeats at least, so that a defect on a seam is whole in one of them."""

METHODS = ("grad-cam", "guided-grad-cam")
"""The explainers whose maps are stitched: one pass a tile, and what they say of a place hangs on its surroundings."""

_RAMP = 0.75  # share of an overlap in which one tile's map fades into the next; nearer to its edge a tile is not heard
_ZOOM = 2  # a tile's side is at most so many times the input's: finer defects would be lost
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Strip:
    """The verdict on each tile of a picture, and on the whole.

    Attributes:
        tiles: where each tile lies, in pixels of the picture; row by row.
        predictions: of each tile.
        height: of the picture in pixels.
        width: of the picture in pixels.
    """

    tiles: tuple[Box, ...]
    predictions: tuple[Prediction, ...]
    height: int
    width: int

    @property
    def worst(self) -> int:
        """Number of the tile that decides: the surest defect, else the first that a person must see, else the first."""
        return max(range(len(self.tiles)), key=lambda i: (_severity(self.predictions[i].outcome), self._sure(i), -i))

    @property
    def outcome(self) -> str:
        """A defect where any tile shows one; else "refer" where a person must see any; else "clear"."""
        said = self.predictions[self.worst].outcome
        return REFER if said == UNFAMILIAR else said

    @property
    def counts(self) -> dict[str, int]:
        """How many tiles got each outcome, the most frequent first."""
        return dict(Counter(one.outcome for one in self.predictions).most_common())

    @property
    def verdict(self) -> Prediction:
        """That on the worst tile, whose note says so: what is told where a picture gets a single verdict."""
        one, box = self.predictions[self.worst], self.tiles[self.worst]
        where = f"{box.xmin} pixels from the left, {box.ymin} from the top"
        note = f"judged in {len(self.tiles)} tiles; this is the worst, number {self.worst + 1}, {where}"
        return replace(one, note="; ".join(filter(None, (note, one.note))))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write: the verdict, and in `tiles` the place and the verdict of each tile."""
        return self.verdict.to_json() | {
            "tiles": [
                {"left": box.xmin, "top": box.ymin, "side": box.xmax - box.xmin, "pred": one.pred,
                 "outcome": one.outcome, "probs": one.probs, "note": one.note}
                for box, one in zip(self.tiles, self.predictions, strict=True)
            ]
        }  # fmt: skip

    def _sure(self, i: int) -> float:
        return self.predictions[i].confidence if _severity(self.predictions[i].outcome) == 2 else 0.0


def is_strip(height: int, width: int) -> bool:
    """Whether a picture of this size should be judged in tiles."""
    return max(height, width) > LONG * min(height, width) or height * width > LARGE


def judged_in_tiles(predictor: Predictor, height: int, width: int) -> bool:
    """Whether a checkpoint should judge a picture of this size in tiles: a strip, unless it has learnt from strips."""
    _, squeezed = predictor.card.preprocessing.grid_size(height, width)
    return is_strip(height, width) and (squeezed or height * width > LARGE)


def tiles(height: int, width: int, input_size: tuple[int, int]) -> list[Box]:
    """Squares that cover a picture, row by row, neighbours overlapping by a quarter at least.

    Their side is the picture's shorter one, or twice the shorter side of the network's input where that is less.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        input_size: height and width of the network's input in pixels.
    """
    side = min(height, width, _ZOOM * min(input_size))
    return [
        Box("", left, top, left + side, top + side)
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]  # fmt: skip


def cut(image: SteelImage, tile: Box) -> SteelImage:
    """The part of a picture that a tile covers; it shares the picture's pixels."""
    pixels = image.pixels[tile.ymin : tile.ymax, tile.xmin : tile.xmax]
    return SteelImage(pixels, image.name, image.sha256, image.note)


def predict_strip(predictor: Predictor, image: SteelImage, progress: Progress | None = None) -> Strip:
    """The verdict on each tile of a picture. Memory is bounded by the picture and some tiles.

    Args:
        predictor: the checkpoint.
        image: any size.
        progress: told how many tiles are done.
    """
    places = tiles(image.height, image.width, predictor.card.input_size)
    said: list[Prediction] = []
    for start in range(0, len(places), _CHUNK):
        part: Sequence[Box] = places[start : start + _CHUNK]
        said += predictor.predict([cut(image, tile) for tile in part])
        if progress:
            progress(len(said), len(places))
    return Strip(tuple(places), tuple(said), image.height, image.width)


def explain_strip(
    predictor: Predictor,
    image: SteelImage,
    method: str = METHODS[0],
    target: str | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Evidence for one class along a whole picture, stitched from the maps of its tiles.

    In an overlap one tile's map fades into the next, and the edge of a tile, where the network sees the padding, is
    left out. Every value is that of a tile judged on its own, so the scale of ordinary pictures holds. Memory is
    bounded by the picture, a map of its size, and one tile.

    Args:
        predictor: the checkpoint.
        image: any size.
        method: one of `METHODS`.
        target: a class of the checkpoint, the same for all tiles; None for the predicted class of the worst tile.
        progress: told how many tiles are done.

    Returns:
        What `Predictor.explain` returns; its values are in the pixels of the picture itself.

    Raises:
        UsageError: unknown method or class.
    """
    if method not in METHODS:
        raise UsageError(f"a map of a strip: expected {' or '.join(METHODS)}, got {method!r}")
    started = time.perf_counter()
    target = target or predict_strip(predictor, image).verdict.pred
    places = tiles(image.height, image.width, predictor.card.input_size)
    side = places[0].xmax - places[0].xmin
    down, right = (_windows(length, side) for length in (image.height, image.width))
    values = np.zeros((image.height, image.width), dtype=np.float32)
    for done, box in enumerate(places, 1):
        found = predictor.explain(cut(image, box), method, target)
        weighed = resize(found.values, side, side) * down[box.ymin][:, None] * right[box.xmin]
        values[box.ymin : box.ymax, box.xmin : box.xmax] += weighed
        if progress:
            progress(done, len(places))
    return replace(found, values=values, seconds=time.perf_counter() - started)


def judge(predictor: Predictor, image: SteelImage) -> Prediction:
    """The verdict on a picture of any size: that on its worst tile where it is judged in tiles."""
    if judged_in_tiles(predictor, image.height, image.width):
        return predict_strip(predictor, image).verdict
    return predictor.predict([image])[0]


def _windows(length: int, side: int) -> dict[int, npt.NDArray[np.float32]]:
    """How much each tile counts along one side (side,), by where it begins; at every pixel they sum to one."""
    starts = _starts(length, side)
    found = {start: np.ones(side, dtype=np.float32) for start in starts}
    places = np.arange(side) + 0.5
    for before, after in pairwise(starts):
        found[before] -= _fade(before, after, side, before + places)
        found[after] -= 1 - _fade(before, after, side, after + places)
    return found


def _fade(before: int, after: int, side: int, at: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """How much the later one of two tiles counts at some places, with all that follow it: 0 to 1."""
    overlap = before + side - after
    return np.clip((at - (after + overlap / 2)) / max(_RAMP * overlap, 1) + 0.5, 0, 1, dtype=np.float32)


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one side, evenly spread from end to end."""
    count = 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
    return sorted({int(start) for start in np.linspace(0, length - side, count).round()})


def _severity(outcome: str) -> int:
    return {CLEAR: 0, REFER: 1, UNFAMILIAR: 1}.get(outcome, 2)
