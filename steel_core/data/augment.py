"""Augmentation of whole batches on the device: each image of a batch draws its own, in one resampling pass for all.

torchvision's transforms draw one set of parameters for a batch; where one of its functions does the work for every
image at once, it serves here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from steel_core.data.transforms import Preprocessing
from steel_core.errors import UsageError
from steel_core.types import SteelImage

PATCH = 64
"""Height and width of the patch around a defect, in pixels of what the network sees."""

_BLUR_SIGMA = 1.5


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly training images are varied; every value is a largest deviation unless it says otherwise.

    Attributes:
        flip: whether images are mirrored left-right and up-down, each with probability one half.
        turn: whether square images are turned by 90 degrees with probability one half; strips never are.
        degrees: rotation.
        scale: zoom, as a share.
        shift: move, as a share of the side.
        brightness: added to normalised pixels, in standard deviations of the data.
        contrast: factor on the contrast, as a power of e: 0.3 is 0.74 to 1.35.
        noise: standard deviation of Gaussian noise added to normalised pixels; each image draws its own up to this one.
        blur: share of each image that is replaced by its blurred copy (Gaussian, 1.5 pixels).
        cut_out: height and width of a rectangle filled with the mean grey, as shares of the sides; a defect that is
            covered whole leaves a wrong label, so keep it small (DeVries and Taylor, arXiv:1708.04552).
        patches: probability that an image of a rare class is replaced by the 64 x 64 patch around its defect, enlarged;
            only where boxes or masks tell where that is.
    """

    flip: bool = True
    turn: bool = True
    degrees: float = 8.0
    scale: float = 0.15
    shift: float = 0.08
    brightness: float = 0.3
    contrast: float = 0.3
    noise: float = 0.15
    blur: float = 0.0
    cut_out: float = 0.0
    patches: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for field in fields(self):
            value = getattr(self, field.name)
            most = {"scale": 0.9, "blur": 1.0, "cut_out": 1.0, "patches": 1.0}.get(field.name, math.inf)
            if not 0 <= value <= most:
                raise UsageError(f"augmentation {field.name}: expected 0 to {most:g}, got {value}")

    def scaled(self, strength: float) -> Augmentation:
        """All deviations times `strength`; flips, turns and patches stay."""
        dials = ("degrees", "scale", "shift", "brightness", "contrast", "noise", "blur", "cut_out")
        return replace(self, **{name: getattr(self, name) * strength for name in dials})

    def __call__(self, images: Tensor, centres: Tensor | None = None) -> Tensor:
        """Varied copies of normalised images (N, C, H, W); random numbers come from torch's global generator.

        N images, C channels, H rows, W columns.

        Args:
            images: on any device.
            centres: (N, 2) column and row of a defect in each image, from -1 to 1 over the sides; not a number where
                the image shall not be replaced by a patch.
        """
        n, _, height, width = images.shape
        device = images.device

        def draw(largest: float) -> Tensor:
            return (torch.rand(n, device=device) * 2 - 1) * largest

        quarters = torch.randint(0, 2, (n,), device=device) if self.turn and height == width else 0
        angle, zoom = draw(math.radians(self.degrees)) + quarters * math.pi / 2, 1 + draw(self.scale)
        flips = torch.randint(0, 2, (2, n), device=device) * 2 - 1 if self.flip else torch.ones(2, n, device=device)
        move = torch.stack([draw(2 * self.shift), draw(2 * self.shift)])
        if self.patches and centres is not None and min(height, width) > PATCH:
            near = centres.to(device).T  # (2, N)
            patched = (torch.rand(n, device=device) < self.patches) & near.isfinite().all(dim=0)
            closer = min(height, width) / PATCH
            inside = 1 - 1 / closer
            zoom = torch.where(patched, closer, zoom)
            move = torch.where(patched, (near + move / closer).clamp(-inside, inside), move)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        aspect = height / width  # the grid's coordinates run from -1 to 1 on both sides, whatever their lengths
        affine = (
            torch.stack([cos * flips[0], -sin * aspect * flips[1], move[0]], dim=1),
            torch.stack([sin / aspect * flips[0], cos * flips[1], move[1]], dim=1),
        )
        grid = F.affine_grid(torch.stack(affine, dim=1), list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        if self.blur:
            blurred = gaussian_blur(moved, kernel_size=[7, 7], sigma=[_BLUR_SIGMA])
            moved = moved.lerp(blurred, torch.rand(n, device=device).mul(self.blur).view(n, 1, 1, 1))

        gain = draw(self.contrast).exp().view(n, 1, 1, 1)
        offset = draw(self.brightness).view(n, 1, 1, 1)
        sigma = torch.rand(n, device=device).mul(self.noise).view(n, 1, 1, 1)
        varied = moved * gain + offset + torch.randn_like(moved) * sigma
        return varied.masked_fill(_rectangles(n, height, width, self.cut_out, device), 0.0) if self.cut_out else varied


def _rectangles(n: int, height: int, width: int, most: float, device: torch.device) -> Tensor:
    """(N, 1, H, W) True in a rectangle of each image, whose sides are up to a share `most` of the image's."""
    sizes, places = torch.rand(2, n, device=device) * most, torch.rand(2, n, device=device)
    covered = []
    for side, size, place in zip((height, width), sizes, places, strict=True):
        at = (torch.arange(side, device=device) + 0.5) / side
        start = place * (1 - size)
        covered.append((at >= start[:, None]) & (at < (start + size)[:, None]))
    return (covered[0][:, :, None] & covered[1][:, None, :])[:, None]


def preview(
    image: SteelImage,
    augmentation: Augmentation,
    seed: int = 0,
    count: int = 6,
    centre: tuple[float, float] | None = None,
) -> list[npt.NDArray[np.uint8]]:
    """What training would make of a picture, as grey pictures (H, W) of its size, at most 512 pixels a side.

    Brightness and contrast are varied about the picture's own mean by its own standard deviation, which stand in for
    those of the training images.

    Args:
        image: any picture.
        augmentation: how it is varied.
        seed: of the random numbers, which are drawn apart from those of training.
        count: how many pictures.
        centre: column and row of its defect, from -1 to 1 over the sides, for patches.
    """
    zoom = min(1.0, 512 / max(image.height, image.width))
    size = (max(1, round(image.height * zoom)), max(1, round(image.width * zoom)))
    grid, _ = Preprocessing(size, 0.0, 1.0).to_grid(image)
    mean, std = float(grid.mean()), max(float(grid.std()), 1e-4)
    batch = torch.from_numpy((grid - mean) / std).expand(count, 1, *grid.shape)
    centres = torch.tensor(centre or (math.nan, math.nan)).expand(count, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        varied = augmentation(batch, centres)
    return list((varied[:, 0] * std + mean).clamp(0, 1).mul(255).round().byte().numpy())
