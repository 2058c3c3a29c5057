"""The six NEU defect types, one function each, after the NEU surface defect database (Song and Yan, 2013).

A defect is a relative change of the grey level: -0.4 takes 40 % of the light away, +1 doubles it. The rolling
direction runs down the picture.
"""

from collections.abc import Callable

import cv2
import numpy as np

from steel_core.data.strip_mill.noise import blur, noise, ragged, smoothstep, zone
from steel_core.data.strip_mill.surface import Surface
from steel_core.types import BoolArray, Float64Array, FloatArray, UInt8Array

VISIBLE = 0.05
"""A pixel belongs to a defect where the grey changes by this share; just noticeable is 2 % (Weber's law)."""

ROSE = 8.0
"""Least signal-to-noise ratio of a defect; the eye needs 5 (A. Rose, J. Optical Society of America 38, 1948)."""


def plant(label: str, surface: Surface, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
    """Draws one sheet's defect: the relative change of grey, float32 (H, W), and its mask, bool (H, W), never empty.

    The mask is where the change reaches `VISIBLE`; outside it the change is exactly 0. The defect meets `ROSE`.
    """
    while True:
        # The optics that blur the surface blur the defect too.
        change = blur(DEFECTS[label](surface, rng), 0.6)
        mask = np.abs(change) >= VISIBLE
        change = np.where(mask, change, np.float32(0))
        if _stands_out(change[mask], surface.roughness):
            return change, mask


def crazing(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """A net of short jagged cracks, mostly across the rolling direction, some opened to dark spots."""
    shape = surface.grey.shape
    canvas = np.zeros(shape, np.uint8)
    tilt = rng.normal(0, 0.12)
    crowd = rng.uniform(60, 200) * _area(shape)
    for strength in np.sort(rng.triangular(50, 110, 255, int(crowd))):
        path = _crack(shape, rng, tilt)
        _draw(canvas, path, strength, 1)
        if rng.random() < 0.3:  # a branch
            _draw(canvas, _crack(shape, rng, tilt, path[rng.integers(len(path))]), 0.8 * strength, 1)
        if rng.random() < 0.2:  # the crack opens along a part of its way
            start = rng.integers(len(path) - 2)
            _draw(canvas, path[start : start + rng.integers(2, 5)], strength, 2)
    for _ in range(rng.poisson(rng.choice([0, 2, 6]) * _crowd(shape))):
        spot = _point(shape, rng) + np.cumsum(rng.normal(0, 2.5, (6, 2)), axis=0)
        _draw(canvas, spot, rng.uniform(150, 255), int(rng.integers(2, 5)))
    cracks = ragged(canvas.astype(np.float32) / 255, rng, 0.9, 1.2)
    worn = smoothstep(0.6 + 0.45 * noise(shape, rng, 1.5, 2.2)) * zone(shape, rng, 45, rng.uniform(0.3, 2))
    rough = 0.25 * blur(cracks, 2.5)
    return -_depth(rng, 0.5, 0.85, surface, 5) * (cracks + rough) * worn


def inclusion(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Dark flakes and spindles drawn out along the rolling direction, alone or in strings."""
    shape = surface.grey.shape
    height, width = shape
    canvas = np.zeros(shape, np.uint8)
    for _ in range(1 + rng.poisson(1.0 * _crowd(shape))):
        x, spread = rng.uniform(0.05, 0.95) * width, rng.choice([2, 6, 20])
        size = rng.lognormal(0, 0.4)
        for _ in range(rng.integers(2, 14)):
            length = np.clip(rng.lognormal(3.3, 0.6) * size, 6, 0.9 * height)
            breadth = np.clip(length * rng.uniform(0.06, 0.25), 1.8, 15)
            centre = (rng.normal(x, spread), rng.uniform(-0.05, 1.05) * height)
            outline = np.round(16 * _spindle(rng, centre, length, breadth, rng.normal(0, 0.06))).astype(np.int32)
            cv2.fillPoly(canvas, [outline], rng.uniform(90, 255), cv2.LINE_AA, shift=4)
    flakes = ragged(canvas.astype(np.float32) / 255, rng, rng.uniform(0.5, 0.9), 3, drawn=rng.uniform(2, 5))
    flakes = blur(flakes, rng.choice([0.6, 1.0, 2.5], p=[0.5, 0.35, 0.15]))
    halo = blur(flakes, 4, 14)
    body = flakes * (1 + 0.12 * noise(shape, rng, 6, 2)) + rng.uniform(0, 0.3) * halo
    return -_depth(rng, 0.2, 0.5, surface, 3.5) * body


def patches(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Large dark blots with a cloudy edge, often drawn out along the strip, with black crumbs beside them."""
    shape = surface.grey.shape
    height, width = shape
    y, x = np.ogrid[:height, :width]
    blot = np.full(shape, -1, np.float32)
    for _ in range(rng.integers(1, 2 + int(4 * _crowd(shape)))):
        a, b = rng.uniform(14, 55), rng.uniform(16, 55) * rng.choice([1, 1, 2.5])
        centre_x, centre_y = rng.uniform(0.06, 0.94) * width, rng.uniform(0.06, 0.94) * height
        inside = 1 - np.hypot((x - centre_x) / a, (y - centre_y) / b)
        np.maximum(blot, np.clip(inside, -1, 0.6), out=blot)
    blot += 0.4 * noise(shape, rng, 14, 10) + 0.12 * noise(shape, rng, 4, 3) + 0.05 * noise(shape, rng, 1, 0.8)
    cover = smoothstep(blot / rng.uniform(0.3, 1.2)) * (0.88 + 0.12 * noise(shape, rng, 9, 7))
    crumbs = smoothstep(3 * (noise(shape, rng, 1.4, 1.7) - 2.0)) * zone(shape, rng, 12, -1.2) * rng.choice([0, 1])
    return np.maximum(-_depth(rng, 0.45, 0.8, surface, 4) * cover - 0.7 * crumbs, np.float32(-0.9))


def pitted_surface(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Hundreds of small dark pits over a part of the sheet, some run together to scabs."""
    shape = surface.grey.shape
    where = zone(shape, rng, rng.uniform(15, 60), rng.uniform(-0.3, 2))
    radius = rng.uniform(0.8, 1.5)
    density = np.exp(rng.uniform(np.log(0.006), np.log(0.035))) / radius**2
    hits = rng.random(shape, dtype=np.float32) < density * where
    pits = np.where(hits, rng.uniform(0.25, 1, shape), 0).astype(np.float32)
    large_pits = np.where(rng.random(shape) < 0.04, pits, 0).astype(np.float32)
    body = _dots(pits, radius, radius * rng.uniform(1.0, 1.8)) + 1.3 * _dots(large_pits, 2 * radius, 2.4 * radius)
    body = 1 - np.exp(-1.3 * ragged(body, rng, 0.6, 1.5))
    if rng.random() < 0.3:
        scabs = noise(shape, rng, 5, 4) + 0.35 * noise(shape, rng, 1.5) - rng.uniform(1.6, 2.2)
        body = np.maximum(body, smoothstep(4 * scabs) * smoothstep(2 * where - 0.6))
    return -_depth(rng, 0.2, 0.6, surface, 4.5) * body


def rolled_in_scale(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Groups of small flakes pressed into the sheet: dark bars across the strip, each with a bright rim."""
    shape = surface.grey.shape
    height, width = shape
    dark, rim = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    column, tilt = rng.uniform(0.1, 0.9) * width, rng.normal(0, 8)
    for _ in range(rng.integers(3, 3 + int(12 * _crowd(shape)))):
        if rng.random() < 0.25:
            column = rng.uniform(0.05, 0.95) * width
        centre = np.array([rng.normal(column, 14), rng.uniform(0.03, 0.97) * height])
        spread = rng.uniform(4, 18)
        for _ in range(rng.integers(2, 12)):
            x, y = rng.normal(centre, (spread, spread * 0.8))
            half = (rng.uniform(1.5, 6), rng.uniform(0.7, 1.8))
            strength = rng.uniform(70, 255)
            _ellipse(rim, (x, y + rng.uniform(2, 4)), half, tilt, strength)
            _ellipse(dark, (x, y), half, rng.normal(tilt, 14), strength)
    shade = blur(ragged(dark.astype(np.float32) / 255, rng, 1.0, 1.5), 0.7)
    bright = blur(rim.astype(np.float32) / 255, 1.2) * (1 - shade)
    dusk = blur(shade, 7)
    depth = _depth(rng, 0.35, 0.7, surface, 4.5)
    return depth * (rng.uniform(0.1, 0.45) * bright - shade - rng.uniform(0.1, 0.5) * dusk)


def scratches(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Straight strokes along the strip, seldom across it: thin lines, broad scored bands and short gouges."""
    shape = surface.grey.shape
    across = rng.random() < 0.1
    change: FloatArray = np.zeros(shape[::-1] if across else shape, np.float32)
    kind = rng.choice(["line", "band", "gouge"], p=[0.4, 0.35, 0.25])
    lean = rng.normal(0, 0.02 if kind == "band" else 0.08)
    bundle = rng.uniform(0.05, 0.95) * change.shape[1]
    for _ in range(1 + rng.poisson({"line": 2.5, "band": 0.6, "gouge": 3.5}[kind] * _crowd(shape))):
        if rng.random() < 0.5:
            bundle = rng.uniform(0.05, 0.95) * change.shape[1]
        _stroke(change, rng, str(kind), rng.normal(bundle, 8), rng.normal(lean, 0.03))
    change = change.T if across else change
    # A bare scratch mirrors the lamp and shines. On a sheet that already shines it scatters light away and is dark.
    if surface.level > rng.normal(165, 10):
        return np.ascontiguousarray(-_depth(rng, 0.25, 0.6, surface) * np.minimum(change, 1.2))
    return np.ascontiguousarray(_depth(rng, 0.5, 1.7, surface, 6) * change)


DEFECTS: dict[str, Callable[[Surface, np.random.Generator], FloatArray]] = {
    "crazing": crazing,
    "inclusion": inclusion,
    "patches": patches,
    "pitted surface": pitted_surface,
    "rolled-in scale": rolled_in_scale,
    "scratches": scratches,
}


def _stands_out(change: FloatArray, roughness: float) -> bool:
    if change.size < 40:
        return False
    # Grain is alike over about 2.5 pixels each way, so it averages out that much slower than white noise.
    signal_to_noise = np.sqrt((change**2).sum()) / (2.5 * max(roughness, 0.02))
    return bool(signal_to_noise >= ROSE and np.quantile(np.abs(change), 0.9) >= 2 * roughness)


def _area(shape: tuple[int, ...]) -> float:
    """Area relative to a NEU image of 200 x 200."""
    return shape[0] * shape[1] / 200**2


def _crowd(shape: tuple[int, ...]) -> float:
    """How many more single defects a larger sheet carries; slower than its area, for defects come in places."""
    return float(np.sqrt(_area(shape)))


def _depth(rng: np.random.Generator, low: float, high: float, surface: Surface, over: float = 2.5) -> np.float32:
    """Strength of a defect; as far as `high` allows, at least `over` times the grain of the strip."""
    return np.float32(max(rng.uniform(low, high), min(over * surface.roughness, high)))


def _point(shape: tuple[int, ...], rng: np.random.Generator) -> Float64Array:
    return rng.uniform((0, 0), (shape[1], shape[0]))


def _dots(hits: FloatArray, sigma_x: float, sigma_y: float) -> FloatArray:
    return blur(hits, sigma_x, sigma_y) * np.float32(2 * np.pi * sigma_x * sigma_y)


def _draw(canvas: UInt8Array, path: Float64Array, strength: float, thickness: int) -> None:
    points = np.round(path * 16).astype(np.int32)
    cv2.polylines(canvas, [points], False, strength, thickness, cv2.LINE_AA, shift=4)


def _ellipse(
    canvas: UInt8Array, centre: tuple[float, float], half: tuple[float, float], angle: float, strength: float
) -> None:
    """A filled anti-aliased ellipse; `half` holds its half axes in pixels, `angle` is in degrees."""
    x, y, a, b = (round(value * 16) for value in (*centre, *half))
    cv2.ellipse(canvas, (x, y), (a, b), angle, 0, 360, strength, cv2.FILLED, cv2.LINE_AA, shift=4)


def _crack(
    shape: tuple[int, ...], rng: np.random.Generator, tilt: float, start: Float64Array | None = None
) -> Float64Array:
    """A jagged way (P, 2) across the strip from `start`, or from a random place."""
    steps = int(rng.integers(4, 14))
    heading = tilt + rng.normal(0, 0.3) + rng.normal(0, 0.7, steps)
    ways = rng.uniform(1.5, 5, (steps, 1)) * np.column_stack([np.cos(heading), np.sin(heading)])
    return (_point(shape, rng) if start is None else start) + np.cumsum(ways, axis=0)


def _spindle(
    rng: np.random.Generator, centre: tuple[float, float], length: float, breadth: float, lean: float
) -> Float64Array:
    """Outline (P, 2) of a flake along the rolling direction, pointed at both ends."""
    t = np.linspace(0, 1, 14)
    half = breadth / 2 * np.sin(np.pi * t ** rng.uniform(0.6, 1.6)) ** 0.8
    y = centre[1] + (t - 0.5) * length
    spine = centre[0] + lean * (t - 0.5) * length + np.cumsum(rng.normal(0, 0.25, 14))
    right = np.column_stack([spine + half * rng.uniform(0.4, 1.3, 14), y])
    left = np.column_stack([spine - half * rng.uniform(0.4, 1.3, 14), y])
    return np.concatenate([right, left[::-1]])


def _stroke(change: FloatArray, rng: np.random.Generator, kind: str, x: float, lean: float) -> None:
    height, width = change.shape
    if kind == "gouge":
        length, breadth, lean = rng.uniform(15, 90), rng.uniform(0.8, 2.2), lean + rng.choice([0, 0.2])
    elif kind == "band":
        length, breadth = height * rng.choice([1, 3]), rng.uniform(2.5, 9)
    else:
        length, breadth = height * rng.choice([0.3, 0.7, 3]), rng.uniform(0.6, 1.6)
    middle = rng.uniform(0, height)
    reach = int(3 * breadth + abs(lean) * height + 12)
    left, right = max(0, int(x) - reach), min(width, int(x) + reach)
    if right - left < 4:
        return
    y = np.arange(height, dtype=np.float32)[:, None]
    spine = x + lean * (y - middle) + 0.5 * noise((height, 1), rng, 12, 0.3)
    abruptness, beat = (rng.uniform(1, 2.5), 25) if kind == "band" else (rng.uniform(1.5, 6), rng.choice([3, 8, 25]))
    pressure = smoothstep((1 - np.abs(y - middle) / (length / 2)) * abruptness)
    pressure = pressure * np.clip(0.75 + 0.35 * noise((height, 1), rng, beat, 0.3), 0.1, 1.5)
    swell = breadth * np.clip(pressure, 0.3, 1.2) if kind == "gouge" else breadth
    off = (np.arange(left, right, dtype=np.float32)[None, :] - spine) / swell
    if kind == "band":  # a flat top scored by lines, crossed by chatter
        shape = (height, right - left)
        profile = smoothstep(1.8 * (1.3 - np.abs(off))) * (0.55 + 0.25 * noise((1, shape[1]), rng, 0.3, 0.7))
        profile = profile * (1 + 0.2 * noise(shape, rng, 1.5, 0.8) + 0.12 * noise((height, 1), rng, 0.8, 0.3))
        profile += 0.08 * np.exp(-(off**2) / 3)
    else:
        profile = np.exp(-(off**2)) * (1 + 0.2 * noise((height, right - left), rng, 1.5, 0.6))
    np.maximum(change[:, left:right], pressure * profile, out=change[:, left:right])
