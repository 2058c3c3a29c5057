"""The dark stain: the same film as the white one, with the opposite sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, PerturbationInfo
from steel_core.perturb.patch import AREA, LARGEST_AREA, USUAL_AREA, Patch, Placed, film


@PERTURBATIONS.register("dark-stain")
@dataclass(frozen=True)
class DarkStain(Patch):
    """A dark film; it never brightens what is darker already.

    Attributes:
        brightness: grey of the film where it is thickest, 0 to 1.
    """

    brightness: float = 0.08

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Dark stain",
        plain="Control: the same stain, dark instead of white.",
        severity=AREA,
        largest=LARGEST_AREA,
        usual=USUAL_AREA,
        control=True,
    )

    @override
    def fill(
        self, grid: Grey, placed: Placed, rng: np.random.Generator, avoid: Mask | None, donor: Grey | None
    ) -> Grey:
        return np.minimum(film(grid, placed, self.brightness), grid)
