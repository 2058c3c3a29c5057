"""From a map to a region: one post-processing for all methods, so that a ranking compares methods and not tunings.

Blur, then everything above mean + k * std of the evidence on the images that the rule was chosen on, then pieces that
are too small are dropped. One fixed threshold for all images of a method: a sheet without evidence has no region.

Legend of shapes: N images, H rows and W columns of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from steel_core.data.annotations import mask_to_boxes
from steel_core.errors import UsageError
from steel_core.types import Box

Mask = npt.NDArray[np.bool_]
Evidence = npt.NDArray[np.float32]

BLURS = (0.0, 2.0, 4.0, 8.0)
"""Standard deviations that are tried, in pixels of the map."""

STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Values of k that are tried."""

SMALLEST = (0.0, 0.001, 0.004, 0.01)
"""Smallest pieces that are tried, as shares of the map."""


@dataclass(frozen=True, slots=True)
class RegionRule:
    """How the maps of one method of one checkpoint become regions.

    Attributes:
        mean: of the blurred evidence over all pixels of the images it was chosen on.
        std: its standard deviation.
        k: the threshold lies k standard deviations above the mean.
        blur: standard deviation of the blur, in pixels of the map; comes on top of the method's own.
        smallest: a connected piece with a smaller share of the map is dropped, 0 to 1.
        chosen_on: in words: on what blur, k and smallest piece were chosen; empty if they are the defaults.
    """

    mean: float
    std: float
    k: float = 1.0
    blur: float = 4.0
    smallest: float = 0.004
    chosen_on: str = ""

    @property
    def threshold(self) -> float:
        """Evidence above it belongs to the region; never negative, as that would speak against the class."""
        return max(self.mean + self.k * self.std, 0.0)

    @property
    def words(self) -> str:
        """The rule for people."""
        chosen = f"chosen on {self.chosen_on}" if self.chosen_on else "not chosen on any image with a mask"
        return f"blur {self.blur:g}, threshold mean + {self.k:g} std, pieces of at least {self.smallest:.1%}; {chosen}"

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write, and that `RegionRule(**...)` reads."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Region:
    """Where the evidence for a class lies.

    Attributes:
        mask: (H, W), True inside.
        boxes: one around each connected piece (8 neighbours).
    """

    mask: Mask
    boxes: tuple[Box, ...]

    @property
    def area(self) -> float:
        """Share of the image, 0 to 1."""
        return float(self.mask.mean())


def region(evidence: Evidence, rule: RegionRule, label: str = "", size: tuple[int, int] | None = None) -> Region:
    """The region of one map.

    Args:
        evidence: (H, W), what `render.evidence` gives.
        rule: of the method that made the map.
        label: name for the boxes.
        size: height and width of the picture in pixels, where the region shall lie on it and not on the map's grid.
    """
    mask = region_mask(evidence, rule)
    if size is not None and size != mask.shape:
        height, width = size
        mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return Region(mask, tuple(mask_to_boxes(mask.astype(np.uint8), {1: label})))


def region_mask(evidence: Evidence, rule: RegionRule) -> Mask:
    """(H, W), True inside the region of a map (H, W)."""
    return _without_small(_blurred(evidence, rule.blur) > rule.threshold, rule.smallest)


def choose_rule(maps: Sequence[Evidence], truths: Sequence[Mask | None], chosen_on: str) -> RegionRule:
    """The rule with the largest mean Dice on images with masks; the defaults where there are none.

    Blur and k are chosen together, then the smallest piece. Serve it other images than those it is judged on.

    Args:
        maps: evidence (H, W) of each image; sizes may differ.
        truths: mask (H, W) of each image, or None where nothing is on file.
        chosen_on: what the images are, in words.

    Raises:
        UsageError: there is no map.
    """
    if not maps:
        raise UsageError("a rule for regions needs maps to choose on, got none")
    known = [(i, truth) for i, truth in enumerate(truths) if truth is not None]
    if not known:
        default = RegionRule(0.0, 0.0)
        mean, std = _moments([_blurred(values, default.blur) for values in maps])
        return RegionRule(mean, std)
    best, chosen = -1.0, RegionRule(0.0, 0.0)
    for blur in BLURS:
        smooth = [_blurred(values, blur) for values in maps]
        mean, std = _moments(smooth)
        for k in STEPS:
            rule = RegionRule(mean, std, k, blur, 0.0, chosen_on)
            score = float(np.mean([dice(smooth[i] > rule.threshold, truth) for i, truth in known]))
            if score > best:
                best, chosen = score, rule
    best = -1.0
    settled = chosen
    wide = [(_blurred(maps[i], settled.blur) > settled.threshold, truth) for i, truth in known]
    for smallest in SMALLEST:
        score = float(np.mean([dice(_without_small(mask, smallest), truth) for mask, truth in wide]))
        if score > best:
            best = score
            chosen = RegionRule(settled.mean, settled.std, settled.k, settled.blur, smallest, chosen_on)
    return chosen


def dice(found: Mask, truth: Mask) -> float:
    """Twice the common area over the sum of both areas, 0 to 1; 1 where both are empty.

    Source: Dice, Ecology 26, 1945.
    """
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0


def _blurred(values: Evidence, blur: float) -> Evidence:
    if not blur:
        return values
    return np.asarray(cv2.GaussianBlur(values, (0, 0), blur, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _moments(maps: Sequence[Evidence]) -> tuple[float, float]:
    pixels = np.concatenate([values.ravel() for values in maps]).astype(np.float64)
    return float(pixels.mean()), float(pixels.std())


def _without_small(mask: Mask, smallest: float) -> Mask:
    """The pieces (8 neighbours) with at least that share of the mask's area."""
    least = smallest * mask.size
    if least <= 1 or not mask.any():
        return mask
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return np.asarray(keep[pieces])
