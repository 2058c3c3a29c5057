"""The picture moved: a verdict should not hang on where the camera looked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("shift")
@dataclass(frozen=True)
class Shift(Perturbation):
    """Moves the picture in a random direction; what comes in is mirrored."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Shift",
        plain="Moves the picture a little.",
        severity="distance as a share of the shorter side",
        largest=0.5,
        usual=0.1,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        down, right = (round(severity * min(grid.shape) * turn(angle)) for turn in (np.sin, np.cos))
        move = np.array([[1, 0, right], [0, 1, down]], np.float32)
        moved = cv2.warpAffine(grid, move, grid.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        return Perturbed(np.asarray(moved, dtype=np.float32), np.full(grid.shape, severity > 0))
