"""The properties of a picture that an audit measures: how, what changes them, and where they show.

Legend of shapes: N images; H, W of a grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from steel_core.audit.sheets import Sheets
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.properties import noise, sharpness
from steel_core.perturb.base import Perturbation
from steel_core.perturb.methods.brightness import Brightness
from steel_core.perturb.methods.contrast import Contrast
from steel_core.perturb.methods.jpeg import Jpeg
from steel_core.perturb.methods.noise import Noise
from steel_core.perturb.methods.sharpness import Sharpness
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.stencil import find_bright_spots, inpaint
from steel_core.types import Float64Array, Grey, Mask


@dataclass(frozen=True)
class Property:
    """One property."""

    measure: Callable[[Grey, Mask], float]  # of a picture (H, W) and what of it counts (H, W)
    # the change that raises it, and `less` the one that lowers it; None where it cannot be changed
    more: Perturbation | None = None
    less: Perturbation | None = None
    # the pixels in which it shows (H, W); None for what the whole picture has
    where: Callable[[Grey], Mask] | None = None


def _measure_steel(function: Callable[[Grey], float]) -> Callable[[Grey, Mask], float]:
    """A function of a picture, with its defect painted over."""
    return lambda grid, steel: function(grid if steel.all() else inpaint(grid, ~steel))


def _measure_streaks(grid: Grey) -> float:
    """Streaks: logarithm of how much the picture changes along its rows over how much it changes down its columns."""
    across, down = np.abs(np.diff(grid, axis=1)).mean(), np.abs(np.diff(grid, axis=0)).mean()
    return float(np.log((across + 1e-4) / (down + 1e-4)))


def _measure_blocks(grid: Grey) -> float:
    """How much stronger steps are at the seams of 8 x 8 blocks than elsewhere: 1 without JPEG compression."""
    steps = np.abs(np.diff(grid, axis=1)).mean(axis=0)
    seams = np.arange(len(steps)) % 8 == 7
    return float(steps[seams].mean() / max(steps[~seams].mean(), 1e-6)) if seams.any() else 1.0


def _find_bright(grid: Grey) -> Mask:
    return np.asarray(grid >= np.quantile(grid, 0.9))


def _find_detailed(grid: Grey) -> Mask:
    energy = cv2.GaussianBlur((grid - cv2.GaussianBlur(grid, (0, 0), 2)) ** 2, (0, 0), 3)
    return np.asarray(energy >= np.quantile(energy, 0.9))


PROPERTIES = {
    "brightness": Property(
        lambda grid, steel: float(grid[steel].mean()), Brightness(), Brightness(sign=-1), _find_bright
    ),
    "contrast": Property(lambda grid, steel: float(grid[steel].std()), Contrast(), Contrast(sign=-1), _find_detailed),
    "sharpness": Property(_measure_steel(sharpness), Sharpness(), Sharpness(sign=-1), _find_detailed),
    "noise": Property(_measure_steel(noise), Noise(), Sharpness(sign=-1), _find_detailed),
    "background texture": Property(_measure_steel(_measure_streaks)),
    "stain-likeness": Property(
        lambda grid, steel: float((find_bright_spots(grid) & steel).mean()), WhiteStain(), None, find_bright_spots
    ),
    "JPEG blocks": Property(_measure_steel(_measure_blocks), Jpeg()),
}
"""What is measured on every picture; size and acquisition order come from the data set's table."""


def measure_properties(sheets: Sheets, index: DatasetIndex) -> dict[str, Float64Array]:
    """Each property of each image (N,), but for those that do not vary."""
    steel = mask_steel(sheets)
    measured = {
        name: np.array([kind.measure(grid, own) for grid, own in zip(sheets.grids, steel, strict=True)], np.float64)
        for name, kind in PROPERTIES.items()
    }
    sizes = [index.size(int(row)) for row in sheets.rows]
    measured["size"] = np.array([math.sqrt(height * width) for height, width in sizes])
    names = index.table["path"].iloc[sheets.rows]
    digits = names.str.extract(r"(\d+)\D*$")[0]
    measured["acquisition order"] = np.array([float(d) if isinstance(d, str) else math.nan for d in digits])
    return {name: values for name, values in measured.items() if np.isfinite(values).all() and np.ptp(values) > 1e-9}


def mask_steel(sheets: Sheets) -> list[Mask]:
    """What of each picture is no defect, as far as that is known; all of it where the defect leaves too little."""
    return [
        np.ones(grid.shape, bool) if defect is None or defect.mean() > 0.9 else ~defect
        for grid, defect in zip(sheets.grids, sheets.defects, strict=True)
    ]
