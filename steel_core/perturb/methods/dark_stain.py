"""The dark stain: the same film as the white one, with the opposite sign."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.patch import PatchPerturbation, PlacedPatch, describe_patch, draw_film
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("dark-stain")
@dataclass(frozen=True)
class DarkStain(PatchPerturbation):
    """A dark film of grey `brightness`, 0 to 1, where it is thickest; it never brightens what is darker already."""

    brightness: float = 0.08

    info = describe_patch("Dark stain", "Control: the same stain, dark instead of white.", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        return np.minimum(draw_film(grid, placed, self.brightness), grid)
