"""Random fields, the raw material of texture and of ragged edges: float arrays (H, W), H rows, W columns."""

import cv2
import numpy as np

from steel_core.types import FloatArray


def noise(shape: tuple[int, int], rng: np.random.Generator, sigma_y: float, sigma_x: float | None = None) -> FloatArray:
    """Gaussian noise (H, W) of mean 0 and variance 1; filter widths in pixels, `sigma_y` down a column."""
    sigmas = (sigma_y, sigma_y if sigma_x is None else sigma_x)
    # Broad noise is drawn on a coarse grid and enlarged: the same look at a fraction of the cost.
    steps = [max(1.0, sigma / 2) for sigma in sigmas]
    kernels = [_gauss(sigma / step) for sigma, step in zip(sigmas, steps, strict=True)]
    coarse = [int(np.ceil(n / step)) + 1 for n, step in zip(shape, steps, strict=True)]
    # A margin as wide as the filter keeps the variance even up to the border.
    radii = [len(kernel) // 2 for kernel in kernels]
    white = rng.standard_normal([n + 2 * r for n, r in zip(coarse, radii, strict=True)], dtype=np.float32)
    field = cv2.sepFilter2D(white, cv2.CV_32F, kernels[1], kernels[0])
    field = field[radii[0] : radii[0] + coarse[0], radii[1] : radii[1] + coarse[1]]
    if max(steps) > 1:
        rows, columns = (round(n * step) for n, step in zip(coarse, steps, strict=True))
        field = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(field[: shape[0], : shape[1]], dtype=np.float32)


def _gauss(sigma: float) -> FloatArray:
    """A Gaussian kernel that keeps the variance of white noise at 1."""
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(3 * sigma)) + 1, sigma, cv2.CV_32F)
    return np.asarray(kernel / np.sqrt((kernel**2).sum()), dtype=np.float32)


def blur(field: FloatArray, sigma_x: float, sigma_y: float | None = None) -> FloatArray:
    """The field, Gaussian-filtered; the sigmas are in pixels and equal where only one is given."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y or sigma_x), dtype=np.float32)


def brushed(shape: tuple[int, int], rng: np.random.Generator, angle: float, length: int) -> FloatArray:
    """Noise along lines of `length` pixels at `angle` radians from the horizontal; mean 0, variance 1, (H, W)."""
    side = length | 1
    line = np.zeros((side, side), np.float32)
    half = side // 2
    dx, dy = round(half * np.cos(angle)), round(half * np.sin(angle))
    cv2.line(line, (half - dx, half + dy), (half + dx, half - dy), 1.0, 1)
    kernel = blur(line, 0.6)
    kernel = kernel / np.sqrt((kernel**2).sum())
    # Full lines up to the border need a margin as wide as half a line.
    white = rng.standard_normal([n + 2 * half for n in shape], dtype=np.float32)
    field = cv2.filter2D(white, cv2.CV_32F, kernel)[half : half + shape[0], half : half + shape[1]]
    return np.ascontiguousarray(field, dtype=np.float32)


def smoothstep(field: FloatArray) -> FloatArray:
    """A soft step: 0 below 0, 1 above 1, flat at both ends."""
    t = np.clip(field, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def zone(shape: tuple[int, int], rng: np.random.Generator, sigma: float, bias: float) -> FloatArray:
    """A soft region of the sheet, 0 outside to 1 inside, stretched along the rolling direction, (H, W) float32.

    `sigma`: width of its features across the strip, in pixels. `bias`: about half is inside at 0, nearly all at 2.
    """
    field = smoothstep(0.5 + 0.8 * (noise(shape, rng, 2 * sigma, sigma) + bias))
    return field / max(float(field.max()), 1e-3)


def ragged(
    field: FloatArray, rng: np.random.Generator, amplitude: float, sigma: float, *, drawn: float = 0
) -> FloatArray:
    """The field (H, W) with its edges frayed, by moving each pixel a random way.

    `amplitude` is the standard deviation of the displacement and `sigma` the width of the frays, in pixels; `drawn`
    that of a further displacement along the rolling direction, which draws the ends out to a fringe.
    """
    height, width = field.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    columns += amplitude * noise(field.shape, rng, sigma)
    rows += amplitude * noise(field.shape, rng, sigma)
    if drawn:
        rows += drawn * noise(field.shape, rng, 3 * sigma, 1)
    return cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
