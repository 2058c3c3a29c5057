"""From a decoded picture to what a network sees: grey, resized with its proportions kept, normalised."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from steel_core.types import Float32Array, SteelImage

_LONGEST = 2.0
"""A picture may exceed the trained input by this factor on its longer side; a longer one is squeezed, and says so."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a checkpoint was trained on: height and width in pixels, mean and deviation of its grey, 0 to 1."""

    input_size: tuple[int, int]
    mean: float
    std: float

    def grid_size(self, height: int, width: int) -> tuple[tuple[int, int], bool]:
        """Height and width, at least the trained input's, at which a picture is seen, and whether it is squeezed."""
        rows, columns = self.input_size
        zoom = max(rows / height, columns / width)
        full = (max(round(height * zoom), rows), max(round(width * zoom), columns))
        most = (round(rows * _LONGEST), round(columns * _LONGEST))
        size = (min(full[0], most[0]), min(full[1], most[1]))
        return size, size != full

    def to_grid(self, image: SteelImage) -> tuple[Float32Array, str]:
        """Grey (H, W) in 0 to 1 at the size the network sees, and a note where proportions had to be changed."""
        (rows, columns), squeezed = self.grid_size(image.height, image.width)
        note = f"longer than {_LONGEST:g} times the trained input: squeezed to fit" if squeezed else ""
        return resize(image.grey(), rows, columns), note

    def normalise(self, grids: Tensor) -> Tensor:
        """Network input (N, 3, H, W) of grey images (N, 1, H, W) in 0 to 1.

        In channels-last layout, in which max-pooling is several times faster.
        """
        grey = (grids - self.mean) / self.std
        return grey.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def resize(grey: Float32Array, rows: int, columns: int) -> Float32Array:
    """(H, W) resized by area averaging where it shrinks, bilinearly where it grows."""
    if grey.shape == (rows, columns):
        return grey
    shrinks = rows <= grey.shape[0] and columns <= grey.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (columns, rows), interpolation=interpolation), dtype=np.float32)


def grey_statistics(grids: Iterable[Float32Array]) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of grey images (H, W), one pass."""
    count, total, squares = 0, 0.0, 0.0
    for grid in grids:
        count += grid.size
        total += float(grid.sum(dtype=np.float64))
        squares += float(np.square(grid, dtype=np.float64).sum())
    mean = total / count
    return mean, max((squares / count - mean**2) ** 0.5, 1e-4)
