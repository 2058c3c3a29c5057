"""The white-stain test: does a harmless stain turn the verdict, and more often than a patch that is no stain?

A stain that lies on the defect hides it, so a flip alone proves nothing. Stains are put beside the defect, each with
controls of the same outline at the same place, and only the excess over the strongest control counts.

Legend of shapes: N images, A areas, K classes; H, W of a grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steel_core.audit.evidence import compute_evidence_maps, compute_share_inside, find_regions, predict_logits
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect, sort_strongest_first
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.stain_trial import Exposure, StainTrial, expose_images
from steel_core.audit.stains import POSITIONS, derive_image_seed, make_control, make_stain
from steel_core.audit.statistics import FOR, Effect, combine_verdicts, decide_verdicts, estimate_effect
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.perturb.stencil import bound_mask, find_bright_spots, inpaint, place_footprint
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, Int64Array, Mask

REMOVED = "a stain removed"  # name of the second test: natural stains of clear sheets painted over


def audit_white_stain(
    predictor: Predictor, sheets: Sheets, settings: StainSettings = StainSettings(), progress: Progress = no_progress
) -> AuditReport:
    """The test of these images; `progress` receives images done and their number.

    Raises:
        UsageError: the model does not know the class `settings.towards`.
    """
    directions = _choose_directions(predictor, settings)
    clean = predict_logits(predictor, sheets.grids)
    preds = clean.argmax(axis=1)
    regions = find_regions(predictor, sheets, preds)
    some = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.elsewhere]
    rows_of = {position: np.arange(len(sheets)) if position == "off" else some for position in POSITIONS}
    total = len(sheets) + 2 * len(some)
    trials: dict[str, StainTrial] = {}
    done = 0
    for position, rows in rows_of.items():
        part = sheets.select(rows)
        tick = _count_from(progress, done, total)
        exposure = expose_images(predictor, part, [regions[i] for i in rows], position, settings, tick)
        trials[position] = StainTrial(predictor, part, clean[rows], exposure, settings)
        done += len(rows)

    dose = settings.areas.index(settings.area), settings.brightnesses.index(settings.brightness)
    trial = trials["off"]
    labels = sheets.labels_or_predicted(predictor.classes, preds)
    effects: dict[str, tuple[Effect, dict[str, Effect]]] = {}
    for target in directions:
        effect, rows = trial.effect(target, dose)
        each = {
            str(name): trial.effect(target, dose, rows[labels[rows] == name])[0] for name in dict.fromkeys(labels[rows])
        }
        effects[f"towards {target}"] = effect, each
    if CLEAR in predictor.classes and (removal := _test_removal(predictor, sheets, preds, settings)).n:
        effects[REMOVED] = removal, {CLEAR: removal}
    verdicts, corrected = decide_verdicts([effect for effect, _ in effects.values()], settings.tolerated)
    findings = [
        AuditFinding.of_effect(
            effect,
            name=name,
            verdict=verdict,
            sentence=_describe_finding(name, effect, cut_out=bool(settings.cut_stain)),
            p_corrected=p,
            per_class=each,
        )
        for (name, (effect, each)), verdict, p in zip(effects.items(), verdicts, corrected, strict=True)
    ]
    pasted = sort_strongest_first([finding for finding in findings if finding.name != REMOVED])
    # Painting over stains can show a shortcut. That it shows none is no answer to the question, and most data sets have
    # too few stained clear sheets to tell: it never stands in the way of the stain that is pasted.
    verdict = FOR if FOR in verdicts else combine_verdicts([finding.verdict for finding in pasted])
    first = pasted[0].name.removeprefix("towards ")
    return build_report(
        "white-stain",
        verdict,
        [*pasted, *(finding for finding in findings if finding.name == REMOVED)],
        predictor,
        sheets,
        settings,
        limits=_list_limits(sheets, regions, trial.exposure, dose[0]),
        detail={
            "towards": first,
            "doses": _tabulate_doses(trials, first, settings),
            "evidence_inside": _measure_evidence_inside(trial, regions, first, dose),
            "examples": trial.list_examples(first, dose),
            "other_direction": _measure_other_directions(trial, directions, dose),
        }
        # A stain that was cut out may come from an image that is nowhere on file.
        | ({"cut_stain": settings.cut_stain} if settings.cut_stain else {}),
    )


def _choose_directions(predictor: Predictor, settings: StainSettings) -> list[str]:
    if settings.towards:
        if settings.towards not in predictor.classes:
            raise UsageError(f"towards: expected one of {', '.join(predictor.classes)}, got {settings.towards!r}")
        return [settings.towards]
    return [CLEAR] if CLEAR in predictor.classes else list(predictor.classes)


def _test_removal(predictor: Predictor, sheets: Sheets, preds: Int64Array, settings: StainSettings) -> Effect:
    """Clear sheets that look stained: does painting over the stain turn "clear" into a defect?

    The control paints over as much steel, of the same outline, elsewhere on the sheet.
    """
    clear = predictor.classes.index(CLEAR)
    rows, painted = [], []
    for i, grid in enumerate(sheets.grids):
        if preds[i] != clear or (sheets.labels[i] and CLEAR not in sheets.labels[i]):
            continue
        spots = find_bright_spots(grid)
        if not 0 < spots.mean() < LARGEST_AREA:
            continue
        footprint = spots[bound_mask(spots)]
        rng = np.random.default_rng(derive_image_seed(settings.seed, sheets.hashes[i]))
        row, column = place_footprint(footprint, spots, rng)
        elsewhere = np.zeros_like(spots)
        elsewhere[row : row + footprint.shape[0], column : column + footprint.shape[1]] = footprint
        if (elsewhere & spots).any():
            continue
        rows.append(i)
        painted += [inpaint(grid, spots), inpaint(grid, elsewhere)]
    turned = (predictor.logits(painted).argmax(axis=1) != clear).reshape(-1, 2)
    return estimate_effect(
        turned[:, 0],
        {"steel painted over": turned[:, 1]},
        sheets.groups[rows],
        tolerated=settings.tolerated,
        seed=settings.seed,
    )


def _tabulate_doses(trials: dict[str, StainTrial], target: str, settings: StainSettings) -> list[dict[str, Any]]:
    """One row for each area, brightness and position. Where a patch may cover the defect, covered images count too."""
    table = []
    for position, trial in trials.items():
        counts = position == "off"
        counted = trial if counts else replace(trial, exposure=trial.exposure.ignore_covered())
        for a, area in enumerate(settings.areas):
            for b, brightness in enumerate(settings.brightnesses):
                effect, _ = counted.effect(target, (a, b))
                names = ("n", "flip_rate", "control_flip_rate", "excess", "interval")
                table.append(
                    {"position": position, "area": area, "brightness": brightness}
                    | {name: getattr(effect, name) for name in names}
                    | {"counts_as_evidence": counts}
                )
    return table


def _measure_evidence_inside(
    trial: StainTrial, regions: Sequence[Mask], target: str, dose: tuple[int, int]
) -> dict[str, Any]:
    """Share of the Grad-CAM evidence for `target` inside the patch: before, with the stain, with clean steel."""
    predictor, sheets, settings = trial.predictor, trial.sheets, trial.settings
    rows = trial.select_at_risk(target, dose[0])[: settings.elsewhere]
    k = predictor.classes.index(target)
    stain = make_stain(settings)
    steel = make_control("clean-steel", stain)
    shares: dict[str, list[float]] = {"before": [], "stain": [], "clean steel": []}
    area = 0.0
    for i in rows:
        grid, seed = sheets.grids[i], derive_image_seed(settings.seed, sheets.hashes[i])
        placed = stain.place(grid.shape, settings.area, seed, regions[i])
        shown = [
            grid,
            stain.paste(grid, placed, seed),
            steel.paste(grid, placed, seed, avoid=regions[i] | find_bright_spots(grid)),
        ]
        area += float(placed.mask.mean()) / len(rows)
        for name, values in zip(shares, compute_evidence_maps(predictor, shown, [k] * 3), strict=True):
            shares[name].append(compute_share_inside(values, placed.mask) or 0.0)
    means = {name: float(np.mean(values)) if values else None for name, values in shares.items()}
    return {"class": target, "n": len(rows), "area": area} | means


def _measure_other_directions(trial: StainTrial, directions: list[str], dose: tuple[int, int]) -> dict[str, Any]:
    """Effects that the verdict does not rest on: a stain taken for a defect costs a look, not a bad coil."""
    others = [k for k in trial.predictor.classes if k not in directions]
    return {f"towards {k}": trial.effect(k, dose)[0].to_json() for k in others}


def _list_limits(sheets: Sheets, regions: Sequence[Mask], exposure: Exposure, area: int) -> tuple[str, ...]:
    limits = []
    if covered := int(exposure.covered[:, area].sum()):
        limits.append(f"{covered} of {len(sheets)} images are no evidence: their defect leaves no room for a stain.")
    if guessed := sum(defect is None for defect in sheets.defects):
        limits.append(f"Nothing tells where the defect of {guessed} images is: stains keep off where the model looks.")
    if any(region.all() for region in regions):
        limits.append("Some defects fill the picture.")
    return tuple(limits)


def _describe_finding(name: str, effect: Effect, *, cut_out: bool) -> str:
    if name.startswith("towards "):
        stain = "The stain that was cut out, beside the defect," if cut_out else "A white stain beside the defect"
        return describe_effect(effect, stain, f"turns to {name.removeprefix('towards ')}")
    return describe_effect(effect, "Painting over a bright spot of a clear sheet", "turns to a defect")


def _count_from(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress("white-stain", done + more, total)
