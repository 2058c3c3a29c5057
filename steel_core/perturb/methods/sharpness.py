"""Sharper, or blurred."""

from dataclasses import dataclass

import cv2

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("sharpness")
@dataclass(frozen=True)
class Sharpness(WholePicture):
    """Adds fine detail, or blurs it away."""

    sign: int = 1

    info = PerturbationInfo(
        "Sharpness",
        "Sharpens or blurs the whole picture.",
        "share of the detail finer than 2 pixels that is added (`sign` 1) or taken away (-1)",
        largest=1.0,
        usual=0.5,
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + self.sign * severity * (grid - cv2.GaussianBlur(grid, (0, 0), 2))
