"""More or less contrast around the mean grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("contrast")
@dataclass(frozen=True)
class Contrast(Perturbation):
    """Stretches the grey levels around their mean, or squeezes them."""

    sign: int = 1

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Contrast",
        plain="Raises or lowers the contrast of the whole picture.",
        severity="natural logarithm of the factor; `sign` says which way",
        largest=2.0,
        usual=0.4,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        factor = np.exp(self.sign * severity)
        return Perturbed(
            np.asarray(np.clip(grid.mean() + factor * (grid - grid.mean()), 0, 1), dtype=np.float32),
            np.full(grid.shape, severity > 0),
        )
