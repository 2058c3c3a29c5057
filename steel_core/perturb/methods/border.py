"""The border of the picture replaced: does a model look at the edges?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("border")
@dataclass(frozen=True)
class Border(Perturbation):
    """A frame as wide as the severity, filled with the steel inside it, mirrored."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Border replaced",
        plain="Replaces the border by the steel inside it.",
        severity="width of the frame as a share of the shorter side",
        largest=0.25,
        usual=0.08,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        margin = round(severity * min(grid.shape))
        mask = np.ones(grid.shape, bool)
        mask[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin] = False
        inside = grid[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin]
        return Perturbed(np.pad(inside, margin, mode="symmetric").astype(np.float32), mask)
