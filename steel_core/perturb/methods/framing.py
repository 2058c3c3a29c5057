"""Does a verdict hang on where the camera looked, or on the frame? Shift, crop, the border replaced and its control."""

import cv2
import numpy as np

from steel_core.perturb.base import PERTURBATIONS, Perturbation, PerturbationInfo, Perturbed, WholePicture
from steel_core.types import AnyArray, Grey, Mask


@PERTURBATIONS.register("shift")
class Shift(WholePicture):
    """Moves the picture in a random direction; what comes in is mirrored."""

    info = PerturbationInfo("Shift", "distance as a share of the shorter side", largest=0.5, usual=0.1)

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        down, right = (round(severity * min(grid.shape) * turn(angle)) for turn in (np.sin, np.cos))
        move = np.array([[1, 0, right], [0, 1, down]], np.float32)
        return cv2.warpAffine(grid, move, grid.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)


@PERTURBATIONS.register("crop")
class Crop(WholePicture):
    """Cuts the severity off each side and enlarges what is left."""

    info = PerturbationInfo("Crop", "share of each side that is cut off", largest=0.4, usual=0.1)

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        height, width = grid.shape
        rows, columns = round(severity * height), round(severity * width)
        inside = grid[rows : height - rows, columns : width - columns]
        return cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)


@PERTURBATIONS.register("border")
class Border(Perturbation):
    """A frame as wide as the severity, filled with the steel inside it, mirrored."""

    info = PerturbationInfo(
        "Border replaced", "width of the frame as a share of the shorter side", largest=0.25, usual=0.08
    )

    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        margin = round(severity * min(grid.shape))
        mask = np.ones(grid.shape, bool)
        inside = np.s_[margin : grid.shape[0] - margin, margin : grid.shape[1] - margin]
        mask[inside] = False
        return Perturbed(np.pad(grid[inside], margin, mode="symmetric").astype(np.float32), mask)


@PERTURBATIONS.register("band")
class Band(Perturbation):
    """A band as large as `border`'s frame at the fewest pixels to avoid, filled with the steel on both sides."""

    info = PerturbationInfo(
        "Band replaced",
        "width of the frame of the same area, as a share of the shorter side",
        largest=0.25,
        usual=0.08,
        control=True,
    )

    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        margin = round(severity * min(grid.shape))
        height, width = grid.shape
        share = 1 - (height - 2 * margin) * (width - 2 * margin) / grid.size
        rng = np.random.default_rng(seed)
        met = np.zeros(grid.shape, bool) if avoid is None else avoid
        bands = [self._lowest(met if axis == 0 else met.T, share, margin, rng) for axis in (0, 1)]
        axis = int(bands[1][0] < bands[0][0]) if bands[0][0] != bands[1][0] else int(rng.integers(2))
        start, stop = bands[axis][1:]
        mask = np.zeros(grid.shape, bool)
        image = grid.copy()
        lying, masked = (image, mask) if axis == 0 else (image.T, mask.T)
        masked[start:stop] = True
        # Mirrored from either side like the border, and faded from one into the other: a line between the two halves
        # would look like a scratch.
        thick = stop - start
        share = np.linspace(0, 1, thick, dtype=np.float32)[:, None]
        before, behind = lying[:start].copy(), lying[stop:].copy()
        lying[start:stop] = (1 - share) * _mirrored(before, thick) + share * _mirrored(behind[::-1], thick)[::-1]
        return Perturbed(image, mask)

    @staticmethod
    def _lowest(avoid: Mask, share: float, margin: int, rng: np.random.Generator) -> tuple[int, int, int]:
        rows = len(avoid)
        thick = round(share * rows)
        starts = np.arange(min(margin, rows - thick - 1) or 1, max(rows - thick - margin, margin + 1) + 1)
        sums = np.r_[0, np.cumsum(avoid.sum(axis=1))]
        met = sums[starts + thick] - sums[starts]
        start = int(rng.choice(starts[met == met.min()]))
        return int(met.min()), start, start + thick


def _mirrored(rows: Grey, wanted: int) -> Grey:
    """The last `wanted` rows before an edge, nearest first, mirrored over and over where there are too few."""
    return np.resize(np.concatenate([rows[::-1], rows]), (wanted, rows.shape[1]))
