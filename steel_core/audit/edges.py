"""The edge test: does the border of the picture decide, where no steel should count for more than elsewhere?

The border is replaced by the steel inside it, mirrored; the control replaces a band inside the picture of the same
area. Both leave the defect as it is; an image whose defect fills half of either is no evidence.

Legend of shapes: V variants.
"""

from collections.abc import Iterator

import numpy as np

from steel_core.audit.evidence import (
    compute_probabilities,
    find_regions,
    measure_evidence_in_parts,
    predict_logits,
)
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect
from steel_core.audit.settings import EdgeSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import Effect, decide_verdicts, estimate_effect
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.framing import Band, Border, Crop, Shift
from steel_core.progress import Progress, no_progress
from steel_core.types import Grey, Int64Array

_FULL = 0.5  # share of the border under the defect from which an image is no evidence


def audit_edges(
    predictor: Predictor, sheets: Sheets, settings: EdgeSettings = EdgeSettings(), progress: Progress = no_progress
) -> AuditReport:
    """The test of these images; `progress` receives images done and their number."""
    clean = predict_logits(predictor, sheets.grids)
    preds = clean.argmax(axis=1)
    regions = find_regions(predictor, sheets, preds)
    guessed = np.array([defect is None for defect in sheets.defects])
    full = np.zeros(len(sheets), bool)
    moves = [(kind.__name__.lower(), kind(), move) for kind in (Shift, Crop) for move in settings.moves]

    def changed() -> Iterator[Grey]:
        for i, grid in enumerate(sheets.grids):
            border = Border().perturb(grid, settings.width, settings.seed + i)
            # Defects on file stay as they are, so that no evidence is hidden. Where the model looks is what is asked
            # here, so where nothing tells the defect, border and band are replaced wherever that may be.
            kept = np.zeros_like(regions[i]) if guessed[i] else regions[i]
            band = Band().perturb(grid, settings.width, settings.seed + i, avoid=kept)
            full[i] = max(kept[border.mask].mean(), kept[band.mask].mean()) > _FULL
            yield np.where(kept, grid, border.image)
            # The band meets less of the defect than the border does: of what is left it replaces no more.
            surplus = np.flatnonzero(band.mask & ~kept)[np.count_nonzero(border.mask & ~kept) :]
            control = np.where(kept, grid, band.image)
            control.flat[surplus] = grid.flat[surplus]
            yield control
            yield from (kind.perturb(grid, move, settings.seed + i).image for _, kind, move in moves)
            progress("edges", i + 1, len(sheets))

    logits = predict_logits(predictor, changed()).reshape(len(sheets), 2 + len(moves), -1)
    turned = logits.argmax(axis=2) != preds[:, None]
    own = compute_probabilities(predictor, clean)[np.arange(len(sheets)), preds]
    after = compute_probabilities(predictor, logits)[np.arange(len(sheets)), :, preds]
    lost = own[:, None] - after

    def effect_on(rows: Int64Array) -> Effect:
        return estimate_effect(
            turned[rows, 0],
            {"band inside": turned[rows, 1]},
            sheets.groups[rows],
            settings.tolerated,
            settings.seed,
            drops={"band inside": lost[rows, 0] - lost[rows, 1]},
            power=True,
        )

    counted = np.flatnonzero(~full)
    effect = effect_on(counted)
    (verdict,), (p,) = decide_verdicts([effect], settings.tolerated)
    labels = sheets.labels_or_predicted(predictor.classes, preds)
    finding = AuditFinding(
        **dict(effect),
        name="border replaced",
        verdict=verdict,
        sentence=describe_effect(effect, "Replacing the border", "turns"),
        p_corrected=p,
        per_class={str(name): effect_on(counted[labels[counted] == name]) for name in dict.fromkeys(labels[counted])},
    )
    some = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.mapped]
    borders = ((i, preds[i], Border().perturb(sheets.grids[i], settings.width, 0).mask) for i in some)
    limits = []
    if full.any():
        limits.append(
            f"{int(full.sum())} of {len(full)} images are no evidence: their defect fills half of the border or of "
            "the band inside, which leaves too little to replace."
        )
    if untested := sorted(set(labels) - set(labels[counted])):
        limits.append(f"No image of {', '.join(untested)} counts: nothing is known of what the border does to them.")
    if guessed.any():
        limits.append(f"Nothing tells where the defect of {int(guessed.sum())} images is: it may lie at the border.")
    return build_report(
        "edges",
        verdict,
        [finding],
        predictor,
        sheets,
        settings,
        limits=limits,
        detail={
            "evidence_in_border": measure_evidence_in_parts(predictor, sheets, borders, settings.mapped),
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
