"""The white stain: dried emulsion or water, harmless, and the thing a model may take for a sign of a clear sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from steel_core.data.strip_mill.noise import noise
from steel_core.errors import UsageError
from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, PerturbationInfo
from steel_core.perturb.patch import AREA, LARGEST_AREA, USUAL_AREA, Patch, Placed, film

TEXTURES = ("film", "grain", "flat")


@PERTURBATIONS.register("white-stain")
@dataclass(frozen=True)
class WhiteStain(Patch):
    """A bright film; it never darkens what is brighter already.

    Attributes:
        brightness: grey of the film where it is thickest, 0 to 1. A stain cut out of a picture keeps its own.
        texture: "film" (grain shows through), "grain" (a crust of its own) or "flat".
    """

    brightness: float = 0.92
    texture: str = "film"

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="White stain",
        plain="Puts a harmless white stain on the sheet.",
        severity=AREA,
        largest=LARGEST_AREA,
        usual=USUAL_AREA,
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 0 <= self.brightness <= 1 or self.texture not in TEXTURES:
            raise UsageError(
                f"white stain: expected a brightness of 0 to 1 and a texture out of {', '.join(TEXTURES)}, "
                f"got {self.brightness:g} and {self.texture!r}"
            )

    @override
    def fill(
        self, grid: Grey, placed: Placed, rng: np.random.Generator, avoid: Mask | None, donor: Grey | None
    ) -> Grey:
        if placed.grey is not None:
            return placed.grey
        if self.texture == "film":
            return np.maximum(film(grid, placed, self.brightness), grid)
        crust = 0.05 * noise(grid.shape, rng, 1.5) if self.texture == "grain" else np.zeros_like(grid)
        return np.maximum(self.brightness + crust, grid).astype(np.float32)
