"""Every pixel brighter or darker."""

from dataclasses import dataclass

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("brightness")
@dataclass(frozen=True)
class Brightness(WholePicture):
    """Adds light, or takes it."""

    sign: int = 1

    info = PerturbationInfo(
        "Brightness",
        "Makes the whole picture brighter or darker.",
        "grey levels added, 0 to 1; `sign` says which way",
        largest=0.5,
        usual=0.1,
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + self.sign * severity
