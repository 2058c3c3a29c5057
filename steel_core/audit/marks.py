"""Marks cut from the data's own pictures: bright and dark pieces that stand out from the steel around them.

What a model has learnt from marks it has learnt from these, and not from any that we can draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from steel_core.data.quality.clues import find_marks
from steel_core.perturb.stencil import EDGE, Stencil, bound_mask, cut_soft
from steel_core.types import CLEAR, Float64Array, Grey, Mask

_MOST = 3  # marks of one picture
_LARGEST = 0.4  # share of the picture; what covers more is no mark
_RIM = 0.5  # of the square root of a mark's area: as far as its soft edge is looked for


@dataclass(frozen=True, eq=False)
class Mark:
    """One mark, as it lay in a picture."""

    stencil: Stencil
    bright: bool
    label: str
    position: int  # of its picture among those given
    area: float  # share of the picture
    contrast: float  # to the steel around it, in grey levels, -1 to 1
    softness: float  # share of its area that is covered by less than half
    centre: tuple[float, float]  # row and column of its middle, as shares of the picture
    whole: bool  # whether it lies within the picture, and is not cut off by its border
    grain: float  # standard deviation of its detail where it covers fully, in grey levels

    @property
    def words(self) -> str:
        """What it looks like, in a few words."""
        edge = "soft" if self.softness > 0.2 else "sharp"
        return f"a {edge} {'bright' if self.bright else 'dark'} mark cut from pictures of {self.label}"


def cut_marks(
    grids: Sequence[Grey], defects: Sequence[Mask | None], labels: Sequence[tuple[str, ...]]
) -> tuple[Mark, ...]:
    """The largest marks of each picture (H, W), beside its defect.

    Where nothing tells a defect (None), only clear pictures have any: a mark of another may be the defect.
    """
    marks: list[Mark] = []
    for i, (grid, defect, names) in enumerate(zip(grids, defects, labels, strict=True)):
        if not names or (defect is None and names != (CLEAR,)):
            continue
        for sign, marked in zip((1, -1), find_marks(grid), strict=True):
            _, pieces, stats, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)
            order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:_MOST]
            for piece in (pieces == k for k in order):
                if defect is None or not (piece & defect).any():
                    mark = _cut_mark(grid, piece, marked, sign, names[0], i)
                    if mark.area <= _LARGEST:
                        marks.append(mark)
    return tuple(marks)


def cluster_marks(marks: Sequence[Mark], most: int = 6) -> tuple[tuple[Mark, ...], ...]:
    """Marks that are alike in brightness, size, softness, shape and grain; the largest cluster first.

    Of each cluster the most typical mark stands first.
    """
    if not marks:
        return ()
    features = np.array([_describe_mark(mark) for mark in marks])
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    member = fcluster(linkage(scaled, "ward"), most, "maxclust") if len(marks) > 1 else np.ones(1, int)
    clusters = []
    for number in np.unique(member):
        rows = np.flatnonzero(member == number)
        away = np.linalg.norm(scaled[rows] - np.median(scaled[rows], axis=0), axis=1)
        clusters.append(tuple(marks[rows[k]] for k in np.argsort(away, kind="stable")))
    return tuple(sorted(clusters, key=len, reverse=True))


def _cut_mark(grid: Grey, piece: Mask, marked: Mask, sign: int, label: str, position: int) -> Mark:
    rim = max(1, round(_RIM * float(piece.sum()) ** 0.5))
    reach = dilate_mask(piece, rim)
    around = dilate_mask(reach, 3) & ~reach & ~marked
    steel = float(np.median(grid[around if around.any() else ~piece])) if not piece.all() else 0.0
    # A large mark is seen in part, as it is most of its own background: the rest of it hangs together with that part.
    bright = cv2.GaussianBlur(grid, (0, 0), 1.0) - steel
    _, parts = cv2.connectedComponents((bright / np.median(bright[piece]) > 0.3).astype(np.uint8))
    whole = np.isin(parts, np.setdiff1d(parts[piece], [0]))
    if piece.sum() < whole.sum() <= _LARGEST * grid.size:
        piece = whole
        reach = dilate_mask(piece, max(1, rim // 2))
    stencil, full = cut_soft(grid, piece, reach, steel)
    detail = grid - cv2.GaussianBlur(grid, (0, 0), 1.5)
    rows, columns = bound_mask(piece)
    return Mark(
        stencil,
        sign > 0,
        label,
        position,
        float((stencil.cover > 0).sum() / grid.size),
        float(np.median((grid - steel)[piece])),
        float((stencil.cover[stencil.cover > 0] < 0.5).mean()),
        (float(rows.start + rows.stop) / 2 / grid.shape[0], float(columns.start + columns.stop) / 2 / grid.shape[1]),
        bool(min(rows.start, columns.start) > 0 and rows.stop < grid.shape[0] and columns.stop < grid.shape[1]),
        float(detail[full].std()) if full.any() else 0.0,
    )


def dilate_mask(mask: Mask, rim: int) -> Mask:
    """A mask (H, W) with what lies within `rim` pixels of it."""
    size = (2 * rim + 1, 2 * rim + 1)
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)) > 0


def _describe_mark(mark: Mark) -> Float64Array:
    height, width = mark.stencil.cover.shape
    filled = float((mark.stencil.cover >= EDGE).mean())
    return np.array(
        [3.0 * mark.bright, np.log(mark.area), mark.contrast, mark.softness, np.log(width / height), filled, mark.grain]
    )
