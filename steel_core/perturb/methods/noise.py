"""Pixel noise, as of a dim light."""

import numpy as np

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("noise")
class Noise(WholePicture):
    """Adds Gaussian noise, the same for the same seed."""

    info = PerturbationInfo(
        "Noise", "Adds noise to every pixel.", "standard deviation in grey levels, 0 to 1", largest=0.3, usual=0.04
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + severity * np.random.default_rng(seed).standard_normal(grid.shape)
