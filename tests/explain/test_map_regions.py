"""From map to region: pieces by hand, thresholds by formula, the choice by search."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from steel_core.errors import UsageError
from steel_core.explain.regions import BLURS, SMALLEST, STEPS, choose_rule, dice, map_to_region
from steel_core.models.card import RegionRule
from steel_core.types import Box


def blank(*shape):
    return np.zeros(shape, np.float32)


def test_a_region_by_hand():
    shown = blank(10, 12)
    shown[1:4, 2:6] = 2.0
    shown[6:9, 8:11] = 3.0
    shown[9, 0] = 9.0  # one pixel: too small
    result = map_to_region(shown, RegionRule(mean=0.5, std=0.5, k=1.0, blur=0.0, smallest=0.05), "scratches")
    expected = np.zeros((10, 12), bool)
    expected[1:4, 2:6] = expected[6:9, 8:11] = True
    np.testing.assert_array_equal(result.mask, expected)
    assert result.boxes == (Box("scratches", 2, 1, 6, 4), Box("scratches", 8, 6, 11, 9))
    assert result.area == pytest.approx(21 / 120)


def test_evidence_against_the_class_is_never_a_region():
    result = map_to_region(
        np.full((8, 8), -1.0, np.float32), RegionRule(mean=-2.0, std=0.1, k=0.0, blur=0.0, smallest=0.0)
    )
    assert not result.mask.any()
    assert result.boxes == ()


def test_a_region_on_the_picture_is_that_of_the_map_enlarged():
    shown = blank(10, 12)
    shown[1:4, 2:6] = 1.0
    result = map_to_region(shown, RegionRule(mean=0.0, std=0.5, k=1.0, blur=0.0, smallest=0.0), size=(30, 36))
    np.testing.assert_array_equal(result.mask, np.kron(shown > 0.5, np.ones((3, 3), bool)))
    assert result.boxes == (Box("", 6, 3, 18, 12),)


def test_pieces_touch_at_their_corners_and_are_counted_like_scipy():
    rng = np.random.default_rng(0)
    shown = ndimage.gaussian_filter(rng.standard_normal((60, 50)), 2).astype(np.float32)
    rule = RegionRule(mean=0.0, std=float(shown.std()), k=1.0, blur=0.0, smallest=0.01)
    pieces, count = ndimage.label(shown > rule.threshold, np.ones((3, 3)))
    large = [i for i in range(1, count + 1) if (pieces == i).sum() >= 0.01 * shown.size]
    result = map_to_region(shown, rule)
    np.testing.assert_array_equal(result.mask, np.isin(pieces, large))
    assert 0 < len(result.boxes) == len(large) < count


def test_dice():
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert dice(a, b) == 1.0
    a[0] = True
    b[:, :2] = True
    assert dice(a, a) == 1.0
    assert dice(a, ~a) == 0.0
    assert dice(a, b) == pytest.approx(2 * 2 / (4 + 4))


def noisy_maps(seed, n=6):
    """Maps that know where the square is, under noise."""
    rng = np.random.default_rng(seed)
    maps, truths = [], []
    for _ in range(n):
        truth = np.zeros((40, 40), bool)
        y, x = rng.integers(0, 24, 2)
        truth[y : y + 16, x : x + 16] = True
        maps.append((truth + rng.normal(0, 0.7, truth.shape)).astype(np.float32))
        truths.append(truth)
    return maps, truths


def test_the_choice_is_the_best_of_all_combinations():
    maps, truths = noisy_maps(0)

    def score(blur, k, smallest):
        smooth = [cv2.GaussianBlur(m, (0, 0), blur, borderType=cv2.BORDER_REFLECT) if blur else m for m in maps]
        rule = RegionRule(mean=float(np.mean(smooth)), std=float(np.std(smooth)), k=k, blur=0.0, smallest=smallest)
        return np.mean([dice(map_to_region(m, rule).mask, t) for m, t in zip(smooth, truths, strict=True)])

    rule = choose_rule(maps, truths, "squares")
    grid = {(blur, k): score(blur, k, 0.0) for blur in BLURS for k in STEPS}
    assert (rule.blur, rule.k) == max(grid, key=grid.get)
    assert rule.blur > 0  # the noise asks for it
    assert score(rule.blur, rule.k, rule.smallest) == max(score(rule.blur, rule.k, s) for s in SMALLEST)
    assert rule.chosen_on == "squares"
    assert "squares" in rule.words


def test_images_without_a_mask_count_for_the_level_only():
    maps, truths = noisy_maps(1)
    rule = choose_rule(maps, [None] * len(maps), "nothing")
    smooth = np.stack([ndimage.gaussian_filter(m, rule.blur, mode="reflect", truncate=6) for m in maps])
    assert rule.mean == pytest.approx(smooth.mean(), abs=1e-3)
    assert rule.std == pytest.approx(smooth.std(), rel=1e-2)
    assert rule.chosen_on == ""
    assert choose_rule(maps, [None, *truths[1:]], "some").chosen_on == "some"
    with pytest.raises(UsageError, match="got none"):
        choose_rule([], [], "nothing")


def test_a_rule_survives_json():
    rule = choose_rule(*noisy_maps(2), "squares")
    assert RegionRule.from_json(rule.to_json()) == rule
