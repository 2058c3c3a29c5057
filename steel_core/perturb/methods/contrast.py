"""More or less contrast around the mean grey."""

from dataclasses import dataclass

import numpy as np

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("contrast")
@dataclass(frozen=True)
class Contrast(WholePicture):
    """Stretches the grey levels around their mean, or squeezes them."""

    sign: int = 1

    info = PerturbationInfo(
        "Contrast",
        "Raises or lowers the contrast of the whole picture.",
        "natural logarithm of the factor; `sign` says which way",
        largest=2.0,
        usual=0.4,
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid.mean() + np.exp(self.sign * severity) * (grid - grid.mean())
