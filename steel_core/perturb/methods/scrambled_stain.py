"""The phase-scrambled stain: the stain's shares of coarse and fine, without its outline and without being white."""

import numpy as np
from numpy.random import Generator

from steel_core.perturb import stencil
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.patch import PlacedPatch, describe_patch
from steel_core.types import Grey, Mask


@PERTURBATIONS.register("scrambled-stain")
class ScrambledStain(WhiteStain):
    """What the white stain adds to the picture, with its Fourier phases drawn at random and its mean taken out.

    As strong a change (the same root mean square) or weaker: its light spots are no whiter than the sheet's.
    """

    info = describe_patch(
        "Scrambled stain", "Control: the stain's light and dark shuffled, without being white anywhere.", control=True
    )

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        white = super().fill(grid, placed, rng, avoid, donor)
        window = stencil.bound_mask(placed.mask)
        change = (placed.cover * (white - grid))[window]
        random = np.fft.rfft2(rng.standard_normal(change.shape))
        phases = random / np.maximum(np.abs(random), 1e-12)
        scrambled = np.fft.irfft2(np.abs(np.fft.rfft2(change)) * phases, s=change.shape)
        inside = placed.mask[window]
        weight = placed.cover[window][inside]
        scrambled -= np.average(scrambled[inside], weights=weight)
        strength = np.sqrt(np.mean(change[inside] ** 2) / max(np.mean((weight * scrambled[inside]) ** 2), 1e-12))
        whitest = float(np.quantile(weight * scrambled[inside], 0.98))
        room = float(np.quantile(grid, 0.995)) - float(grid[placed.mask].mean())
        strength = min(strength, max(room, 0.0) / max(whitest, 1e-12))
        filling = grid.astype(np.float32).copy()
        filling[window] += (strength * scrambled).astype(np.float32)
        return filling
