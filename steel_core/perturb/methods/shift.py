"""The picture moved: a verdict should not hang on where the camera looked."""

import cv2
import numpy as np

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("shift")
class Shift(WholePicture):
    """Moves the picture in a random direction; what comes in is mirrored."""

    info = PerturbationInfo(
        "Shift", "Moves the picture a little.", "distance as a share of the shorter side", largest=0.5, usual=0.1
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        down, right = (round(severity * min(grid.shape) * turn(angle)) for turn in (np.sin, np.cos))
        move = np.array([[1, 0, right], [0, 1, down]], np.float32)
        return cv2.warpAffine(grid, move, grid.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
