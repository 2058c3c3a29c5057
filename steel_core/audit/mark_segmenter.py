"""Marks of one class, segmented by what was learnt from the data themselves.

`find_marks` misses some marks, and sees only a part of large ones. What marks look like, against all that pictures of
other classes show, is learnt pixel by pixel from those, and then found in every picture, as far as it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from steel_core.audit.marks import dilate_mask
from steel_core.types import BoolArray, Float32Array, Grey, Mask

_ROUNDS = 2  # what the first found teaches the second
_PIXELS = 60  # of a picture, to learn from
_LEVEL, _CERTAIN = 0.4, 0.6  # a mark reaches so far; so likely it is somewhere
_LEAST = 0.004  # share of the picture
_RIM = 0.12  # of the square root of a mark's area: its soft edge
_LEAST_CUT = 5  # marks to learn from


@dataclass(frozen=True, eq=False)
class MarkSegmenter:
    """Tells the pixels of marks; made by `learn`."""

    forest: HistGradientBoostingClassifier

    @classmethod
    def learn(cls, grids: Sequence[Grey], seeds: Sequence[Mask], suspected: BoolArray) -> MarkSegmenter | None:
        """Of pictures (H, W), the marks (H, W) seen so far, and which (N,) are of the class that has them.

        None where too few have any, or all pictures are of one class.
        """
        features = [_describe_pixels(grid) for grid in grids]
        marked, learnt = list(seeds), None
        for _ in range(_ROUNDS):
            inside = [_draw_pixels(f, _shrink(m)) for f, m, s in zip(features, marked, suspected, strict=True) if s]
            others = [
                _draw_pixels(f, np.ones(f.shape[:2], bool)) for f, s in zip(features, suspected, strict=True) if not s
            ]
            if sum(len(pixels) > 0 for pixels in inside) < _LEAST_CUT or not others:
                return None
            pixels = np.concatenate([*inside, *others])
            are_marks = np.arange(len(pixels)) < sum(map(len, inside))
            forest = HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=15, class_weight="balanced", random_state=0
            )
            learnt = cls(forest.fit(pixels, are_marks))
            marked = [learnt._segment(f) for f in features]
        return learnt

    def segment(self, grid: Grey) -> Mask:
        """The marks of a picture (H, W), as far as they cover it fully or nearly so."""
        return self._segment(_describe_pixels(grid))

    def _segment(self, features: Float32Array) -> Mask:
        height, width, count = features.shape
        likely = self.forest.predict_proba(features.reshape(-1, count))[:, 1].reshape(height, width)
        likely = cv2.GaussianBlur(likely.astype(np.float32), (0, 0), 1.0)
        number, pieces = cv2.connectedComponents((likely > _LEVEL).astype(np.uint8))
        keep = np.bincount(pieces.ravel(), (likely > _CERTAIN).ravel(), number) >= _LEAST * likely.size
        keep[0] = False
        return np.asarray(keep[pieces], bool)


def grow_edge(mark: Mask) -> Mask:
    """A mark (H, W) with its soft edge."""
    return dilate_mask(mark, max(2, round(_RIM * float(mark.sum()) ** 0.5)))


def choose_least_area(areas: Float32Array, suspected: BoolArray) -> float:
    """The share of a picture above which marks best tell pictures of a class (N,) from the others, by Youden's J."""
    levels = np.unique(np.quantile(areas, np.linspace(0, 1, 60)))
    ahead = [(areas[suspected] > level).mean() - (areas[~suspected] > level).mean() for level in levels]
    return float(levels[int(np.argmax(ahead))])


def _describe_pixels(grid: Grey) -> Float32Array:
    """(H, W, F): light at three scales, by itself and above the darker steel, and grain at two."""
    fine, middle, wide = (cv2.GaussianBlur(grid, (0, 0), sigma) for sigma in (1.5, 4, 8))
    detail = (grid - cv2.GaussianBlur(grid, (0, 0), 1.2)) ** 2
    grain = [np.log(cv2.GaussianBlur(detail, (0, 0), sigma) + 1e-6) for sigma in (1.5, 4)]
    dark, darker = np.quantile(middle, [0.3, 0.1])
    layers = [fine, middle, wide, *grain, middle - wide, fine - dark, fine - darker]
    return np.stack(layers, axis=-1).astype(np.float32)


def _draw_pixels(features: Float32Array, mask: Mask) -> Float32Array:
    places = np.flatnonzero(mask)
    drawn = np.random.default_rng(len(places)).choice(places, min(_PIXELS, len(places)), replace=False)
    return features.reshape(-1, features.shape[2])[drawn]


def _shrink(mask: Mask) -> Mask:
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
