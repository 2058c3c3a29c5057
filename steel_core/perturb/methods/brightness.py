"""Every pixel brighter or darker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("brightness")
@dataclass(frozen=True)
class Brightness(Perturbation):
    """Adds light, or takes it."""

    sign: int = 1

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Brightness",
        plain="Makes the whole picture brighter or darker.",
        severity="grey levels added, 0 to 1; `sign` says which way",
        largest=0.5,
        usual=0.1,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        return Perturbed(
            np.asarray(np.clip(grid + self.sign * severity, 0, 1), dtype=np.float32), np.full(grid.shape, severity > 0)
        )
