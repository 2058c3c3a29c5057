"""The white stain: dried emulsion or water, harmless, and the thing a model may take for a sign of a clear sheet."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from steel_core.data.strip_mill.noise import noise
from steel_core.errors import UsageError
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.patch import PatchPerturbation, PlacedPatch, describe_patch, draw_film
from steel_core.perturb.stain_options import TEXTURES
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("white-stain")
@dataclass(frozen=True)
class WhiteStain(PatchPerturbation):
    """A bright film; it never darkens what is brighter already.

    Attributes:
        brightness: grey of the film where it is thickest, 0 to 1. A stain cut out of a picture keeps its own.
        texture: "film" (grain shows through), "grain" (a crust of its own) or "flat".
    """

    brightness: float = 0.92
    texture: str = "film"

    info = describe_patch("White stain", "Puts a harmless white stain on the sheet.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.brightness <= 1 or self.texture not in TEXTURES:
            raise UsageError(
                f"white stain: expected a brightness of 0 to 1 and a texture out of {', '.join(TEXTURES)}, "
                f"got {self.brightness:g} and {self.texture!r}"
            )

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        if placed.grey is not None:
            return placed.grey
        if self.texture == "film":
            return np.maximum(draw_film(grid, placed, self.brightness), grid)
        crust = 0.05 * noise(grid.shape, rng, 1.5) if self.texture == "grain" else np.zeros_like(grid)
        return np.maximum(self.brightness + crust, grid).astype(np.float32)
