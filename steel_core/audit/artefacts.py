"""Stains that training images get where they lack them, until all classes carry them alike, and the fit for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.audit.evidence import find_evidence_regions
from steel_core.audit.marks import Mark, cut_marks
from steel_core.audit.settings import CureSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.data.augment import augment_images
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import find_marks
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA, SHAPES, TEXTURES
from steel_core.perturb.stencil import draw_outline, vary_stencil
from steel_core.training.fit import Fit, has_bfloat16
from steel_core.training.images import ImageTable
from steel_core.types import BoolArray, Float64Array, Grey, Int64Array, Mask

_HIDDEN = 0.25  # share of a defect that a stain may hide
_TURNS = 6  # places and sizes that are tried
_TRIED = 60  # images on which is tried how many pasted marks are seen


@dataclass(frozen=True, eq=False)
class Artefacts:
    """Stains to paste on the images of one table."""

    marks: tuple[Mark, ...]  # cut out of training images of the class that they stand for
    regions: tuple[Mask, ...]  # (H, W) of each image of the table, where no stain may lie: it would hide the defect
    natural: Float64Array  # (K,) share of the training images of a class that carry marks by nature
    carries: BoolArray  # (N,) whether an image of the table carries one, as far as that is seen
    chance: Float64Array  # (K,) chance that an image of a class gets a stain, so that all classes carry them alike
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
        """Of the training images of a table; `predictor` tells where a defect is that nothing else tells."""
        size = (int(table.grids.shape[2]), int(table.grids.shape[3]))
        defects = [_read_centred_defect(index, int(row), size) for row in table.rows]
        grids = [grid[0].float().numpy() for grid in table.grids]
        labels = table.labels.numpy()
        rows = train.tolist()
        names = [(index.classes[labels[i]],) for i in rows]
        marks = cut_marks([grids[i] for i in rows], [defects[i] for i in rows], names)
        learnt = np.isin(np.arange(len(labels)), rows)
        own = [learnt & (labels == k) for k in range(len(index.classes))]

        def measure_share(of: Sequence[Mark]) -> Float64Array:
            carries = np.isin(np.arange(len(labels)), [rows[mark.position] for mark in of])
            return np.array([carries[mine].mean() if mine.any() else 0.0 for mine in own])

        # Bright or dark, whichever the suspected class has more often than the others.
        kinds = [[mark for mark in marks if mark.bright == bright] for bright in (True, False)]
        ahead = [share[suspect] - np.delete(share, suspect).max(initial=0) for share in map(measure_share, kinds)]
        kind = kinds[int(np.argmax(ahead))]
        natural = measure_share(kind)
        sign = 0 if kind and kind[0].bright else 1
        carries = np.array([find_marks(grid)[sign].any() for grid in grids], bool)
        largest: dict[int, Mark] = {}
        for mark in kind:
            if mark.label == index.classes[suspect] and mark.area > getattr(largest.get(mark.position), "area", 0):
                largest[mark.position] = mark
        unknown = [i for i, defect in enumerate(defects) if defect is None]
        guessed: list[Mask] = [np.zeros(size, bool)] * len(unknown)
        if predictor is not None and unknown:
            guessed = find_evidence_regions(predictor, [grids[i] for i in unknown], labels[unknown])
        guesses = dict(zip(unknown, guessed, strict=True))
        regions = tuple(guesses[i] if defect is None else defect for i, defect in enumerate(defects))
        loose = cls(tuple(largest.values()), regions, natural, carries, np.ones(len(own)), config)
        return replace(loose, chance=loose._balance(table, own))

    def _balance(self, table: ImageTable, own: Sequence[BoolArray]) -> Float64Array:
        """The chance of a stain by class (K,) that makes marks as common in each as is wanted.

        Pasted on all alike, the correlation would stand. Not every mark is seen: how many of pasted ones are is tried.
        Where a class has more by nature, images without are learnt oftener (`exchange_carriers`).
        """
        rng = np.random.default_rng([self.config.seed, 1])
        bright = not self.marks or self.marks[0].bright
        wanted = self.config.pasted
        chance = np.zeros(len(own))
        for k, mine in enumerate(own):
            if self.natural[k] >= wanted or not mine.any():
                continue
            tried = rng.choice(np.flatnonzero(mine), min(_TRIED, int(mine.sum())), replace=False)
            pasted = [self.stain(table.grids[i, 0].float().numpy(), int(i), rng) for i in tried]
            seen = float(np.mean([find_marks(grid)[0 if bright else 1].any() for grid in pasted]))
            chance[k] = (wanted - self.natural[k]) / max(seen - self.natural[k], 1e-6)
        return np.clip(chance, 0, 1)

    def stain(self, grid: Grey, i: int, rng: np.random.Generator, *, drawn: bool = False) -> Grey:
        """Image `i` with a mark as it was found, or drawn where there are none, far more varied than what is tested.

        A defect that is hidden would be a wrong label, and one that is cut out of a stain would tell the stain: where
        no place and no size leaves most of it in sight, the image stays as it is.
        """
        region = self.regions[i]
        for turn in range(_TURNS):
            kind, area = self._choose_mark(rng) if self.marks and not drawn else _draw_stain(rng)
            placed = kind.place(grid.shape, area / (1 + turn / 2), int(rng.integers(2**31)), region)
            if (placed.mask & region).sum() <= _HIDDEN * region.sum():
                return kind.paste(grid, placed, int(rng.integers(2**31)))
        return grid

    def _choose_mark(self, rng: np.random.Generator) -> tuple[WhiteStain, float]:
        mark = self.marks[int(rng.integers(len(self.marks)))]
        # What the border cut off lies at the border again.
        stain = WhiteStain(source=mark.stencil, centre=None if mark.whole else mark.centre)
        return stain, float(np.clip(mark.area, 0.002, LARGEST_AREA))

    def vary(self, grid: Grey, i: int, label: int, rng: np.random.Generator) -> Grey:
        """Image `i` of a class as it is learnt: with a mark where its class lacks them; drawn stains say nothing."""
        if rng.random() < self.chance[label]:
            grid = self.stain(grid, i, rng)
        return self.stain(grid, i, rng, drawn=True) if rng.random() < self.config.drawn else grid

    def exchange_carriers(
        self, positions: Tensor, labels: Int64Array, rng: np.random.Generator, among: Tensor
    ) -> Tensor:
        """The images of a batch (N,), in which those with marks are no commoner than wanted: others `among` their part.

        Balanced sampling of class and artefact (Idrissi et al., Simple data balancing, CLeaR 2022, arXiv:2110.14503).
        """
        part = among.numpy()
        plain = {k: part[(labels[part] == k) & ~self.carries[part]] for k in np.unique(labels[part])}
        out = positions.clone()
        for n, i in enumerate(positions.tolist()):
            k = int(labels[i])
            often = self.natural[k] > self.config.pasted and rng.random() > self.config.pasted / self.natural[k]
            if self.carries[i] and often and len(plain[k]):
                out[n] = int(plain[k][rng.integers(len(plain[k]))])
        return out

    def with_varied_copies(self, table: ImageTable, rows: Tensor) -> tuple[ImageTable, Tensor]:
        """The table with two varied copies of each of some images at its end, and where these lie.

        They are as what is learnt is: marks say as little of the class.
        """
        rng = np.random.default_rng([self.config.seed, 2])
        labels = table.labels.numpy()
        twice = self.exchange_carriers(torch.cat([rows, rows]), labels, rng, rows)
        copies = [self.vary(table.grids[i, 0].float().numpy(), i, int(labels[i]), rng) for i in twice.tolist()]
        grids = torch.from_numpy(np.stack(copies)[:, None].astype(np.float16))
        both = replace(
            table, grids=torch.cat([table.grids, grids]), labels=torch.cat([table.labels, table.labels[twice]])
        )
        return both, torch.arange(len(table.labels), len(both.labels))


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
    """A fit whose images get stains by chance, so that all classes carry them alike."""

    artefacts: Artefacts
    cure: CureSettings
    learnt: Tensor  # positions of the training images

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
        positions = self.artefacts.exchange_carriers(positions, self.table.labels.numpy(), rng, self.learnt)
        labels = self.table.labels[positions]
        plain = self.table.grids[positions].float()
        stained = plain.clone()
        for n, (i, label) in enumerate(zip(positions.tolist(), labels.tolist(), strict=True)):
            stained[n, 0] = torch.from_numpy(self.artefacts.vary(plain[n, 0].numpy(), i, label, rng))
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
