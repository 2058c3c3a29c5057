"""Stains that training images get and lose by chance, in all classes alike, and the fit that gives and takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.audit.settings import CureSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.data.augment import augment_images
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import find_marks, grow_mask
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stain_options import SHAPES, TEXTURES
from steel_core.perturb.stencil import Stencil, cut_out, draw_outline, inpaint, vary_stencil
from steel_core.training.fit import Fit, has_bfloat16
from steel_core.training.images import ImageTable
from steel_core.types import Float64Array, Grey, Mask


@dataclass(frozen=True, eq=False)
class Artefacts:
    """Stains to paste and to paint over, for the images of one table."""

    cuts: tuple[Stencil, ...]  # stains cut out of training images of the class that they stand for
    # (H, W) of each image of the table, where no stain may lie; None where nothing tells
    defects: tuple[Mask | None, ...]
    painted: Tensor  # (N, 1, H, W) float16, each image with its stains, or else some steel, painted over
    chance: Float64Array  # (K,) chance that an image of a class gets a stain, so that all classes carry them alike
    config: CureSettings

    @classmethod
    def collect(
        cls, index: DatasetIndex, table: ImageTable, train: Tensor, suspect: int, config: CureSettings
    ) -> Artefacts:
        size = (int(table.grids.shape[2]), int(table.grids.shape[3]))
        defects = tuple(_read_centred_defect(index, int(row), size) for row in table.rows)
        painted = table.grids.clone()
        cuts: list[Stencil] = []
        stained = np.zeros(len(table.labels), bool)
        rng = np.random.default_rng([config.seed, 1])
        for i in train.tolist():
            grid, defect = table.grids[i, 0].float().numpy(), defects[i]
            spots = grow_mask(find_marks(grid)[0])
            if defect is not None:
                spots &= ~defect
            elif int(table.labels[i]) != suspect:
                spots[:] = False  # nothing tells a bright defect from a stain
            stained[i] = 0 < spots.mean() < 0.25
            if stained[i] and int(table.labels[i]) == suspect and len(cuts) < 200:
                cuts.append(cut_out(grid, _keep_largest_piece(spots)))
            if not stained[i]:
                shape = str(rng.choice(SHAPES))
                spots = WhiteStain(shape).place(size, rng.uniform(0.01, 0.06), int(rng.integers(2**31)), defect).mask
                spots &= True if defect is None else ~defect
            painted[i, 0] = torch.from_numpy(inpaint(grid, spots).astype(np.float16))
        labels = table.labels.numpy()
        mine = [np.isin(np.arange(len(labels)), train.numpy()) & (labels == k) for k in range(len(index.classes))]
        natural = np.array([stained[rows].mean() if rows.any() else 0.0 for rows in mine]) * (1 - config.painted)
        wanted = float((1 - (1 - natural) * (1 - config.pasted)).max())
        chance = np.clip(1 - (1 - wanted) / np.maximum(1 - natural, 1e-6), 0, 1)
        return cls(tuple(cuts), defects, painted, chance, config)

    def stain(self, grid: Grey, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` with stains, cut out or drawn, beside its defect: far more varied than those that are tested."""
        source = draw_outline(str(rng.choice(SHAPES)), int(rng.integers(2**31)))
        area = float(np.exp(rng.uniform(np.log(0.005), np.log(0.15))))
        if self.cuts and rng.random() < 0.5:
            source = self.cuts[int(rng.integers(len(self.cuts)))]
        natural = source.grey is not None and rng.random() < 0.5
        if natural:  # as it was found: what is left of the stains of one class looks like this
            area = float((source.cover > 0).sum() / grid.size)
        kind = WhiteStain(
            number=1 if natural else int(rng.integers(1, 5)),
            source=source if natural else vary_stencil(source, rng),
            brightness=float(rng.uniform(0.6, 1.0)),
            texture=str(rng.choice(TEXTURES)),
        )
        defect = self.defects[i]
        stained = kind.perturb(grid, area, int(rng.integers(2**31)), avoid=defect).image
        # Where there is no room beside the defect, the stain lies below it: a hidden defect would be a wrong label.
        return stained if defect is None else np.where(defect, grid, stained)

    def with_stained_copies(self, table: ImageTable, rows: Tensor) -> tuple[ImageTable, Tensor]:
        """The table with a stained copy of each of some images at its end, and where images and copies lie."""
        rng = np.random.default_rng([self.config.seed, 2])
        copies = [self.stain(table.grids[i, 0].float().numpy(), i, rng) for i in rows.tolist()]
        grids = torch.from_numpy(np.stack(copies)[:, None].astype(np.float16))
        both = replace(
            table, grids=torch.cat([table.grids, grids]), labels=torch.cat([table.labels, table.labels[rows]])
        )
        return both, torch.cat([rows, torch.arange(len(table.labels), len(both.labels))])


@dataclass
class CuringFit(Fit):
    """A fit whose images get and lose stains by chance, in all classes alike."""

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
        labels = self.table.labels[positions]
        lost = torch.from_numpy(rng.random(len(positions)) < self.cure.painted)
        plain = torch.where(
            lost[:, None, None, None], self.artefacts.painted[positions], self.table.grids[positions]
        ).float()
        stained = plain.clone()
        for n in np.flatnonzero(rng.random(len(positions)) < self.artefacts.chance[labels.numpy()]):
            stained[n, 0] = torch.from_numpy(self.artefacts.stain(plain[n, 0].numpy(), int(positions[n]), rng))
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


def _keep_largest_piece(mask: Mask) -> Mask:
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
