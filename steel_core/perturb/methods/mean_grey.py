"""A patch of the picture's mean grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, PerturbationInfo
from steel_core.perturb.patch import AREA, LARGEST_AREA, USUAL_AREA, Patch, Placed


@PERTURBATIONS.register("mean-grey")
@dataclass(frozen=True)
class MeanGrey(Patch):
    """Hides as much of the sheet as the stain, and adds neither light nor dark."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Mean grey",
        plain="Control: a patch of the sheet's own mean grey.",
        severity=AREA,
        largest=LARGEST_AREA,
        usual=USUAL_AREA,
        control=True,
    )

    @override
    def fill(
        self, grid: Grey, placed: Placed, rng: np.random.Generator, avoid: Mask | None, donor: Grey | None
    ) -> Grey:
        return np.full_like(grid, grid.mean())
