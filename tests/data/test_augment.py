"""Augmentation moves pixels as it says, keeps shapes, and obeys the seed."""

import pytest
import torch

from steel_core.data.augment import Augmentation

NOTHING = Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0)


def test_all_dials_at_zero_change_nothing():
    images = torch.rand(3, 1, 20, 31)
    torch.testing.assert_close(NOTHING(images), images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "expected"), [((9, 9), 8), ((8, 16), 4)])
def test_flips_and_turns_give_the_symmetries_of_the_square(shape, expected):
    """A square has 8, a strip 4; each image of a batch draws its own."""
    image = torch.arange(shape[0] * shape[1], dtype=torch.float32).view(1, 1, *shape)
    torch.manual_seed(0)
    dials = Augmentation(degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0)
    out = dials(image.expand(200, 1, *shape))
    possible = [image.flip(dims) for dims in ([], [2], [3], [2, 3])]
    if shape[0] == shape[1]:
        possible += [p.transpose(2, 3) for p in possible]
    found = {next(i for i, p in enumerate(possible) if torch.allclose(one, p[0], atol=1e-2)) for one in out}
    assert len(found) == expected


def test_brightness_and_contrast_are_of_the_stated_size():
    torch.manual_seed(0)
    image = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(2000, 1, 1, 2)
    out = Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0.5, contrast=0.5, noise=0)(
        image
    )
    gain = (out[..., 1] - out[..., 0]).flatten() / 2
    offset = (out[..., 1] + out[..., 0]).flatten() / 2
    assert 0.6 < float(gain.min()) < 0.65
    assert 1.55 < float(gain.max()) < 1.66
    assert 0.48 < float(offset.abs().max()) <= 0.5


def test_noise_is_at_most_the_stated_one():
    torch.manual_seed(0)
    out = Augmentation(flip=False, turn=False, degrees=0, scale=0, shift=0, brightness=0, contrast=0, noise=0.15)(
        torch.zeros(300, 1, 30, 30)
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
    for one in dials(image.expand(60, 1, 41, 81)):
        rows, columns = torch.where(one[0] > 0.3)
        length = float(torch.hypot(rows - 20.0, columns - 40.0).max()) * 2
        assert 17 <= length <= 24


def test_the_seed_decides():
    images = torch.rand(4, 1, 16, 16)
    torch.manual_seed(4)
    first = Augmentation()(images)
    torch.manual_seed(4)
    assert torch.equal(first, Augmentation()(images))
    assert not torch.equal(first, Augmentation()(images))
