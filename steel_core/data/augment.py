"""Augmentation of whole batches on the device, each image by its own draw; torchvision draws once for a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from steel_core.data.augmentation import Augmentation
from steel_core.data.transforms import Preprocessing
from steel_core.types import SteelImage, UInt8Array

PATCH = 64
"""Height and width of the patch around a defect, in pixels of what the network sees."""

_BLUR_SIGMA = 1.5


def augment_images(images: Tensor, augmentation: Augmentation, centres: Tensor | None = None) -> Tensor:
    """Varied copies of normalised images (N, C, H, W) on any device; random numbers come from torch's global generator.

    `centres`: (N, 2) column and row of a defect, from -1 to 1 over the sides; NaN for images that get no patch.
    """
    n, _, height, width = images.shape
    device = images.device

    def draw(largest: float) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * largest

    quarters = torch.randint(0, 2, (n,), device=device) if augmentation.turn and height == width else 0
    angle, zoom = draw(math.radians(augmentation.degrees)) + quarters * math.pi / 2, 1 + draw(augmentation.scale)
    flips = torch.randint(0, 2, (2, n), device=device) * 2 - 1 if augmentation.flip else torch.ones(2, n, device=device)
    move = torch.stack([draw(2 * augmentation.shift), draw(2 * augmentation.shift)])
    if augmentation.patches and centres is not None and min(height, width) > PATCH:
        near = centres.to(device).T  # (2, N)
        patched = (torch.rand(n, device=device) < augmentation.patches) & near.isfinite().all(dim=0)
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
    if augmentation.blur:
        blurred = gaussian_blur(moved, kernel_size=[7, 7], sigma=[_BLUR_SIGMA])
        moved = moved.lerp(blurred, torch.rand(n, device=device).mul(augmentation.blur).view(n, 1, 1, 1))

    gain = draw(augmentation.contrast).exp().view(n, 1, 1, 1)
    offset = draw(augmentation.brightness).view(n, 1, 1, 1)
    sigma = torch.rand(n, device=device).mul(augmentation.noise).view(n, 1, 1, 1)
    varied = moved * gain + offset + torch.randn_like(moved) * sigma
    if augmentation.cut_out:
        return varied.masked_fill(_rectangles(n, height, width, augmentation.cut_out, device), 0.0)
    return varied


def _rectangles(n: int, height: int, width: int, most: float, device: torch.device) -> Tensor:
    """(N, 1, H, W) True in a rectangle of each image, whose sides are up to a share `most` of the image's."""
    sizes, places = torch.rand(2, n, device=device) * most, torch.rand(2, n, device=device)
    covered = []
    for side, size, place in zip((height, width), sizes, places, strict=True):
        at = (torch.arange(side, device=device) + 0.5) / side
        start = place * (1 - size)
        covered.append((at >= start[:, None]) & (at < (start + size)[:, None]))
    return (covered[0][:, :, None] & covered[1][:, None, :])[:, None]


def preview_augmentation(
    image: SteelImage,
    augmentation: Augmentation,
    seed: int = 0,
    count: int = 6,
    centre: tuple[float, float] | None = None,
) -> list[UInt8Array]:
    """What training would make of a picture, as grey pictures (H, W) of its size, at most 512 pixels a side.

    Brightness and contrast are varied by the picture's own mean and standard deviation, for want of the training
    images'. The random numbers are drawn apart from those of training. `centre`: of its defect, as in `augment_images`.
    """
    zoom = min(1.0, 512 / max(image.height, image.width))
    size = (max(1, round(image.height * zoom)), max(1, round(image.width * zoom)))
    grid, _ = Preprocessing(size, 0.0, 1.0).to_grid(image)
    mean, std = float(grid.mean()), max(float(grid.std()), 1e-4)
    batch = torch.from_numpy((grid - mean) / std).expand(count, 1, *grid.shape)
    centres = torch.tensor(centre or (math.nan, math.nan)).expand(count, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        varied = augment_images(batch, augmentation, centres)
    return list((varied[:, 0] * std + mean).clamp(0, 1).mul(255).round().byte().numpy())
