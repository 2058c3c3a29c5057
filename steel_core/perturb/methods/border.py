"""The border of the picture replaced: does a model look at the edges?"""

import numpy as np

from steel_core.perturb.base import PERTURBATIONS, Perturbation, PerturbationInfo, Perturbed
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("border")
class Border(Perturbation):
    """A frame as wide as the severity, filled with the steel inside it, mirrored."""

    info = PerturbationInfo(
        "Border replaced",
        "Replaces the border by the steel inside it.",
        "width of the frame as a share of the shorter side",
        largest=0.25,
        usual=0.08,
    )

    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        margin = round(severity * min(grid.shape))
        mask = np.ones(grid.shape, bool)
        mask[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin] = False
        inside = grid[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin]
        return Perturbed(np.pad(inside, margin, mode="symmetric").astype(np.float32), mask)
