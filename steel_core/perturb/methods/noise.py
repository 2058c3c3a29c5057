"""Pixel noise, as of a dim light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("noise")
@dataclass(frozen=True)
class Noise(Perturbation):
    """Adds Gaussian noise, the same for the same seed."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="Noise",
        plain="Adds noise to every pixel.",
        severity="standard deviation in grey levels, 0 to 1",
        largest=0.3,
        usual=0.04,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        grain = np.random.default_rng(seed).standard_normal(grid.shape)
        return Perturbed(
            np.asarray(np.clip(grid + severity * grain, 0, 1), dtype=np.float32), np.full(grid.shape, severity > 0)
        )
