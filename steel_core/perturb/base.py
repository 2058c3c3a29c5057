"""The interface of a perturbation and the registry of all of them.

Legend of shapes: H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from steel_core.errors import UsageError
from steel_core.registry import Registry

Grey = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Perturbed(NamedTuple):
    """A changed picture.

    Attributes:
        image: (H, W) float32 grey in 0 to 1.
        mask: (H, W) bool, True where the picture may have changed; outside it no pixel did.
    """

    image: Grey
    mask: Mask


@dataclass(frozen=True, slots=True)
class PerturbationInfo:
    """What a perturbation is.

    Attributes:
        title: name for people.
        plain: one sentence that tells an inspector what it does.
        severity: what the number means, with its unit.
        largest: the largest severity it takes; the smallest is 0, which changes nothing.
        usual: the severity that a test takes unless told otherwise.
        control: whether it serves to be compared with: it hides as much of the picture as a stain, and is no stain.
    """

    title: str
    plain: str
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
        """Change a picture. The same arguments give the same result; `grid` is not changed.

        Args:
            grid: (H, W) float32 grey in 0 to 1.
            severity: how much, in the unit of `info.severity`; 0 changes nothing.
            seed: of everything drawn at random.
            avoid: (H, W) bool, pixels to keep clear. A patch lies where it meets the fewest of them: on none, if it
                fits. Changes to the whole picture pay no heed to it.
            donor: (H, W) another picture, for what takes material from one; others pay no heed to it.

        Raises:
            UsageError: the severity is out of range, or a shape is wrong.
        """

    def parameters(self) -> dict[str, Any]:
        """The settings that, with severity and seed, make the result repeatable."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def check(self, grid: Grey, severity: float, *others: npt.NDArray[Any] | None) -> None:
        """Refuse what `perturb` cannot take; `others` must have the shape of `grid`.

        Raises:
            UsageError: the severity is out of range, or a shape is wrong.
        """
        if not 0 <= severity <= self.info.largest:
            raise UsageError(f"{self.info.title}: expected a severity of 0 to {self.info.largest:g}, got {severity:g}")
        if grid.ndim != 2 or any(other is not None and other.shape != grid.shape for other in others):
            shapes = [grid.shape, *(other.shape for other in others if other is not None)]
            raise UsageError(f"expected grey pictures (H, W) of one shape, got {', '.join(map(str, shapes))}")


PERTURBATIONS: Registry[type[Perturbation]] = Registry("perturbation", "steel_core.perturb.methods")
