"""The middle of the picture, enlarged: is the verdict about the steel or about its frame?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("crop")
@dataclass(frozen=True)
class Crop(Perturbation):
    """Cuts the severity off each side and enlarges what is left."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Crop",
        plain="Cuts off the border and enlarges the rest.",
        severity="share of each side that is cut off",
        largest=0.4,
        usual=0.1,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        height, width = grid.shape
        rows, columns = round(severity * height), round(severity * width)
        inside = grid[rows : height - rows, columns : width - columns]
        enlarged = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)
        return Perturbed(np.asarray(enlarged, dtype=np.float32), np.full(grid.shape, severity > 0))
