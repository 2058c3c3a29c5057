"""The dials of the strip mill and one rendered sheet. No disk."""

from dataclasses import dataclass

import numpy as np

from steel_core.data.strip_mill.defects import DEFECTS, plant
from steel_core.data.strip_mill.surface import draw_stain, roll
from steel_core.errors import UsageError
from steel_core.types import CLEAR, BoolArray, UInt8Array

LABELS: tuple[str, ...] = (CLEAR, *DEFECTS)

DULL = 40.0
"""Grey level into which a strip sinks as its contrast goes to 0: matt and badly lit."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One sheet of the strip mill: pixels (H, W) uint8, label, and masks (H, W) bool, empty where there is nothing.

    The defect's mask is where it changes the grey level by at least `defects.VISIBLE` at contrast 1.
    """

    pixels: UInt8Array
    label: str
    mask: BoolArray
    stain_mask: BoolArray

    @property
    def stained(self) -> bool:
        return bool(self.stain_mask.any())


@dataclass(frozen=True, slots=True)
class StripMill:
    """A mill with its dials set. The same dials and number give the same sheet, however many are made.

    A sheet's surface, defect, stain and sensor noise are drawn from separate streams of random numbers. So the surface
    does not depend on the label, and `render(i, CLEAR, stained=False)` is sheet `i` as it was before its defect.

    Attributes:
        size: height and width of a sheet, in pixels, each 32 to 4096.
        contrast: contrast of surface and defect; 1 as in the NEU images, 0.1 a dark and dull other surface.
        clear_share: share of clear sheets; the defect types share the rest evenly.
        stained_clear: share of clear sheets that carry a white stain.
        stained_defect: share of defective sheets that carry one, alike for every type.
    """

    size: tuple[int, int] = (200, 200)
    seed: int = 0
    contrast: float = 1.0
    brightness: float = 1.0
    clear_share: float = 1 / len(LABELS)
    stained_clear: float = 0.0
    stained_defect: float = 0.0

    def __post_init__(self) -> None:
        for side in self.size:
            _check("side of a sheet", side, 32, 4096)
        _check("seed", self.seed, 0, np.inf)
        _check("contrast", self.contrast, 0.01, 2)
        _check("brightness", self.brightness, 0.1, 3)
        for share in ("clear_share", "stained_clear", "stained_defect"):
            _check(share, getattr(self, share), 0, 1)

    def label(self, i: int) -> str:
        """Label of sheet `i`. Any run of sheets holds each label in its share, give or take one."""
        return self._turn(i)[0]

    def stained(self, i: int) -> bool:
        label, k = self._turn(i)
        return _is_due(k, self.stained_clear if label == CLEAR else self.stained_defect)

    def render(self, i: int, label: str | None = None, *, stained: bool | None = None) -> Sheet:
        """Renders sheet `i`, from 0, with the label and the stain that the mill gives it unless they are named."""
        label = self.label(i) if label is None else label
        if label not in LABELS:
            raise UsageError(f"unknown label {label!r}; there are: {', '.join(LABELS)}")
        streams = np.random.SeedSequence([self.seed, i]).spawn(4)
        for_surface, for_defect, for_stain, for_sensor = map(np.random.default_rng, streams)

        surface = roll(self.size, for_surface)
        grey, mask = surface.grey, np.zeros(self.size, bool)
        if label != CLEAR:
            change, mask = plant(label, surface, for_defect)
            grey = grey * (1 + change)
        grey = self.brightness * (DULL + self.contrast * (grey - DULL))
        grey = grey + for_sensor.standard_normal(self.size, dtype=np.float32) * 0.8
        pixels = np.clip(np.round(grey), 0, 255).astype(np.uint8)

        stain_mask = np.zeros(self.size, bool)
        if self.stained(i) if stained is None else stained:
            share, white = for_stain.uniform(0.015, 0.05), for_stain.uniform(225, 250)
            pixels, stain_mask = draw_stain(pixels, for_stain, area_share=share, brightness=white, avoid=mask)
        return Sheet(pixels, label, mask, stain_mask)

    def _turn(self, i: int) -> tuple[str, int]:
        clear_before = _count(i * self.clear_share)
        if _is_due(i, self.clear_share):
            return CLEAR, clear_before
        k, kind = divmod(i - clear_before, len(DEFECTS))
        return LABELS[1 + kind], k


def _count(value: float) -> int:
    """Rounded half up. Rounding, unlike cutting off, forgives the floating-point error of a share such as 1/7."""
    return int(np.floor(value + 0.5))


def _is_due(k: int, share: float) -> bool:
    return _count((k + 1) * share) > _count(k * share)


def _check(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{what}: expected {low:g} to {high:g}, got {value}")
