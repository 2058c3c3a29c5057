"""Stains and their controls, which share outline and place: those depend on severity and seed, never on the fill.

The white stain is dried emulsion or water, harmless, and the thing a model may take for a sign of a clear sheet.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from steel_core.data.strip_mill.noise import noise
from steel_core.errors import UsageError
from steel_core.perturb import stencil
from steel_core.perturb.base import PERTURBATIONS, Perturbation, PerturbationInfo, Perturbed
from steel_core.perturb.stain_options import LARGEST_AREA, MOST_STAINS, TEXTURES, USUAL_AREA
from steel_core.types import Grey, Mask


def describe_patch(title: str, *, control: bool = False) -> PerturbationInfo:
    """What a patch is: all of them have one measure."""
    return PerturbationInfo(title, "share of the picture under the patch", LARGEST_AREA, USUAL_AREA, control)


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
        opacity: how much a patch hides where it is thickest, 0 to 1.
        softness: how far its edge is blurred, as a share of the square root of its area.
    """

    shape: str = "blot"
    number: int = 1
    centre: tuple[float, float] | None = None
    source: stencil.Stencil | None = None
    opacity: float = 1.0
    softness: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.opacity <= 1 or not 0 <= self.softness <= 1:
            raise UsageError(
                f"a patch: expected an opacity above 0 and a softness from 0, both to 1, got {self.opacity:g} and "
                f"{self.softness:g}"
            )
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
        blur = self.softness * (severity * height * width / self.number) ** 0.5 / 2
        if blur and taken.any():  # room for the blurred edge
            taken = cv2.dilate(taken.astype(np.uint8), np.ones((2 * round(2 * blur) + 1,) * 2, np.uint8)) > 0
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
        if blur:
            cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), blur), np.float32)
        cover = np.where(cover >= stencil.EDGE, np.maximum(self.opacity * cover, stencil.EDGE), 0).astype(np.float32)
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


def draw_film(grid: Grey, placed: PlacedPatch, brightness: float) -> Grey:
    """A film of some brightness on the steel: a quarter of the grain below shows through, (H, W)."""
    return np.asarray(brightness + 0.25 * (grid - grid[placed.mask].mean()), dtype=np.float32)


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

    info = describe_patch("White stain")

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


@PERTURBATIONS.register("dark-stain")
@dataclass(frozen=True)
class DarkStain(PatchPerturbation):
    """A dark film of grey `brightness`, 0 to 1, where it is thickest; it never brightens what is darker already."""

    brightness: float = 0.08

    info = describe_patch("Dark stain", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        return np.minimum(draw_film(grid, placed, self.brightness), grid)


@PERTURBATIONS.register("scrambled-stain")
class ScrambledStain(WhiteStain):
    """What the white stain adds to the picture, with its Fourier phases drawn at random and its mean taken out.

    As strong a change (the same root mean square) or weaker: its light spots are no whiter than the sheet's.
    """

    info = describe_patch("Scrambled stain", control=True)

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


@PERTURBATIONS.register("mean-grey")
class MeanGrey(PatchPerturbation):
    """Hides as much of the sheet as the stain, and adds neither light nor dark."""

    info = describe_patch("Mean grey", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        return np.full_like(grid, grid.mean())


@PERTURBATIONS.register("clean-steel")
class CleanSteel(PatchPerturbation):
    """Takes the same place of a donor, made as bright and rich in contrast; else steel from where it disturbs least."""

    info = describe_patch("Clean steel", control=True)

    def fill(self, grid: Grey, placed: PlacedPatch, rng: Generator, avoid: Mask | None, donor: Grey | None) -> Grey:
        if donor is not None:
            spread = max(float(donor.std()), 1e-4)
            return np.asarray((donor - donor.mean()) / spread * grid.std() + grid.mean(), dtype=np.float32)
        window = stencil.bound_mask(placed.mask)
        footprint = placed.mask[window]
        top, left = stencil.place_footprint(footprint, placed.mask if avoid is None else placed.mask | avoid, rng)
        filling = grid.copy()
        filling[window] = grid[top : top + footprint.shape[0], left : left + footprint.shape[1]]
        return filling
