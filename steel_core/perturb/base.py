"""The interface of a perturbation and the registry of all of them.

Legend of shapes: H rows, W columns.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from steel_core.errors import UsageError
from steel_core.registry import Registry
from steel_core.types import AnyArray, Grey, Mask


class Perturbed(NamedTuple):
    """A changed picture (H, W) float32 in 0 to 1, and a mask (H, W) bool; outside it no pixel changed."""

    image: Grey
    mask: Mask


@dataclass(frozen=True, slots=True)
class PerturbationInfo:
    """What a perturbation is.

    Attributes:
        severity: what the number means, with its unit; 0 changes nothing.
        usual: the severity that a test takes unless asked otherwise.
        control: whether it serves to be compared with: it hides as much of the picture as a stain, and is no stain.
    """

    title: str
    severity: str
    largest: float
    usual: float
    control: bool = False


@dataclass(frozen=True)
class Perturbation(ABC):
    """One kind of change. Its fields are its parameters, all with defaults; it keeps no state between calls."""

    info: ClassVar[PerturbationInfo]

    @abstractmethod
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        """Change a picture (H, W) in 0 to 1. The same arguments give the same result; `grid` is not changed.

        `severity` is in the unit of `info.severity`; 0 changes nothing. A patch lies where it meets the fewest pixels
        of `avoid` (H, W): none, if it fits. `donor` is another picture (H, W), for what takes material from one.

        Raises:
            UsageError: the severity is out of range, or a shape is wrong.
        """

    def check(self, grid: Grey, severity: float, *others: AnyArray | None) -> None:
        """Refuse what `perturb` cannot take; `others` must have the shape of `grid`."""
        if not 0 <= severity <= self.info.largest:
            raise UsageError(f"{self.info.title}: expected a severity of 0 to {self.info.largest:g}, got {severity:g}")
        if grid.ndim != 2 or any(other is not None and other.shape != grid.shape for other in others):
            shapes = [grid.shape, *(other.shape for other in others if other is not None)]
            raise UsageError(f"expected grey pictures (H, W) of one shape, got {', '.join(map(str, shapes))}")


@dataclass(frozen=True)
class WholePicture(Perturbation):
    """A change to every pixel; it pays no heed to pixels to avoid, nor to a donor."""

    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        image = self.redraw(grid, severity, seed) if severity else grid.copy()
        return Perturbed(np.asarray(np.clip(image, 0, 1), dtype=np.float32), np.full(grid.shape, severity > 0))

    @abstractmethod
    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        """The changed picture (H, W) of a severity above 0; values below 0 or above 1 are cut off."""


PERTURBATIONS: Registry[type[Perturbation]] = Registry(
    "perturbation", "steel_core.perturb.methods", "steel_lens.perturbations"
)
