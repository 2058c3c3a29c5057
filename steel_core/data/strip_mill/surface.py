"""The sound strip as a line-scan camera sees it: finish, rolling lines, mottling, light; and white stains on it.

A stain is dried emulsion or water: harmless, and the shortcut that is planted on purpose.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from steel_core.data.strip_mill.noise import brushed, noise, smoothstep
from steel_core.errors import UsageError
from steel_core.types import BoolArray, Float32Array, FloatArray, UInt8Array

Range = tuple[float, float]

EDGE = 0.06
"""A pixel belongs to a stain where the stain covers at least this share of it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """One way that a strip is finished and lit. Each sheet draws its own values from these ranges.

    They were set by eye and by the statistics of the NEU surface defect database (Song and Yan, Applied Surface Science
    285, 2013). All but `level` and `coarse` are standard deviations relative to the grey level.

    Attributes:
        level: mean grey level of the sheet, 0 to 255.
        coarse: share of the grain's variance in features of about 4 pixels; the rest is as fine as the optics allow.
        mottle: clouds of 10 to 40 pixels.
        lines: rolling lines, which run down the picture.
        brush: fine lines of grinding, across the rolling direction.
        light: bands and slopes of the illumination.
    """

    level: Range
    grain: Range
    coarse: Range
    mottle: Range
    lines: Range
    brush: Range
    light: Range


FINISHES: tuple[tuple[float, Finish], ...] = (
    # Rough hot-rolled strip, bright grain under direct light.
    (2, Finish((75, 185), (0.09, 0.15), (0.25, 0.40), (0.02, 0.05), (0.01, 0.05), (0.00, 0.05), (0.06, 0.32))),
    # Smooth dark strip.
    (2, Finish((60, 140), (0.015, 0.045), (0.2, 0.6), (0.01, 0.03), (0.005, 0.02), (0.0, 0.01), (0.06, 0.26))),
    # Pickled strip, close to the camera's white.
    (1, Finish((120, 215), (0.015, 0.04), (0.2, 0.5), (0.01, 0.03), (0.003, 0.015), (0.0, 0.01), (0.06, 0.30))),
    # Ground strip.
    (1, Finish((85, 155), (0.04, 0.07), (0.3, 0.6), (0.03, 0.06), (0.005, 0.02), (0.03, 0.06), (0.06, 0.24))),
)
"""Finishes, each with how often it occurs relative to the others."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A sound sheet.

    Attributes:
        grey: (H, W) float32, grey levels before the camera rounds and clips them.
        roughness: standard deviation of its fine texture, relative to the grey level.
    """

    grey: FloatArray
    level: float
    roughness: float


def roll(shape: tuple[int, int], rng: np.random.Generator) -> Surface:
    """A sound sheet of (H, W) `shape`, its finish drawn by `rng`."""
    weights = np.array([weight for weight, _ in FINISHES])
    finish = FINISHES[rng.choice(len(FINISHES), p=weights / weights.sum())][1]
    level, grain, mottle = rng.uniform(*finish.level), rng.uniform(*finish.grain), rng.uniform(*finish.mottle)
    coarse, lines, brush = rng.uniform(*finish.coarse), rng.uniform(*finish.lines), rng.uniform(*finish.brush)

    relief = grain * np.sqrt(1 - coarse) * noise(shape, rng, 0.7, 0.65)
    relief += grain * np.sqrt(coarse) * noise(shape, rng, rng.uniform(1.4, 2.6), rng.uniform(1.2, 1.8))
    relief += mottle * noise(shape, rng, rng.uniform(8, 30), rng.uniform(6, 15))
    relief += mottle * 0.5 * noise(shape, rng, rng.uniform(3, 12), 3)
    relief += _rolling_lines(shape, rng) * lines
    relief += brush * _grinding(shape, rng)
    relief += _light(shape, rng, rng.uniform(*finish.light))
    # Reflectance multiplies: on a rough strip a dark zone is less noisy than a bright one, as in the NEU images.
    return Surface(level * np.exp(relief), level, float(np.hypot(grain, brush)))


def _rolling_lines(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Fine lines and broader streaks down the picture, fading in and out; variance about 1."""
    height, width = shape
    fine = noise((1, width), rng, 0.3, 0.8)
    long = noise((height, width), rng, max(60, height / 3), rng.uniform(1.5, 5))
    return np.asarray(0.5 * fine + 0.85 * long, dtype=np.float32)


def _grinding(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    angle = rng.uniform(-0.1, 0.5) * rng.choice([-1, 1])
    short = brushed(shape, rng, angle * 0.3, int(rng.integers(9, 15)))
    long = brushed(shape, rng, angle, 61)
    # Cubing leaves few strong lines among many faint ones.
    return np.asarray(0.75 * short + 0.2 * np.clip(long, -2.2, 2.2) ** 3, dtype=np.float32)


def _light(shape: tuple[int, int], rng: np.random.Generator, strength: float) -> FloatArray:
    """A slope in a random direction, bands and an edge down the strip, as the logarithm of the light."""
    height, width = shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x + np.sin(angle) * y * min(1.0, height / width + 0.5)
    bands = noise((1, width), rng, 0.3, rng.uniform(10, 45))
    edge = np.tanh((x - rng.uniform(-1.5, 1.5)) / rng.uniform(0.05, 0.4)) * rng.choice([-1, 1])
    parts = rng.dirichlet([1, 1, 0.5])
    return np.asarray(strength * (parts[0] * 1.5 * slope + parts[1] * 1.3 * bands + parts[2] * edge), dtype=np.float32)


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
