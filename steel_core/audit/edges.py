"""The edge test: does the border of the picture decide, where no steel should count for more than elsewhere?

The border is replaced by the steel inside it, mirrored; the control replaces a band inside the picture of the same
area. Both leave the defect as it is; an image whose defect fills half of either is no evidence.

Legend of shapes: N images, V variants, K classes; H, W of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core.audit import sheets as pictures
from steel_core.audit.report import AuditReport, Finding, finished, told
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import judged, measure, paired_interval
from steel_core.inference.predictor import Predictor
from steel_core.perturb.base import Grey
from steel_core.perturb.methods.band import Band
from steel_core.perturb.methods.border import Border
from steel_core.perturb.methods.crop import Crop
from steel_core.perturb.methods.shift import Shift
from steel_core.progress import Progress, no_progress

QUESTION = "Does the border of the picture decide, rather than the steel?"


_FULL = 0.5  # share of the border under the defect from which an image is no evidence


@dataclass(frozen=True)
class EdgeSettings:
    """What is asked.

    Attributes:
        width: of the border, as a share of the shorter side.
        moves: shifts and crops that are tried, as shares of the side.
        tolerated: excess flip rate that is put up with.
        mapped: images whose evidence is measured.
        seed: of everything drawn at random.
    """

    width: float = 0.08
    moves: tuple[float, ...] = (0.03, 0.06, 0.1)
    tolerated: float = 0.05
    mapped: int = 60
    seed: int = 0


def audit_edges(
    predictor: Predictor, sheets: Sheets, settings: EdgeSettings = EdgeSettings(), progress: Progress = no_progress
) -> AuditReport:
    """The test on a whole split.

    Args:
        predictor: the checkpoint.
        sheets: the images.
        settings: what is asked.
        progress: called with images done and their number. What it raises ends the audit.
    """
    clean = np.stack(list(pictures.stream_logits(predictor, sheets.grids)))
    preds = clean.argmax(axis=1)
    regions = pictures.regions(predictor, sheets, preds)
    guessed = np.array([defect is None for defect in sheets.defects])
    full = np.zeros(len(sheets), bool)
    moves = [(kind.__name__.lower(), kind(), move) for kind in (Shift, Crop) for move in settings.moves]

    def changed() -> Iterator[Grey]:
        for i, grid in enumerate(sheets.grids):
            border = Border().perturb(grid, settings.width, settings.seed + i)
            band = Band().perturb(grid, settings.width, settings.seed + i, avoid=regions[i])
            # Defects on file stay as they are, so that no evidence is hidden. Where the model looks is what is asked
            # here, so a region that was guessed is replaced like the rest.
            kept = np.zeros_like(regions[i]) if guessed[i] else regions[i]
            full[i] = max(kept[border.mask].mean(), kept[band.mask].mean()) > _FULL
            yield np.where(kept, grid, border.image)
            # The band meets less of the defect than the border does: of what is left it replaces no more.
            surplus = np.flatnonzero(band.mask & ~kept)[np.count_nonzero(border.mask & ~kept) :]
            control = np.where(kept, grid, band.image)
            control.flat[surplus] = grid.flat[surplus]
            yield control
            yield from (kind.perturb(grid, move, settings.seed + i).image for _, kind, move in moves)
            progress("edges", i + 1, len(sheets))

    found = np.stack(list(pictures.stream_logits(predictor, changed())))
    logits = found.reshape(len(sheets), 2 + len(moves), -1)
    turned = logits.argmax(axis=2) != preds[:, None]
    own = pictures.probs_of(predictor, clean)[np.arange(len(sheets)), preds]
    after = pictures.probs_of(predictor, logits)[np.arange(len(sheets)), :, preds]
    lost = own[:, None] - after

    def effect_on(rows: npt.NDArray[np.int64]) -> Any:
        return measure(
            turned[rows, 0],
            {"band inside": turned[rows, 1]},
            sheets.groups[rows],
            drops=lost[rows, 0],
            control_drops={"band inside": lost[rows, 1]},
            tolerated=settings.tolerated,
            seed=settings.seed,
        )

    counted = np.flatnonzero(~full)
    effect = effect_on(counted)
    (verdict,), (p,) = judged([effect], settings.tolerated)
    labels = np.array([own[0] if own else predictor.classes[p] for own, p in zip(sheets.labels, preds, strict=True)])
    finding = Finding(
        "border replaced",
        verdict,
        told(effect, "Replacing the border", "turns"),
        effect,
        p,
        {name: effect_on(counted[labels[counted] == name]) for name in dict.fromkeys(labels[counted])},
    )
    limits = []
    if full.any():
        limits.append(
            f"{int(full.sum())} of {len(sheets)} images are no evidence: their defect fills half of the border or of "
            "the band inside, which leaves too little to replace."
        )
    if untested := sorted(set(labels) - set(labels[counted])):
        limits.append(f"No image of {', '.join(untested)} counts: nothing is known of what the border does to them.")
    if guessed.any():
        limits.append(f"Nothing tells where the defect of {int(guessed.sum())} images is: it may lie at the border.")
    return finished(
        "edges",
        QUESTION,
        verdict,
        [finding],
        predictor,
        sheets,
        settings=asdict(settings),
        seed=settings.seed,
        limits=tuple(limits),
        detail={
            "evidence_in_border": _evidence(predictor, sheets, preds, settings),
            "moves": [
                {
                    "change": name,
                    "severity": move,
                    "n": len(sheets),
                    "flip_rate": float(turned[:, 2 + v].mean()),
                    "confidence_drop": float(lost[:, 2 + v].mean()),
                }
                for v, (name, _, move) in enumerate(moves)
            ],
        },
    )


def _evidence(
    predictor: Predictor, sheets: Sheets, preds: npt.NDArray[np.int64], settings: EdgeSettings
) -> dict[str, Any]:
    """Share of the Grad-CAM evidence for the predicted class inside the border, against the border's area."""
    rows = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.mapped]
    maps = pictures.evidence_maps(predictor, [sheets.grids[i] for i in rows], preds[rows])
    excess, areas, groups = [], [], []
    for i, values in zip(rows, maps, strict=True):
        frame = Border().perturb(sheets.grids[i], settings.width, 0).mask
        share = pictures.share_inside(values, frame)
        if share is not None:
            excess.append(share - float(frame.mean()))
            areas.append(float(frame.mean()))
            groups.append(sheets.groups[i])
    if not excess:
        return {"n": 0, "share": None, "area": None, "interval_of_difference": None}
    interval, _ = paired_interval(np.array(excess), np.array(groups))
    area = float(np.mean(areas))
    return {
        "n": len(excess),
        "share": area + float(np.mean(excess)),
        "area": area,
        "interval_of_difference": interval,
    }
