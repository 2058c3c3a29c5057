"""From a map to a region: one post-processing for all methods, so that a ranking compares methods and not tunings.

Blur, then everything above mean + k * std of the evidence on the images that the rule was chosen on, then pieces that
are too small are dropped. One fixed threshold for all images of a method: a sheet without evidence has no region.

Legend of shapes: N images, H rows and W columns of the map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from steel_core.data.annotations import mask_to_boxes
from steel_core.errors import UsageError
from steel_core.models.card import RegionRule
from steel_core.types import Box, Float32Array, Mask

BLURS = (0.0, 2.0, 4.0, 8.0)  # standard deviations that are tried, in pixels of the map
STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # values of k that are tried
SMALLEST = (0.0, 0.001, 0.004, 0.01)  # smallest pieces that are tried, as shares of the map


@dataclass(frozen=True, slots=True)
class Region:
    """Where the evidence for a class lies: a mask (H, W), and a box around each connected piece (8 neighbours)."""

    mask: Mask
    boxes: tuple[Box, ...]

    @property
    def area(self) -> float:
        """Share of the image, 0 to 1."""
        return float(self.mask.mean())


def map_to_region(
    evidence: Float32Array, rule: RegionRule, label: str = "", size: tuple[int, int] | None = None
) -> Region:
    """The region of one map (H, W); on a picture of `size` (height, width in pixels), not its grid, if given."""
    mask = region_mask(evidence, rule)
    if size is not None and size != mask.shape:
        height, width = size
        mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return Region(mask, tuple(mask_to_boxes(mask.astype(np.uint8), {1: label})))


def region_mask(evidence: Float32Array, rule: RegionRule) -> Mask:
    """(H, W), True inside the region of a map (H, W)."""
    return _without_small(_blurred(evidence, rule.blur) > rule.threshold, rule.smallest)


def choose_rule(maps: Sequence[Float32Array], truths: Sequence[Mask | None], chosen_on: str) -> RegionRule:
    """The rule with the largest mean Dice on images with masks; the defaults where there are none.

    Blur and k are chosen together, then the smallest piece. Serve it other images than those it is judged on, and say
    in `chosen_on` which. Maps and masks (H, W) may differ in size; None is for an image of which nothing is on file.

    Raises:
        UsageError: there is no map.
    """
    if not maps:
        raise UsageError("a rule for regions needs maps to choose on, got none")
    masks = {row: truth for row, truth in enumerate(truths) if truth is not None}
    if not masks:
        default = RegionRule(mean=0.0, std=0.0)
        mean, std = _moments([_blurred(values, default.blur) for values in maps])
        return RegionRule(mean=mean, std=std)

    def mean_dice(smooth: Sequence[Float32Array], rule: RegionRule) -> float:
        regions = {row: _without_small(smooth[row] > rule.threshold, rule.smallest) for row in masks}
        return float(np.mean([dice(regions[row], truth) for row, truth in masks.items()]))

    scores: list[tuple[float, RegionRule]] = []
    for blur in BLURS:
        smooth = [_blurred(values, blur) for values in maps]
        mean, std = _moments(smooth)
        for k in STEPS:
            rule = RegionRule(mean=mean, std=std, k=k, blur=blur, smallest=0.0, chosen_on=chosen_on)
            scores.append((mean_dice(smooth, rule), rule))
    _, best = max(scores, key=lambda pair: pair[0])
    smooth = [_blurred(values, best.blur) for values in maps]
    return max((best.replace(smallest=share) for share in SMALLEST), key=lambda rule: mean_dice(smooth, rule))


def dice(mask: Mask, truth: Mask) -> float:
    """Twice the common area over the sum of both areas, 0 to 1; 1 where both are empty (Dice, Ecology 26, 1945)."""
    both = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / both if both else 1.0


def _blurred(values: Float32Array, blur: float) -> Float32Array:
    if not blur:
        return values
    return np.asarray(cv2.GaussianBlur(values, (0, 0), blur, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _moments(maps: Sequence[Float32Array]) -> tuple[float, float]:
    pixels = np.concatenate([values.ravel() for values in maps]).astype(np.float64)
    return float(pixels.mean()), float(pixels.std())


def _without_small(mask: Mask, smallest: float) -> Mask:
    least = smallest * mask.size
    if least <= 1 or not mask.any():
        return mask
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return np.asarray(keep[pieces])
