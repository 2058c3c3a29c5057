"""The white-stain test: does a harmless stain turn the verdict, and more often than a patch that is no stain?

A stain that lies on the defect hides it, so a flip alone proves nothing. Stains are put beside the defect, each with
controls of the same outline at the same place, and only the excess over the strongest control counts.

Legend of shapes: A areas, V variants (stains of each brightness, then controls).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from steel_core.audit.evidence import (
    compute_evidence_maps,
    compute_probabilities,
    compute_share_inside,
    find_regions,
    predict_logits,
    stream_logits,
)
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect, sort_strongest_first
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.stains import CONTROLS, DONOR, derive_image_seed, make_control, make_stain
from steel_core.audit.statistics import FOR, Effect, combine_verdicts, decide_verdicts, estimate_effect
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import PatchPerturbation
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.perturb.stencil import bound_mask, find_bright_spots, inpaint, place_footprint
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, BoolArray, Float32Array, Grey, Int64Array, Mask

POSITIONS = ("off", "anywhere", "on")
"""Where a stain lies: beside the defect, wherever it falls, or on the defect. Only "off" counts as evidence."""
REMOVED = "a stain removed"  # name of the second test: natural stains of clear sheets painted over


@dataclass(frozen=True, eq=False)
class StainTrial:
    """What the model says of the same images with every dose and every control, and the effects that this allows."""

    predictor: Predictor
    sheets: Sheets
    settings: StainSettings
    clean: Float32Array  # (N, K) logits of the images as they are
    logits: Float32Array  # (N, A, V, K)
    # (N, A) whether a patch beside the defect touches it after all, or where the model looks: it is no evidence
    covered: BoolArray
    controls: tuple[str, ...]  # names of the variants behind the stains

    def select_at_risk(self, target: str, area: int) -> Int64Array:
        """Images that count: of another class (where that is known), not named `target`, their defect uncovered."""
        k = self.predictor.classes.index(target)
        other = self.sheets.lacks(target) | (self.sheets.first_labels == "")
        return np.flatnonzero(other & (self.clean.argmax(axis=1) != k) & ~self.covered[:, area])

    def effect(self, target: str, dose: tuple[int, int], rows: Int64Array | None = None) -> Effect:
        """How much more often a stain turns images, those at risk if None, to `target` than its controls."""
        area, brightness = dose
        rows = self.select_at_risk(target, area) if rows is None else rows
        logits = self.logits[rows, area]
        turned = logits.argmax(axis=2) == self.predictor.classes.index(target)
        before = compute_probabilities(self.predictor, self.clean[rows])
        own = before.argmax(axis=1)
        after = compute_probabilities(self.predictor, logits)[np.arange(len(rows)), :, own]
        behind = {name: len(self.settings.brightnesses) + c for c, name in enumerate(self.controls)}
        lost = before[np.arange(len(rows)), own][:, None] - after
        return estimate_effect(
            turned[:, brightness],
            {name: turned[:, v] for name, v in behind.items()},
            self.sheets.groups[rows],
            self.settings.tolerated,
            self.settings.seed,
            drops={name: lost[:, brightness] - lost[:, v] for name, v in behind.items()},
        )

    def list_examples(self, target: str, dose: tuple[int, int], most: int = 12) -> list[dict[str, Any]]:
        """The images whose probability of `target` the stain raised the most."""
        area, brightness = dose
        rows = self.select_at_risk(target, area)
        k = self.predictor.classes.index(target)
        before = compute_probabilities(self.predictor, self.clean[rows])[:, k]
        after = compute_probabilities(self.predictor, self.logits[rows, area, brightness])[:, k]
        return [
            {
                "row": int(self.sheets.rows[rows[i]]),
                "file": self.sheets.names[rows[i]],
                "sha256": self.sheets.hashes[rows[i]],
                "before": float(before[i]),
                "after": float(after[i]),
                "turned": bool(self.logits[rows[i], area, brightness].argmax() == k),
            }
            for i in np.argsort(before - after, kind="stable")[:most]
        ]


def audit_white_stain(
    predictor: Predictor,
    sheets: Sheets,
    settings: StainSettings = StainSettings(),
    progress: Progress = no_progress,
    learnt: Sheets | None = None,
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
    total, done = len(sheets) + 2 * len(some), count(1)
    trials = {
        position: _run_trial(
            predictor,
            sheets.select(rows),
            clean[rows],
            [regions[i] for i in rows],
            position,
            settings,
            lambda: progress("white-stain", next(done), total),
        )
        for position, rows in rows_of.items()
    }
    dose = settings.areas.index(settings.area), settings.brightnesses.index(settings.brightness)
    trial = trials["off"]
    labels = sheets.labels_or_predicted(predictor.classes, preds)
    effects: dict[str, tuple[Effect, dict[str, Effect]]] = {}
    for target in directions:
        rows = trial.select_at_risk(target, dose[0])
        each = {
            str(name): trial.effect(target, dose, rows[labels[rows] == name]) for name in dict.fromkeys(labels[rows])
        }
        effects[f"towards {target}"] = trial.effect(target, dose, rows), each
    if CLEAR in predictor.classes and (removal := _test_removal(predictor, sheets, preds, settings)).n:
        effects[REMOVED] = removal, {CLEAR: removal}
    verdicts, corrected = decide_verdicts([effect for effect, _ in effects.values()], settings.tolerated)
    findings = [
        AuditFinding(
            **dict(effect),
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
    limits = []
    if covered := int(trial.covered[:, dose[0]].sum()):
        limits.append(f"{covered} of {len(sheets)} images are no evidence: their defect leaves no room for a stain.")
    if guessed := sum(defect is None for defect in sheets.defects):
        limits.append(f"Nothing tells where the defect of {guessed} images is: stains keep off where the model looks.")
    if any(region.all() for region in regions):
        limits.append("Some defects fill the picture.")
    return build_report(
        "white-stain",
        verdict,
        [*pasted, *(finding for finding in findings if finding.name == REMOVED)],
        predictor,
        sheets,
        settings,
        limits=limits,
        detail={
            "towards": first,
            "doses": _tabulate_doses(trials, first, settings),
            "evidence_inside": _measure_evidence_inside(trial, regions, first, dose),
            "examples": trial.list_examples(first, dose),
            # The verdict does not rest on these: a stain taken for a defect costs a look, not a bad coil.
            "other_direction": {
                f"towards {k}": trial.effect(k, dose).to_json() for k in predictor.classes if k not in directions
            },
        }
        # A stain that was cut out may come from an image that is nowhere on file.
        | ({"cut_stain": settings.cut_stain} if settings.cut_stain else {}),
    )


def _run_trial(
    predictor: Predictor,
    sheets: Sheets,
    clean: Float32Array,
    regions: Sequence[Mask],
    position: str,
    settings: StainSettings,
    tick: Callable[[], None],
) -> StainTrial:
    """Predict every variant of every image, one image at a time; `tick` is called after each."""
    spots = [find_bright_spots(grid) for grid in sheets.grids]  # a stain that is there already is not clean steel
    donors = [i for i, labels in enumerate(sheets.labels) if labels == (CLEAR,) and not spots[i].any()]
    covered = np.zeros((len(sheets), len(settings.areas)), bool)
    controls = (*CONTROLS, DONOR) if donors else CONTROLS
    width = len(settings.brightnesses) + len(controls)
    logits = np.empty((*covered.shape, width, len(predictor.classes)), np.float32)
    stain = make_stain(settings)
    # Controls do not depend on the brightness, except the scrambled stain, which has that of the verdict's dose.
    patches: list[PatchPerturbation] = [make_stain(settings, brightness) for brightness in settings.brightnesses]
    patches += [make_control(name, stain) for name in CONTROLS]
    steel = make_control("clean-steel", stain)

    def draw_pictures() -> Iterator[Grey]:
        for i, (grid, region) in enumerate(zip(sheets.grids, regions, strict=True)):
            seed = derive_image_seed(settings.seed, sheets.hashes[i])
            avoid = {"off": region, "anywhere": None, "on": ~region if region.any() else None}[position]
            fitting = [d for d in donors if d != i and sheets.grids[d].shape == grid.shape]
            donor = sheets.grids[fitting[seed % len(fitting)]] if fitting else None
            if donor is None and donors:
                donor = grid[::-1, ::-1]  # the only clear sheet of this size: itself, turned
            for a, area in enumerate(settings.areas):
                placed = stain.place(grid.shape, area, seed, avoid)
                covered[i, a] = position == "off" and (placed.mask & region).any()
                for patch in patches:
                    yield patch.paste(grid, placed, seed, avoid=region | spots[i])
                if donor is not None:
                    yield steel.paste(grid, placed, seed, avoid=region | spots[i], donor=donor)
            tick()

    flat = logits.reshape(-1, logits.shape[-1])
    for row, answer in enumerate(stream_logits(predictor, draw_pictures())):
        flat[row] = answer
    return StainTrial(predictor, sheets, settings, clean, logits, covered, controls)


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
        settings.tolerated,
        settings.seed,
    )


def _tabulate_doses(trials: dict[str, StainTrial], target: str, settings: StainSettings) -> list[dict[str, Any]]:
    """One row for each area, brightness and position. Where a patch may cover the defect, covered images count too."""
    table = []
    for position, trial in trials.items():
        for a, area in enumerate(settings.areas):
            for b, brightness in enumerate(settings.brightnesses):
                effect = trial.effect(target, (a, b))
                names = ("n", "flip_rate", "control_flip_rate", "excess", "interval")
                table.append(
                    {"position": position, "area": area, "brightness": brightness}
                    | {name: getattr(effect, name) for name in names}
                    | {"counts_as_evidence": position == "off"}
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


def _describe_finding(name: str, effect: Effect, *, cut_out: bool) -> str:
    if name.startswith("towards "):
        stain = "The stain that was cut out, beside the defect," if cut_out else "A white stain beside the defect"
        return describe_effect(effect, stain, f"turns to {name.removeprefix('towards ')}")
    return describe_effect(effect, "Painting over a bright spot of a clear sheet", "turns to a defect")
