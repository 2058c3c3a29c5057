"""Augmentation moves pixels as it says, keeps shapes, and obeys the seed."""

import numpy as np
import pytest
import torch
from helpers.small import steel_image

from steel_core.data.augment import PATCH, augment_images, preview_augmentation
from steel_core.data.augmentation import Augmentation
from steel_core.errors import UsageError

NOTHING = Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0)


def test_all_dials_at_zero_change_nothing():
    images = torch.rand(3, 1, 20, 31)
    torch.testing.assert_close(augment_images(images, NOTHING), images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "expected"), [((9, 9), 8), ((8, 16), 4)])
def test_flips_and_turns_give_the_symmetries_of_the_square(shape, expected):
    """A square has 8, a strip 4; each image of a batch draws its own."""
    image = torch.arange(shape[0] * shape[1], dtype=torch.float32).view(1, 1, *shape)
    torch.manual_seed(0)
    dials = Augmentation(degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0)
    out = augment_images(image.expand(200, 1, *shape), dials)
    possible = [image.flip(dims) for dims in ([], [2], [3], [2, 3])]
    if shape[0] == shape[1]:
        possible += [p.transpose(2, 3) for p in possible]
    drawn = {next(i for i, p in enumerate(possible) if torch.allclose(one, p[0], atol=1e-2)) for one in out}
    assert len(drawn) == expected


def test_brightness_and_contrast_are_of_the_stated_size():
    torch.manual_seed(0)
    image = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(2000, 1, 1, 2)
    out = augment_images(
        image, Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0.5, contrast=0.5, noise=0)
    )
    gain = (out[..., 1] - out[..., 0]).flatten() / 2
    offset = (out[..., 1] + out[..., 0]).flatten() / 2
    assert 0.6 < float(gain.min()) < 0.65
    assert 1.55 < float(gain.max()) < 1.66
    assert 0.48 < float(offset.abs().max()) <= 0.5


def test_noise_is_at_most_the_stated_one():
    torch.manual_seed(0)
    out = augment_images(
        torch.zeros(300, 1, 30, 30),
        Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0.15),
    )
    spread = out.std(dim=(1, 2, 3))
    assert float(spread.max()) < 0.17
    assert float(spread.min()) < 0.02


def test_a_wide_strip_is_turned_without_distortion():
    """A line keeps its length in pixels when a strip twice as wide as high is turned about its centre."""
    image = torch.zeros(1, 1, 41, 81)
    image[..., 20, 30:51] = 1  # 21 pixels along the width
    torch.manual_seed(1)
    dials = Augmentation(flip=False, degrees=25, scale=0, shift=0, brightness=0, contrast=0, noise=0)
    for one in augment_images(image.expand(60, 1, 41, 81), dials):
        rows, columns = torch.where(one[0] > 0.3)
        length = float(torch.hypot(rows - 20.0, columns - 40.0).max()) * 2
        assert 17 <= length <= 24


def test_the_seed_decides():
    images = torch.rand(4, 1, 16, 16)
    torch.manual_seed(4)
    first = augment_images(images, Augmentation())
    torch.manual_seed(4)
    assert torch.equal(first, augment_images(images, Augmentation()))
    assert not torch.equal(first, augment_images(images, Augmentation()))


def test_blur_is_between_the_picture_and_its_blurred_copy():
    torch.manual_seed(0)
    images = torch.rand(200, 1, 24, 24)
    out = augment_images(images, NOTHING.replace(blur=0.8))
    fine = (out - augment_images(images, NOTHING)).std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert float(fine.min()) < 0.02
    assert 0.5 < float(fine.max()) < 0.8
    torch.testing.assert_close(out.mean(), images.mean(), atol=0.01, rtol=0)


def test_cut_out_leaves_one_even_rectangle_of_at_most_the_stated_sides():
    torch.manual_seed(0)
    out = augment_images(torch.ones(300, 1, 40, 80), NOTHING.replace(cut_out=0.25))
    heights, widths = [], []
    for one in out[:, 0]:
        rows, columns = torch.where(one == 0)
        if len(rows):
            heights.append(int(rows.max() - rows.min()) + 1)
            widths.append(int(columns.max() - columns.min()) + 1)
            assert len(rows) == heights[-1] * widths[-1]
    assert 8 <= max(heights) <= 10
    assert 17 <= max(widths) <= 20
    assert (out[:, 0, 0] == 0).any(), "also at the upper edge"
    assert (out[..., -1] == 0).any(), "and at the right one"


def test_a_patch_is_the_neighbourhood_of_the_defect():
    """A ramp tells which column each pixel came from."""
    width = 200
    ramp = (torch.arange(width) + 0.5).expand(1, 1, width, width)
    dials = NOTHING.replace(patches=1.0)
    out = augment_images(
        ramp.expand(3, 1, -1, -1), dials, torch.tensor([[0.5, 0.0], [1.0, 1.0], [torch.nan, torch.nan]])
    )
    first, last = (150 - PATCH / 2, 150 + PATCH / 2)
    assert out[0, 0, 0, 0].item() == pytest.approx(first, abs=1)
    assert out[0, 0, 0, -1].item() == pytest.approx(last, abs=1)
    assert out[1, 0, 0, 0].item() == pytest.approx(width - PATCH, abs=1), "kept inside the picture"
    torch.testing.assert_close(out[2], ramp[0], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(augment_images(ramp, dials), ramp, rtol=1e-4, atol=1e-2)


def test_strength_scales_every_dial_but_the_symmetries():
    twice = Augmentation(cut_out=0.1).scaled(2.0)
    assert (twice.noise, twice.cut_out, twice.flip) == (0.3, 0.2, True)
    assert Augmentation().scaled(0.0) == NOTHING.replace(flip=True, turn=True)


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"blur": 1.5}, {"patches": float("nan")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        Augmentation(**wrong)


def test_the_preview_is_of_the_picture_and_draws_apart_from_training():
    image = steel_image(60, 90)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pictures = preview_augmentation(image, Augmentation(), seed=1, count=4)
    assert torch.equal(torch.rand(3), expected)
    assert [(p.shape, p.dtype) for p in pictures] == [((60, 90), np.uint8)] * 4
    assert not np.array_equal(pictures[0], pictures[1])
    again = preview_augmentation(image, Augmentation(), seed=1, count=4)
    np.testing.assert_array_equal(pictures, again)
    unchanged = preview_augmentation(image, NOTHING, count=1)[0]
    np.testing.assert_allclose(unchanged.astype(int), image.pixels, atol=1)
    assert max(preview_augmentation(steel_image(100, 1600), NOTHING, count=1)[0].shape) == 512
