"""Long strips and large pictures: judged in overlapping tiles, because a network shrinks what it sees to its input.

A model has learnt defects at one size. A strip of 256 x 6400 pixels squeezed into 200 x 400 shows it none of them;
so each tile is judged on its own, and the strip is as bad as its worst tile.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steel_core.data.base import Progress
from steel_core.inference import Predictor
from steel_core.types import CLEAR, REFER, UNFAMILIAR, Box, Prediction, SteelImage

LONG = 4.0
"""A picture whose longer side is more than so many times the shorter one is a strip."""

LARGE = 16_000_000
"""So is one of more pixels than this."""

OVERLAP = 0.25
"""Share of a tile's side that the next one repeats at least, so that a defect on a seam is whole in one of them."""

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

    def _sure(self, i: int) -> float:
        return self.predictions[i].confidence if _severity(self.predictions[i].outcome) == 2 else 0.0


def is_strip(height: int, width: int) -> bool:
    """Whether a picture of this size should be judged in tiles."""
    return max(height, width) > LONG * min(height, width) or height * width > LARGE


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


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one side, evenly spread from end to end."""
    count = 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
    return [int(start) for start in np.linspace(0, length - side, count).round()]


def _severity(outcome: str) -> int:
    return {CLEAR: 0, REFER: 1, UNFAMILIAR: 1}.get(outcome, 2)
