"""Every dose and every control on the same images, and the effects that their answers allow.

Legend of shapes: N images, A areas, B brightnesses, V variants (B stains, then controls), K classes; H, W of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steel_core.audit.evidence import compute_probabilities, stream_logits
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.stains import CONTROLS, DONOR, choose_avoided, derive_image_seed, draw_variants, make_stain
from steel_core.audit.statistics import Effect, estimate_effect
from steel_core.inference.predictor import Predictor
from steel_core.perturb.stencil import find_bright_spots
from steel_core.types import CLEAR, BoolArray, Float32Array, Float64Array, Grey, Int64Array, Mask


@dataclass(frozen=True, eq=False)
class Exposure:
    """What the model says of the same images with every dose and every control."""

    logits: Float32Array  # (N, A, V, K) float32
    covered: BoolArray  # (N, A) whether the patch touches the defect, or where the model looks
    area: Float64Array  # (N, A) share of the picture that the patch takes
    controls: tuple[str, ...]  # names of the variants behind the B stains

    def ignore_covered(self) -> Exposure:
        """The same, as if no patch touched a defect."""
        return replace(self, covered=np.zeros_like(self.covered))


def expose_images(
    predictor: Predictor,
    sheets: Sheets,
    regions: Sequence[Mask],
    position: str,
    settings: StainSettings,
    tick: Callable[[int], None],
) -> Exposure:
    """Predict every variant of every image, one image at a time; `tick` receives how many are done."""
    spots = [find_bright_spots(grid) for grid in sheets.grids]  # a stain that is there already is not clean steel
    donors = [i for i, labels in enumerate(sheets.labels) if labels == (CLEAR,) and not spots[i].any()]
    covered = np.zeros((len(sheets), len(settings.areas)), bool)
    share = np.zeros(covered.shape)
    controls = (*CONTROLS, DONOR) if donors else CONTROLS
    width = len(settings.brightnesses) + len(controls)
    logits = np.empty((*covered.shape, width, len(predictor.classes)), np.float32)
    stain = make_stain(settings)

    def draw_pictures() -> Iterator[Grey]:
        for i, (grid, region) in enumerate(zip(sheets.grids, regions, strict=True)):
            seed = derive_image_seed(settings.seed, sheets.hashes[i])
            avoid = choose_avoided(position, region)
            fitting = [d for d in donors if d != i and sheets.grids[d].shape == grid.shape]
            donor = sheets.grids[fitting[seed % len(fitting)]] if fitting else None
            if donor is None and donors:
                donor = grid[::-1, ::-1]  # the only clear sheet of this size: itself, turned
            for a, area in enumerate(settings.areas):
                placed = stain.place(grid.shape, area, seed, avoid)
                covered[i, a] = bool((placed.mask & region).any())
                share[i, a] = placed.mask.mean()
                for _, picture in draw_variants(grid, placed, settings, seed, region | spots[i], donor):
                    yield picture
            tick(i + 1)

    flat = logits.reshape(-1, logits.shape[-1])
    for row, answer in enumerate(stream_logits(predictor, draw_pictures())):
        flat[row] = answer
    return Exposure(logits, covered, share, controls)


@dataclass(frozen=True, eq=False)
class StainTrial:
    """Effects of one exposure; `clean` holds the logits (N, K) of the images as they are."""

    predictor: Predictor
    sheets: Sheets
    clean: Float32Array
    exposure: Exposure
    settings: StainSettings

    def select_at_risk(self, target: str, area: int) -> Int64Array:
        """Images that count: of another class (where that is known), not named `target`, their defect uncovered."""
        k = self.predictor.classes.index(target)
        other = self.sheets.lacks(target) | (self.sheets.first_labels == "")
        return np.flatnonzero(other & (self.clean.argmax(axis=1) != k) & ~self.exposure.covered[:, area])

    def effect(self, target: str, dose: tuple[int, int], rows: Int64Array | None = None) -> tuple[Effect, Int64Array]:
        """How much more often a stain turns images to `target` than its controls, and the images' numbers."""
        area, brightness = dose
        rows = self.select_at_risk(target, area) if rows is None else rows
        k = self.predictor.classes.index(target)
        logits = self.exposure.logits[rows, area]
        turned = logits.argmax(axis=2) == k
        before = compute_probabilities(self.predictor, self.clean[rows])
        own = before.argmax(axis=1)
        after = compute_probabilities(self.predictor, logits)
        lost = (
            (before[np.arange(len(rows)), own][:, None] - after[np.arange(len(rows)), :, own]) if len(rows) else turned
        )
        behind = {name: len(self.settings.brightnesses) + c for c, name in enumerate(self.exposure.controls)}
        effect = estimate_effect(
            turned[:, brightness],
            {name: turned[:, v] for name, v in behind.items()},
            self.sheets.groups[rows],
            drops=lost[:, brightness],
            control_drops={name: lost[:, v] for name, v in behind.items()},
            tolerated=self.settings.tolerated,
            seed=self.settings.seed,
        )
        return effect, rows

    def list_examples(self, target: str, dose: tuple[int, int], most: int = 12) -> list[dict[str, Any]]:
        """The images whose probability of `target` the stain raised the most."""
        area, brightness = dose
        rows = self.select_at_risk(target, area)
        k = self.predictor.classes.index(target)
        before = compute_probabilities(self.predictor, self.clean[rows])[:, k]
        after = compute_probabilities(self.predictor, self.exposure.logits[rows, area, brightness])[:, k]
        return [
            {
                "row": int(self.sheets.rows[rows[i]]),
                "file": self.sheets.names[rows[i]],
                "sha256": self.sheets.hashes[rows[i]],
                "before": float(before[i]),
                "after": float(after[i]),
                "turned": bool(self.exposure.logits[rows[i], area, brightness].argmax() == k),
            }
            for i in np.argsort(before - after, kind="stable")[:most]
        ]
