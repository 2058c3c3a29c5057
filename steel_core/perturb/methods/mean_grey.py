"""A patch of the picture's mean grey."""

import numpy as np
from numpy.random import Generator

from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.patch import PatchPerturbation, PlacedPatch, describe_patch
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("mean-grey")
class MeanGrey(PatchPerturbation):
    """Hides as much of the sheet as the stain, and adds neither light nor dark."""

    info = describe_patch("Mean grey", "Control: a patch of the sheet's own mean grey.", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        return np.full_like(grid, grid.mean())
