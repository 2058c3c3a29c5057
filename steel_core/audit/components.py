"""Parts of a picture that can be taken from one and put into another: what a clue measures, and nothing else.

An interchange shows what a component does to a model (Geiger et al., Causal Abstractions of Neural Networks, NeurIPS
2021): a picture gets the component of one that carries a clue, and, as a control, that of one that does not.

Legend of shapes: H, W of the picture that the network sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from steel_core.perturb.stencil import inpaint
from steel_core.types import BoolArray, Float32Array, Float64Array, Grey

_RINGS, _COARSE = 10, 0.05  # of frequencies, and where they begin, in cycles a pixel
_FADE = 3  # pixels over which a pasted part fades out
_STRIP = 0.06  # share of the side; a border that is put in
_WINDOW = 1 / 3  # share of the side; a place that is put in
_LOUD = 6.0  # times the middle of its ring of frequencies; a wave


@dataclass(frozen=True)
class Component:
    """How to take it from a picture (H, W), of which `steel` (H, W) is no defect, and how to put it into another.

    `local`: it is a part of the picture, at a place `where` (row and column as shares), and hides what lies there.
    """

    take: Callable[[Grey, BoolArray], Any]
    put: Callable[[Grey, BoolArray, Any], Grey]
    local: bool = False


def _take_brightness(grid: Grey, steel: BoolArray) -> float:
    return float(np.median(grid[steel]))


def _put_brightness(grid: Grey, steel: BoolArray, level: float) -> Grey:
    return grid + np.float32(level - _take_brightness(grid, steel))


def _take_contrast(grid: Grey, steel: BoolArray) -> float:
    return max(float(grid[steel].std()), 1 / 255)


def _put_contrast(grid: Grey, steel: BoolArray, spread: float) -> Grey:
    middle = np.float32(grid[steel].mean())
    return middle + (grid - middle) * np.float32(np.clip(spread / _take_contrast(grid, steel), 1 / 3, 3))


def _take_detail(grid: Grey, steel: BoolArray) -> Float64Array:
    """Mean amplitude in rings of frequencies above a twentieth of a cycle a pixel, of the steel."""
    spectrum, ring = _transform_detail(grid if steel.all() else inpaint(grid, ~steel))
    sums = np.bincount(ring.ravel(), np.abs(spectrum).ravel(), minlength=_RINGS)
    return np.asarray(sums / np.maximum(np.bincount(ring.ravel(), minlength=_RINGS), 1) / grid.size**0.5)


def _put_detail(grid: Grey, steel: BoolArray, amplitudes: Float64Array) -> Grey:
    gain = np.clip(amplitudes / np.maximum(_take_detail(grid, steel), 1e-6), 0.01, 5)
    gain[0] = 1
    spectrum, ring = _transform_detail(grid)
    return np.asarray(np.fft.irfft2(spectrum * gain[ring], s=grid.shape), np.float32)


def _transform_detail(grid: Grey) -> tuple[Any, Any]:
    y, x = np.meshgrid(np.fft.fftfreq(grid.shape[0]), np.fft.rfftfreq(grid.shape[1]), indexing="ij")
    ring = np.clip(np.ceil((np.hypot(y, x) - _COARSE) / (0.5 - _COARSE) * (_RINGS - 1)), 0, _RINGS - 1).astype(int)
    return np.fft.rfft2(grid), ring


def _take_light(grid: Grey, steel: BoolArray) -> Float64Array:
    """Slopes down and across and the bend of slow light, relative to its mean."""
    small = cv2.resize(
        np.where(steel, grid, np.float32(np.median(grid[steel]))), (24, 24), interpolation=cv2.INTER_AREA
    )
    design = _draw_light(small.shape).reshape(-1, 3)
    design = np.c_[np.ones(len(design)), design]
    light = small.ravel() / max(float(small.mean()), 1 / 255)
    keep = np.ones(len(light), bool)
    for _ in range(3):  # marks and defects are no light
        fit = np.linalg.lstsq(design[keep], light[keep], rcond=None)[0]
        away = np.abs(light - design @ fit)
        keep = away <= 3 * max(float(np.median(away)), 1e-3)
    return np.asarray(fit[1:])


def _put_light(grid: Grey, steel: BoolArray, light: Float64Array) -> Grey:
    shape = _draw_light(grid.shape)
    own, other = (1 + shape @ slopes - float((shape @ slopes).mean()) for slopes in (_take_light(grid, steel), light))
    return np.asarray(grid * np.maximum(other, 0.1) / np.maximum(own, 0.1), np.float32)


def _draw_light(shape: tuple[int, ...]) -> Float64Array:
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return np.stack([y, x, y**2 + x**2], axis=2)


def _take_waves(grid: Grey, _: BoolArray) -> dict[tuple[float, float], complex]:
    """Complex amplitude of each loud wave, by its cycles a pixel down and across."""
    spectrum, loud, _ = _find_waves(grid)
    rows, columns = np.fft.fftfreq(grid.shape[0]), np.fft.rfftfreq(grid.shape[1])
    return {
        (float(rows[y]), float(columns[x])): complex(spectrum[y, x] / grid.size)
        for y, x in zip(*np.nonzero(loud), strict=True)
    }


def _put_waves(grid: Grey, _: BoolArray, waves: dict[tuple[float, float], complex]) -> Grey:
    spectrum, loud, usual = _find_waves(grid)
    size = np.abs(spectrum)
    quiet = np.where(loud, spectrum * np.minimum(1, usual / np.maximum(size, 1e-9)), spectrum)
    for (down, across), amplitude in waves.items():
        y, x = round(down * grid.shape[0]) % grid.shape[0], round(across * grid.shape[1])
        quiet[y, min(x, quiet.shape[1] - 1)] = amplitude * grid.size
    return np.asarray(np.fft.irfft2(quiet, s=grid.shape), np.float32)


def _find_waves(grid: Grey) -> tuple[Any, Any, Any]:
    """Spectrum, where it is loud, and the usual amplitude of each frequency's ring (H, W // 2 + 1)."""
    spectrum = np.fft.rfft2(grid)
    y, x = np.meshgrid(np.fft.fftfreq(grid.shape[0]), np.fft.rfftfreq(grid.shape[1]), indexing="ij")
    radius = np.hypot(y, x)
    ring = (radius * 48).astype(int)
    size = np.abs(spectrum)
    usual = np.array([np.median(size[ring == r]) if (ring == r).any() else 0 for r in range(ring.max() + 1)])[ring]
    loud = (size > _LOUD * usual) & (radius > 1 / 24)
    near = cv2.dilate((size > _LOUD * usual).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return spectrum, near & (radius > 1 / 24) & (size > 2 * usual) if loud.any() else loud, usual


def make_border(side: str) -> Component:
    """The outermost strip at a side: "top", "bottom", "left" or "right"."""

    def turn(values: Any) -> Any:
        return {"top": values, "bottom": values[::-1], "left": values.T, "right": values.T[::-1]}[side]

    def take(grid: Grey, _: BoolArray) -> Float32Array:
        turned = turn(grid)
        wide = max(4, round(_STRIP * min(grid.shape)))
        # Against the steel just inside: how bright the donor is does not matter.
        return np.asarray(turned[:wide] - np.median(turned[wide : 4 * wide]), np.float32)

    def put(grid: Grey, _: BoolArray, strip: Float32Array) -> Grey:
        out = grid.copy()
        turned = turn(out)
        wide = len(strip)
        fitted = cv2.resize(strip, (turned.shape[1], wide), interpolation=cv2.INTER_LINEAR)
        share = np.clip((wide - np.arange(wide, dtype=np.float32)) / _FADE, 0, 1)[:, None]
        level = np.float32(np.median(turned[wide : 4 * wide]))
        turned[:wide] += share * (level + fitted - turned[:wide])
        return out

    return Component(take, put, local=True)


def make_place(where: tuple[float, float]) -> Component:
    """The window around a place, given by row and column as shares of the picture."""

    def window(grid: Grey) -> tuple[slice, slice]:
        starts, sides = [], []
        for at, full in zip(where, grid.shape, strict=True):
            side = max(8, round(_WINDOW * full))
            starts.append(int(np.clip(round(at * full - side / 2), 0, full - side)))
            sides.append(side)
        return slice(starts[0], starts[0] + sides[0]), slice(starts[1], starts[1] + sides[1])

    def take(grid: Grey, _: BoolArray) -> Float32Array:
        part = grid[window(grid)]
        return np.asarray(part - np.median(part), np.float32)

    def put(grid: Grey, _: BoolArray, part: Float32Array) -> Grey:
        out, at = grid.copy(), window(grid)
        own = out[at]
        fitted = cv2.resize(part, own.shape[::-1], interpolation=cv2.INTER_LINEAR)
        inside = np.zeros((own.shape[0] + 2, own.shape[1] + 2), np.uint8)
        inside[1:-1, 1:-1] = 1
        share = np.clip(cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1] / _FADE, 0, 1)
        own += share * (np.float32(np.median(own)) + fitted - own)
        return out

    return Component(take, put, local=True)


COMPONENTS: dict[str, Component] = {
    "brightness": Component(_take_brightness, _put_brightness),
    "contrast": Component(_take_contrast, _put_contrast),
    **dict.fromkeys(("sharpness", "noise"), Component(_take_detail, _put_detail)),
    **dict.fromkeys(("vignette", "light from top", "light from left"), Component(_take_light, _put_light)),
    "waves": Component(_take_waves, _put_waves),
    **{f"border at the {side}": make_border(side) for side in ("top", "bottom", "left", "right")},
}
"""By the name of the clue; a place is made by `make_place`, and compression is a change of the file itself."""


def estimate_jpeg_quality(grey: Grey) -> int:
    """Quality that a picture (H, W) was last compressed with, 100 where nothing tells of any.

    Compressing it again at that quality changes less than at the next higher one (JPEG ghosts: Farid, IEEE Transactions
    on Information Forensics and Security 4, 2009).
    """
    qualities = range(10, 100, 5)
    lost = [float(((compress(grey, quality) - grey) ** 2).mean()) for quality in qualities]
    dips = [
        (after / max(here, 1e-9), quality)
        for here, after, quality in zip(lost, lost[1:], qualities, strict=False)
        if here < 0.9 * after
    ]
    return max(dips)[1] if dips else 100


def compress(grey: Grey, quality: int) -> Grey:
    """The picture (H, W) encoded as JPEG and decoded again."""
    eight = np.clip(np.round(grey * 255), 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) / np.float32(255), np.float32)
