"""Augmentation of whole batches on the device: flips, small affine moves, brightness, contrast, noise.

torchvision's transforms draw one set of parameters for a batch; these draw one for each image, at the cost of a single
resampling pass for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """

    flip: bool = True
    turn: bool = True
    degrees: float = 8.0
    scale: float = 0.15
    shift: float = 0.08
    brightness: float = 0.3
    contrast: float = 0.3
    noise: float = 0.15

    def __call__(self, images: Tensor) -> Tensor:
        """Varied copies of normalised images (N, C, H, W); random numbers come from torch's global generator.

        N images, C channels, H rows, W columns.
        """
        n, _, height, width = images.shape
        device = images.device

        def draw(largest: float) -> Tensor:
            return (torch.rand(n, device=device) * 2 - 1) * largest

        quarters = torch.randint(0, 2, (n,), device=device) if self.turn and height == width else 0
        angle, zoom = draw(math.radians(self.degrees)) + quarters * math.pi / 2, 1 + draw(self.scale)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        flips = torch.randint(0, 2, (2, n), device=device) * 2 - 1 if self.flip else torch.ones(2, n, device=device)
        aspect = height / width  # the grid's coordinates run from -1 to 1 on both sides, whatever their lengths
        affine = (
            torch.stack([cos * flips[0], -sin * aspect * flips[1], draw(2 * self.shift)], dim=1),
            torch.stack([sin / aspect * flips[0], cos * flips[1], draw(2 * self.shift)], dim=1),
        )
        grid = F.affine_grid(torch.stack(affine, dim=1), list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

        gain = draw(self.contrast).exp().view(n, 1, 1, 1)
        offset = draw(self.brightness).view(n, 1, 1, 1)
        sigma = torch.rand(n, device=device).mul(self.noise).view(n, 1, 1, 1)
        return moved * gain + offset + torch.randn_like(moved) * sigma
