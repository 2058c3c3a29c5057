"""The sound strip: finish, rolling lines, mottling and light, as a line-scan camera sees them."""

from dataclasses import dataclass

import numpy as np

from steel_core.data.strip_mill.noise import brushed, noise
from steel_core.types import FloatArray

Range = tuple[float, float]


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
