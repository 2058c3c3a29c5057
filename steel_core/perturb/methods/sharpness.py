"""Sharper, or blurred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("sharpness")
@dataclass(frozen=True)
class Sharpness(Perturbation):
    """Adds fine detail, or blurs it away."""

    sign: int = 1

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Sharpness",
        plain="Sharpens or blurs the whole picture.",
        severity="share of the detail finer than 2 pixels that is added (`sign` 1) or taken away (-1)",
        largest=1.0,
        usual=0.5,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        fine = grid - cv2.GaussianBlur(grid, (0, 0), 2)
        return Perturbed(
            np.asarray(np.clip(grid + self.sign * severity * fine, 0, 1), dtype=np.float32),
            np.full(grid.shape, severity > 0),
        )
