"""A patch of clean steel, from elsewhere in the picture or from another one."""

import numpy as np
from numpy.random import Generator

from steel_core.perturb import stencil
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.patch import PatchPerturbation, PlacedPatch, describe_patch
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("clean-steel")
class CleanSteel(PatchPerturbation):
    """Takes the same place of a donor, made as bright and rich in contrast; else steel from where it disturbs least."""

    info = describe_patch("Clean steel", "Control: the same patch filled with clean steel.", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        if donor is not None:
            spread = max(float(donor.std()), 1e-4)
            return np.asarray((donor - donor.mean()) / spread * grid.std() + grid.mean(), dtype=np.float32)
        window = stencil.bound_mask(placed.mask)
        footprint = placed.mask[window]
        top, left = stencil.place_footprint(footprint, placed.mask if avoid is None else placed.mask | avoid, rng)
        filling = grid.copy()
        filling[window] = grid[top : top + footprint.shape[0], left : left + footprint.shape[1]]
        return filling
