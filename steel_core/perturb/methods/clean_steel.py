"""A patch of clean steel, from elsewhere in the picture or from another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb import stencil
from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, PerturbationInfo
from steel_core.perturb.patch import AREA, LARGEST_AREA, USUAL_AREA, Patch, Placed


@PERTURBATIONS.register("clean-steel")
@dataclass(frozen=True)
class CleanSteel(Patch):
    """Takes from a donor picture the same place, made as bright and rich in contrast as this one; else moves steel.

    Without a donor the steel comes from where it meets the patch and the pixels to avoid the least.
    """

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Clean steel",
        plain="Control: the same patch filled with clean steel.",
        severity=AREA,
        largest=LARGEST_AREA,
        usual=USUAL_AREA,
        control=True,
    )

    @override
    def fill(
        self, grid: Grey, placed: Placed, rng: np.random.Generator, avoid: Mask | None, donor: Grey | None
    ) -> Grey:
        if donor is not None:
            spread = max(float(donor.std()), 1e-4)
            return np.asarray((donor - donor.mean()) / spread * grid.std() + grid.mean(), dtype=np.float32)
        rows, columns = (np.flatnonzero(placed.mask.any(axis=axis)) for axis in (1, 0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        footprint = placed.mask[window]
        top, left = stencil.place(footprint, placed.mask if avoid is None else placed.mask | avoid, rng)
        filling = grid.copy()
        filling[window] = grid[top : top + footprint.shape[0], left : left + footprint.shape[1]]
        return filling
