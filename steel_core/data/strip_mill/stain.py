"""White stains: dried emulsion or water on the strip, harmless, and the shortcut that is planted on purpose."""

import cv2
import numpy as np

from steel_core.data.strip_mill.noise import noise, smoothstep
from steel_core.errors import UsageError
from steel_core.types import BoolArray, Float32Array, UInt8Array

EDGE = 0.06
"""A pixel belongs to a stain where the stain covers at least this share of it."""


def draw_stain(
    pixels: UInt8Array,
    rng: np.random.Generator,
    *,
    area_share: float = 0.03,
    brightness: float = 235,
    avoid: BoolArray | None = None,
) -> tuple[UInt8Array, BoolArray]:
    """Draws one irregular, soft-edged, bright stain, with a spatter of drops, on a copy of a picture (H, W) uint8.

    The mask (H, W) that comes with it says where pixels changed. The stain covers about `area_share` of the picture,
    above 0 and at most 0.25; `brightness` is its grey where it is thickest, 0 to 255. It lies where it meets the fewest
    pixels of `avoid` (H, W): none, if it fits.

    Raises:
        UsageError: `area_share` is out of range, or `pixels` is not a grey 8-bit picture.
    """
    if not 0 < area_share <= 0.25:
        raise UsageError(f"area share of a stain: expected above 0 and at most 0.25, got {area_share}")
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise UsageError(f"expected a grey 8-bit picture, got shape {pixels.shape} of {pixels.dtype}")
    height, width = pixels.shape
    cover = _drop(rng, np.sqrt(area_share * height * width), (height, width))
    top, left = _place(cover > 0, (height, width), rng, avoid)
    window = np.s_[top : top + cover.shape[0], left : left + cover.shape[1]]
    stained, mask = pixels.copy(), np.zeros((height, width), bool)
    under = pixels[window].astype(np.float32)
    # The film keeps some of the grain below it, and never darkens what is brighter already.
    film = np.maximum(brightness + 0.25 * (under - under.mean()), under)
    stained[window] = np.clip(np.round(under + cover * (film - under)), 0, 255).astype(np.uint8)
    mask[window] = cover > 0
    return stained, mask


def _drop(rng: np.random.Generator, side: float, limit: tuple[int, int]) -> Float32Array:
    """How much of each pixel the stain covers, 0 to 1, cropped to the stain; `side` is the root of its area."""
    tall, wide = (min(n, max(12, round(3.2 * side))) for n in limit)
    y, x = np.ogrid[-1 : 1 : tall * 1j, -1 : 1 : wide * 1j]
    ridge = 0.45 * noise((tall, wide), rng, side / 4) + 0.14 * noise((tall, wide), rng, side / 12)
    radius = np.hypot(x * rng.uniform(0.9, 1.3), y * rng.uniform(0.9, 1.3))
    # Steeper and steeper outwards, so that the stain ends of itself before the window does.
    inside = 0.5 * ridge + 0.04 * noise((tall, wide), rng, 1.2) - 1.6 * radius - 6 * np.maximum(radius - 0.7, 0) ** 2
    # The level set of the wanted area: as many pixels inside as asked for.
    shore = np.quantile(inside, 1 - min(side**2 / inside.size, 0.6))
    body = smoothstep((inside - shore) / rng.uniform(0.2, 0.6)) ** rng.uniform(0.5, 1)
    cover = body * np.clip(0.85 + 0.15 * noise((tall, wide), rng, side / 8), 0.5, 1)
    cover = np.where(cover >= EDGE, cover, 0).astype(np.float32)
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    return cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    footprint: BoolArray,
    limit: tuple[int, int],
    rng: np.random.Generator,
    avoid: BoolArray | None,
) -> tuple[int, int]:
    if avoid is None:
        avoid = np.zeros(limit, bool)
    met = cv2.matchTemplate(avoid.astype(np.float32), footprint.astype(np.float32), cv2.TM_CCORR)
    rows, columns = np.nonzero(met <= met.min() + 0.5)
    pick = rng.integers(len(rows))
    return int(rows[pick]), int(columns[pick])
