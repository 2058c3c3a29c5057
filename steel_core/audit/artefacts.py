"""Training images in which marks say nothing of the class, and the fit for that.

Every image is painted over once: its marks, or a place as large as a mark where it has none. Then half of them, of
every class alike, get a mark of another image, with its own grain and soft edge. So neither marks nor paint predict the
label, and no mark that nature left is learnt with its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.audit.evidence import find_evidence_regions
from steel_core.audit.mark_segmenter import MarkSegmenter, choose_least_area, grow_edge
from steel_core.audit.settings import CureSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.data.augment import augment_images
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import find_marks
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stain_options import SHAPES, TEXTURES
from steel_core.perturb.stencil import draw_outline, inpaint, vary_stencil
from steel_core.training.fit import Fit, has_bfloat16
from steel_core.training.images import ImageTable
from steel_core.types import AnyArray, BoolArray, Float64Array, Grey, Mask

_HIDDEN = 0.25  # share of a defect that a stain may hide
_SIZES = (1.0,) * 5 + (0.75,) * 5 + (0.5,) * 5  # of a mark, in the order in which they are tried
_SOFT = 1.5  # pixels; a mark of another image begins over about this width
_RING = 4  # pixels around a mark in which its steel is compared


@dataclass(frozen=True, eq=False)
class Artefacts:
    """The marks of the images of one table, and the same images without."""

    grids: tuple[Grey, ...]  # (H, W) as they are
    marks: tuple[Mask, ...]  # (H, W) of each image, as far as they cover it
    regions: tuple[Mask, ...]  # (H, W) of each image, where no stain may lie: it would hide the defect
    carries: BoolArray  # (N,) whether an image carries marks
    donors: tuple[int, ...]  # training images of the suspected class whose marks others get
    natural: Float64Array  # (K,) share of the training images of a class that carry marks by nature
    painted: tuple[Grey, ...]  # (H, W) without marks
    config: CureSettings

    @classmethod
    def collect(
        cls,
        index: DatasetIndex,
        table: ImageTable,
        train: Tensor,
        suspect: int,
        config: CureSettings,
        predictor: Predictor | None = None,
    ) -> Artefacts:
        """Learnt from the training images of a table; `predictor` tells where a defect is that nothing else tells."""
        size = (int(table.grids.shape[2]), int(table.grids.shape[3]))
        grids = tuple(grid[0].float().numpy() for grid in table.grids)
        labels, rows = table.labels.numpy(), train.numpy()
        marks, carries = _segment_marks(grids, labels == suspect, rows)
        members = [rows[labels[rows] == k] for k in range(len(index.classes))]
        natural = np.array([carries[mine].mean() if len(mine) else 0.0 for mine in members], np.float64)
        donors = tuple(int(i) for i in rows if labels[i] == suspect and carries[i])
        defects = [_read_centred_defect(index, int(row), size) for row in table.rows]
        unknown = [i for i, defect in enumerate(defects) if defect is None]
        guessed: list[Mask] = [np.zeros(size, bool)] * len(unknown)
        if predictor is not None and unknown:
            guessed = find_evidence_regions(predictor, [grids[i] for i in unknown], labels[unknown])
        guesses = dict(zip(unknown, guessed, strict=True))
        regions = tuple(guesses[i] if defect is None else defect for i, defect in enumerate(defects))
        loose = cls(grids, marks, regions, carries, donors, natural, grids, config)
        rng = np.random.default_rng([config.seed, 1])
        return replace(loose, painted=tuple(loose._paint_over(i, rng) for i in range(len(grids))))

    def describe(self, classes: Sequence[str]) -> str:
        """What was found, and what is done, in a sentence."""
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in zip(classes, self.natural, strict=True))
        return (
            f"marks by nature: {shares}; learnt with the marks of {len(self.donors)} images: "
            f"{self.config.pasted if self.donors else 0:.0%} of every class"
        )

    def _paint_over(self, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` without its marks, or painted in a place where another has one: paint must not tell the class."""
        own, region = grow_edge(self.marks[i]), self.regions[i]
        if self.carries[i]:
            return inpaint(self.grids[i], own) if _leaves_in_sight(own, region) else self.grids[i]
        placed = self._place_mark(region, rng)
        return self.grids[i] if placed is None else inpaint(self.grids[i], grow_edge(placed[1]))

    def _place_mark(self, region: Mask, rng: np.random.Generator) -> tuple[Grey, Mask] | None:
        """A donor (H, W) and its mark (H, W), turned until it leaves most of a defect in sight; None where none does.

        A defect that is hidden would be a wrong label, and one that is cut out of a stain would tell the stain.
        """
        for size in _SIZES if self.donors else ():
            donor = self.donors[int(rng.integers(len(self.donors)))]
            square = region.shape[0] == region.shape[1]
            quarters, mirrored = int(rng.integers(4)) if square else 2 * int(rng.integers(2)), rng.random() < 0.5
            pair = [np.rot90(layer, quarters) for layer in (self.grids[donor], self.marks[donor].astype(np.float32))]
            pair = [layer[:, ::-1] if mirrored else layer for layer in pair]
            move = np.diag([size, size, 1])[:2]
            move[:, 2] = rng.uniform(0, 1 - size, 2) * region.shape[::-1]
            grid, cover = (cv2.warpAffine(np.ascontiguousarray(layer), move, region.shape[::-1]) for layer in pair)
            mark = np.asarray(cover > 0.5)
            if mark.any() and _leaves_in_sight(grow_edge(mark), region):
                return np.asarray(grid, np.float32), mark
        return None

    def give_mark(self, grid: Grey, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` as it is given (H, W) with the mark of another, as it lies there, the steel beside it matched."""
        placed = self._place_mark(self.regions[i], rng)
        if placed is None:
            return grid
        donor, mark = placed
        whole = grow_edge(mark)
        around = cv2.dilate(whole.astype(np.uint8), np.ones((2 * _RING + 1,) * 2, np.uint8)) > 0
        beside = around & ~whole
        lighter = float(np.median(grid[beside]) - np.median(donor[beside])) if beside.any() else 0.0
        steel = cv2.GaussianBlur((~mark).astype(np.float32), (0, 0), _SOFT)
        cover = np.clip(1.5 * cv2.GaussianBlur(whole.astype(np.float32), (0, 0), _SOFT) - 0.25, 0, 1)
        return np.asarray(np.clip(grid + cover * (donor + lighter * steel - grid), 0, 1), dtype=np.float32)

    def draw_stain(self, grid: Grey, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` as it is given (H, W) with a drawn stain, far more varied than what is tested."""
        kind, area = _draw_stain(rng)
        for size in (1.0, 0.5, 0.25):
            placed = kind.place(grid.shape, size * area, int(rng.integers(2**31)), self.regions[i])
            if _leaves_in_sight(placed.mask, self.regions[i]):
                return kind.paste(grid, placed, int(rng.integers(2**31)))
        return grid

    def vary(self, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` as it is learnt (H, W), whatever its class: painted over, with a mark or a stain by chance."""
        grid = self.painted[i]
        if rng.random() < self.config.pasted:
            grid = self.give_mark(grid, i, rng)
        return self.draw_stain(grid, i, rng) if rng.random() < self.config.drawn else grid

    def with_varied_copies(self, table: ImageTable, rows: Tensor) -> tuple[ImageTable, Tensor]:
        """The table with two varied copies of each of some images at its end, and where these lie.

        They are as what is learnt is: marks say as little of the class.
        """
        rng = np.random.default_rng([self.config.seed, 2])
        twice = torch.cat([rows, rows])
        copies = np.stack([self.vary(i, rng) for i in twice.tolist()])[:, None].astype(np.float16)
        grids, labels = (
            torch.cat([table.grids, torch.from_numpy(copies)]),
            torch.cat([table.labels, table.labels[twice]]),
        )
        return replace(table, grids=grids, labels=labels), torch.arange(len(table.labels), len(labels))


def _segment_marks(grids: tuple[Grey, ...], suspected: BoolArray, rows: AnyArray) -> tuple[tuple[Mask, ...], BoolArray]:
    """The marks (H, W) of each image, bright or dark, whichever a class has more than the others; who carries any."""
    nothing = np.zeros(grids[0].shape, bool)
    seeds = [find_marks(grid) for grid in grids]
    mine = suspected[rows]
    shares = np.array([[mark.mean() for mark in seeds[i]] for i in rows])
    ahead = shares[mine].mean(axis=0) - shares[~mine].mean(axis=0) if mine.any() and not mine.all() else np.zeros(2)
    sign = int(np.argmax(ahead))
    segmenter = MarkSegmenter.learn([grids[i] for i in rows], [seeds[i][sign] for i in rows], mine)
    if segmenter is None:
        return (nothing,) * len(grids), np.zeros(len(grids), bool)
    marks = tuple(segmenter.segment(grid) for grid in grids)
    areas = np.array([mark.mean() for mark in marks], np.float32)
    return marks, areas > choose_least_area(areas[rows], mine)


def _leaves_in_sight(stain: Mask, region: Mask) -> bool:
    return bool((stain & region).sum() <= _HIDDEN * region.sum())


def _draw_stain(rng: np.random.Generator) -> tuple[WhiteStain, float]:
    stain = WhiteStain(
        number=int(rng.integers(1, 5)),
        source=vary_stencil(draw_outline(str(rng.choice(SHAPES)), int(rng.integers(2**31))), rng),
        opacity=float(rng.uniform(0.5, 1)),
        softness=float(rng.uniform(0, 0.6)),
        brightness=float(rng.uniform(0.6, 1.0)),
        texture=str(rng.choice(TEXTURES)),
    )
    return stain, float(np.exp(rng.uniform(np.log(0.005), np.log(0.2))))


@dataclass
class CuringFit(Fit):
    """A fit to images that carry marks by chance alone, whatever their class."""

    artefacts: Artefacts
    cure: CureSettings

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), some of them stained, and labels (N,), on the device."""
        with_stain, _, labels = self._pairs(positions)
        return with_stain, labels

    def step(self, optimiser: torch.optim.Optimizer, positions: Tensor, weights: Tensor) -> float:
        """One step of the optimiser, with the penalty on evidence that lies on the stain; returns the loss."""
        if not self.cure.penalty:
            return super().step(optimiser, positions, weights)
        stained, plain, labels = self._pairs(positions)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.half and has_bfloat16(self.device)):
            logits, without = self.model(stained).float(), self.model(plain).float()
        loss = self.loss(logits, labels, weights, self.config.label_smoothing)
        loss = loss + self.cure.penalty * F.mse_loss(logits, without)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    def _pairs(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images with and without the stain that was pasted, varied alike (N, 3, H, W), and labels (N,)."""
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        labels, rows = self.table.labels[positions], positions.tolist()
        plain = torch.from_numpy(np.stack([self.artefacts.painted[i] for i in rows])[:, None])
        stained = torch.from_numpy(np.stack([self.artefacts.vary(i, rng) for i in rows])[:, None])
        state = torch.get_rng_state()
        batches = []
        for grids in (stained, plain) if self.cure.penalty else (stained,):
            torch.set_rng_state(state)
            grey = (grids.to(self.device) - self.preprocessing.mean) / self.preprocessing.std
            three = augment_images(grey, self.config.augmentation).expand(-1, 3, -1, -1)
            batches.append(three.contiguous(memory_format=torch.channels_last))
        return batches[0], batches[-1], labels.to(self.device)


def _read_centred_defect(index: DatasetIndex, row: int, size: tuple[int, int]) -> Mask | None:
    image = index.image(row)
    zoom = max(size[0] / image.height, size[1] / image.width)
    whole = (max(round(image.height * zoom), size[0]), max(round(image.width * zoom), size[1]))
    defect = read_defect_mask(index, row, (image.height, image.width), whole)
    if defect is None:
        return None
    top, left = ((full - own) // 2 for full, own in zip(defect.shape, size, strict=True))
    return defect[top : top + size[0], left : left + size[1]]
