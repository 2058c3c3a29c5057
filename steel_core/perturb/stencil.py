"""The outline of a patch: how much of each pixel it covers, drawn in several shapes or cut out of a picture.

Legend of shapes: H, W of the picture; h, w of the stencil.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from steel_core.data.quality.clues import find_marks
from steel_core.data.strip_mill.noise import noise, smoothstep
from steel_core.errors import UsageError
from steel_core.perturb.stain_options import SHAPES
from steel_core.types import Grey, Mask

EDGE = 0.06
"""A pixel belongs to a patch where it covers at least this share of it."""

_SIDE = 96  # pixels; stencils are drawn at this size and scaled
_LONGEST = 256  # pixels; a stain that was cut out is kept no larger, as no network sees more of it
_SOFT = 3.0  # pixels; a cut fades out over about this width


@dataclass(frozen=True, eq=False)
class Stencil:
    """A patch by itself: cover (h, w), 0 or `EDGE` to 1, and what a patch that was cut out looks like (h, w)."""

    cover: Grey
    grey: Grey | None = None

    def to_png(self) -> bytes:
        """What was cut out as a picture of grey and opacity, to be kept with a report; a drawn one is white."""
        grey = np.ones_like(self.cover) if self.grey is None else np.clip(self.grey, 0, 1)
        # Opacity is rounded up: what is covered at all is covered by `EDGE` at least.
        layers = np.stack([np.rint(255 * grey), np.ceil(255 * self.cover - 1e-4)], axis=-1).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(layers).save(file, "PNG")
        return file.getvalue()

    @classmethod
    def from_png(cls, png: bytes) -> Stencil:
        """What `to_png` wrote."""
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            layers = np.asarray(picture.convert("LA")).astype(np.float32) / np.float32(255)
        return cls(layers[..., 1].copy(), layers[..., 0].copy())


@lru_cache(maxsize=512)
def draw_outline(shape: str, seed: int) -> Stencil:
    """A soft-edged, irregular outline. The same arguments give the same one; do not change it in place.

    Raises:
        UsageError: the shape is none of `SHAPES`.
    """
    if shape not in SHAPES:
        raise UsageError(f"shape of a stain: expected one of {', '.join(SHAPES)}, got {shape!r}")
    rng = np.random.default_rng([seed, SHAPES.index(shape)])
    size = (_SIDE, _SIDE)
    y, x = np.ogrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    wide = rng.uniform(3, 5) if shape == "streak" else rng.uniform(0.85, 1.3)
    turn = rng.uniform(-0.1, 0.1) if shape == "streak" else rng.uniform(0, np.pi)
    along, across = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    radius = np.hypot(along, across * wide)
    ragged = 0.22 * noise(size, rng, 12) + 0.07 * noise(size, rng, 4)
    field = ragged - radius - 6 * np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.8, 0)
    field = field - np.quantile(field, 0.93 if shape == "streak" else 0.8)  # the level set of some share of the square
    cover = smoothstep(field / rng.uniform(0.1, 0.25))
    if shape == "ring":
        cover = cover * np.clip(1 - 0.85 * smoothstep((field - 0.15) / 0.15), 0, 1)
    if shape == "spatter":
        drops = smoothstep((noise(size, rng, 3.5) - 1.4) / 0.4) * (radius < 0.95)
        cover = np.maximum(cover * (radius < 0.45 + ragged), drops)
    cover = cover * np.clip(0.88 + 0.12 * noise(size, rng, 8), 0.5, 1)
    return _trim(Stencil(np.asarray(np.where(cover >= EDGE, cover, 0), dtype=np.float32)))


def cut_out(grid: Grey, mask: Mask) -> Stencil:
    """What a picture (H, W) shows inside a mask (H, W), to be pasted elsewhere; it fades out at the mask's edge.

    Raises:
        UsageError: the mask is empty, or not of the picture's shape.
    """
    if mask.shape != grid.shape or not mask.any():
        raise UsageError(f"a cut needs a mask of the picture's shape {grid.shape} that is not empty, got {mask.shape}")
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    soft = min(_SOFT, float(inside.max()))
    cover = np.where(mask, np.clip(inside / soft, EDGE, 1), 0).astype(np.float32)
    return _trim(Stencil(cover, grid.astype(np.float32)))


def cut_soft(grid: Grey, piece: Mask, reach: Mask, steel: float) -> tuple[Stencil, Mask]:
    """A mark with its own softness, and where (H, W) it covers fully.

    A mark covers a pixel by as much as its grey lies between that of the steel around and its own, noise left out. Its
    own grey is what is left without the steel that shows through, and that of its middle where it hardly covers.
    `piece` (H, W) is where it stands out, `reach` (H, W) where its soft edge is looked for as well.
    """
    smooth = cv2.GaussianBlur(grid, (0, 0), 1.0) - steel
    inner = cv2.erode(piece.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    level = float(np.median(smooth[inner if inner.any() else piece]))
    level = level if abs(level) > 1 / 255 else 1 / 255
    noise = min(2 * float(np.std(smooth[~reach])) / abs(level), 0.3) if not reach.all() else 0.0
    cover = np.where(reach, np.clip((smooth / level - noise) / (1 - noise), 0, 1), 0)
    cover = np.where(cover >= EDGE, cover, 0)
    _, parts = cv2.connectedComponents((cover > 0).astype(np.uint8))
    cover = np.where(np.isin(parts, np.unique(parts[piece & (cover > 0)])), cover, 0)
    own = np.where(cover > 0.5, (grid - steel) / np.maximum(cover, 0.5), level)
    grey = np.clip(steel + own, 0, 1).astype(np.float32)
    return _trim(Stencil(cover.astype(np.float32), grey)), cover > 0.9


def cut_box(grid: Grey, box: tuple[int, int, int, int]) -> Stencil:
    """The stain that someone marked with a box: what is brighter than the steel around it, or else the whole box.

    It is cut out just as `Stencil.to_png` can keep it, so that a report of it can be made again without the picture.
    `box`: left column, top row, width and height, in pixels.

    Raises:
        UsageError: the box is smaller than 4 x 4 pixels or does not lie inside the picture.
    """
    left, top, width, height = box
    rows, columns = grid.shape
    if min(width, height) < 4 or min(left, top) < 0 or left + width > columns or top + height > rows:
        raise UsageError(
            f"box of a stain: expected left, top, width and height of at least 4 x 4 pixels inside the picture of "
            f"{columns} x {rows}, got {','.join(map(str, box))}"
        )
    inside = np.zeros(grid.shape, bool)
    inside[top : top + height, left : left + width] = True
    spots = find_marks(grid)[0] & inside
    stain = cut_out(grid, spots if spots.any() else inside)
    longest = max(stain.cover.shape)
    if longest > _LONGEST:
        stain = scale_stencil(stain, np.count_nonzero(stain.cover) * (_LONGEST / longest) ** 2, (_LONGEST, _LONGEST))
    return Stencil.from_png(stain.to_png())


def vary_stencil(stencil: Stencil, rng: np.random.Generator) -> Stencil:
    """The stencil turned by any angle, mirrored or not, stretched, with a softer edge; a cut-out lighter or darker."""
    height, width = stencil.cover.shape
    angle, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.5, 0.5))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = turn @ np.diag([stretch * rng.choice([-1, 1]), 1 / stretch])
    columns, rows = (int(np.ceil(side)) for side in np.abs(shape) @ (width, height))
    move = np.c_[shape, np.array([columns, rows]) / 2 - shape @ (width / 2, height / 2)]
    moved = cv2.warpAffine(stencil.cover, move, (columns, rows), flags=cv2.INTER_LINEAR)
    soft = np.minimum(moved, cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.3, 0.06 * min(columns, rows) + 0.5)))
    cover = np.asarray(np.where(soft >= EDGE, soft, 0), dtype=np.float32)
    if not cover.any():
        return stencil
    if stencil.grey is None:
        return _trim(Stencil(cover))
    grey = cv2.warpAffine(stencil.grey, move, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _trim(Stencil(cover, np.clip(grey + rng.uniform(-0.15, 0.1), 0, 1).astype(np.float32)))


def scale_stencil(stencil: Stencil, area: float, limit: tuple[int, int]) -> Stencil:
    """The stencil with about `area` pixels under it, at most `limit` (H, W) high and wide."""
    height, width = stencil.cover.shape
    zoom = (area / np.count_nonzero(stencil.cover)) ** 0.5
    rows, columns = (
        int(np.clip(round(side * zoom), 1, most)) for side, most in zip((height, width), limit, strict=True)
    )
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    cover = cv2.resize(stencil.cover, (columns, rows), interpolation=how)
    cover = np.where(cover >= EDGE, cover, 0) if (cover >= EDGE).any() else np.ones_like(cover)
    grey = None if stencil.grey is None else cv2.resize(stencil.grey, (columns, rows), interpolation=how)
    return Stencil(cover.astype(np.float32), None if grey is None else grey.astype(np.float32))


def place_footprint(footprint: Mask, avoid: Mask, rng: np.random.Generator) -> tuple[int, int]:
    """Top row and left column where a footprint (h, w) lies inside (H, W) and on the fewest pixels to avoid."""
    if not avoid.any():
        room = [full - own + 1 for full, own in zip(avoid.shape, footprint.shape, strict=True)]
        return int(rng.integers(room[0])), int(rng.integers(room[1]))
    met = cv2.matchTemplate(avoid.astype(np.float32), footprint.astype(np.float32), cv2.TM_CCORR)
    rows, columns = np.nonzero(met <= met.min() + 0.5)
    pick = rng.integers(len(rows))
    return int(rows[pick]), int(columns[pick])


def inpaint(grid: Grey, mask: Mask) -> Grey:
    """Fills the masked part in (Telea, J. of Graphics Tools 9, 2004), with grain, so that smoothness is no trace."""
    eight = np.clip(np.round(grid * 255), 0, 255).astype(np.uint8)
    filled = cv2.inpaint(eight, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA).astype(np.float32) / 255
    grain = grid - cv2.GaussianBlur(grid, (0, 0), 2)
    if mask.all():
        return np.asarray(filled, dtype=np.float32)
    rolled = np.random.default_rng(int(mask.sum())).choice(grain[~mask], size=int(mask.sum()))
    out = grid.astype(np.float32).copy()
    out[mask] = np.clip(filled[mask] + rolled, 0, 1)
    return out


def bound_mask(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the smallest window that holds a mask, which must not be empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _trim(stencil: Stencil) -> Stencil:
    window = bound_mask(stencil.cover > 0)
    return Stencil(stencil.cover[window].copy(), None if stencil.grey is None else stencil.grey[window].copy())
