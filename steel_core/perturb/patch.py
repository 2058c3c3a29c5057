"""What a stain and its controls share: outline and place, which depend on severity and seed and never on the fill."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from steel_core.errors import UsageError
from steel_core.perturb import stencil
from steel_core.perturb.base import Perturbation, PerturbationInfo, Perturbed
from steel_core.perturb.stain_options import LARGEST_AREA, MOST_STAINS, USUAL_AREA
from steel_core.perturb.stencil import Stencil
from steel_core.types import Grey, Mask


def describe_patch(title: str, plain: str, *, control: bool = False) -> PerturbationInfo:
    """What a patch is: all of them have one measure."""
    return PerturbationInfo(title, plain, "share of the picture under the patch", LARGEST_AREA, USUAL_AREA, control)


class PlacedPatch(NamedTuple):
    """A patch in its place: the share of each pixel that is covered (H, W), and what a cut-out patch shows (H, W)."""

    cover: Grey
    mask: Mask
    grey: Grey | None


@dataclass(frozen=True)
class PatchPerturbation(Perturbation):
    """A patch of some filling.

    Attributes:
        number: of patches that share the area.
        centre: row and column of the first patch's middle, 0 (top, left) to 1 (bottom, right); drawn at random if None.
        source: an outline to take instead of a drawn one: a stain that was cut out of a picture.
    """

    shape: str = "blot"
    number: int = 1
    centre: tuple[float, float] | None = None
    source: Stencil | None = None

    def __post_init__(self) -> None:
        if self.shape not in stencil.SHAPES:
            raise UsageError(f"shape of a stain: expected one of {', '.join(stencil.SHAPES)}, got {self.shape!r}")
        if not 1 <= self.number <= MOST_STAINS:
            raise UsageError(f"number of stains: expected 1 to {MOST_STAINS}, got {self.number}")

    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid, donor)
        placed = self.place(grid.shape, severity, seed, avoid)
        return Perturbed(self.paste(grid, placed, seed, avoid=avoid, donor=donor), placed.mask)

    def place(self, size: tuple[int, ...], severity: float, seed: int, avoid: Mask | None = None) -> PlacedPatch:
        """Outline and place in a picture of `size` (H, W); the same for every filling with the same settings."""
        height, width = size
        cover, grey = np.zeros((height, width), np.float32), None
        if severity == 0:
            return PlacedPatch(cover, cover > 0, None)
        taken = np.zeros((height, width), bool) if avoid is None else avoid
        for number in range(self.number):
            rng = np.random.default_rng([seed, number])
            outline = self.source or stencil.draw_outline(self.shape, int(rng.integers(2**31)))
            one = stencil.scale_stencil(outline, severity * height * width / self.number, (height, width))
            top, left = stencil.place_footprint(one.cover > 0, taken, rng)
            if self.centre is not None and number == 0:
                top, left = (
                    int(np.clip(round(at * full - own / 2), 0, full - own))
                    for at, full, own in zip(self.centre, size, one.cover.shape, strict=True)
                )
            window = np.s_[top : top + one.cover.shape[0], left : left + one.cover.shape[1]]
            cover[window] = np.maximum(cover[window], one.cover)
            if one.grey is not None:
                grey = np.zeros((height, width), np.float32) if grey is None else grey
                grey[window] = np.where(one.cover > 0, one.grey, grey[window])
            taken = taken | (cover > 0)
        return PlacedPatch(cover, cover > 0, grey)

    def paste(
        self, grid: Grey, placed: PlacedPatch, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Grey:
        """The picture (H, W) with the patch filled: outside `placed.mask` no pixel changes."""
        if not placed.mask.any():
            return grid.copy()
        filling = self.fill(grid, placed, np.random.default_rng([seed, 1 << 20]), avoid, donor)
        return np.asarray(np.clip(grid + placed.cover * (filling - grid), 0, 1), dtype=np.float32)

    @abstractmethod
    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        """What the patch shows where it covers fully, (H, W) or a number; outside the patch it does not matter."""

    def parameters(self) -> dict[str, Any]:
        kept = super().parameters()
        return kept | ({"source": "cut out of a picture"} if self.source is not None else {})


def draw_film(grid: Grey, placed: PlacedPatch, brightness: float) -> Grey:
    """A film of some brightness on the steel: a quarter of the grain below shows through, (H, W)."""
    return np.asarray(brightness + 0.25 * (grid - grid[placed.mask].mean()), dtype=np.float32)
