"""The white-stain test: does a harmless stain turn the verdict, and more often than a patch that is no stain?

A stain that lies on the defect hides it, so a flip alone proves nothing. Stains are put beside the defect, each with
controls of the same outline at the same place, and only the excess over the strongest control counts. A family of
stains is tested, drawn and cut from the images learnt from: the worst are searched for on one half of the images and
proved on the other.

Legend of shapes: D doses, V variants (the stain, then its controls).
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
    count_outcomes,
    find_regions,
    predict_logits,
    stream_logits,
)
from steel_core.audit.family import Dose, describe_stain, make_family
from steel_core.audit.marks import cut_marks
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect, sort_strongest_first
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.stains import CONTROLS, DONOR, OPPOSITE, derive_image_seed, make_control
from steel_core.audit.statistics import (
    AGAINST,
    FOR,
    LEAST,
    TOO_FEW,
    Effect,
    choose_worst,
    combine_verdicts,
    decide_verdicts,
    estimate_effect,
    is_harmless,
    split_halves,
)
from steel_core.data.quality.clues import find_marks, grow_mask
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.perturb.stencil import bound_mask, inpaint, place_footprint
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, BoolArray, Float32Array, Grey, Int64Array, Mask

POSITIONS = ("off", "anywhere", "on")
"""Where a stain lies: beside the defect, wherever it falls, or on the defect. Only "off" counts as evidence."""
REMOVED = "a stain removed"  # name of the second test: natural stains of clear sheets painted over


@dataclass(frozen=True, eq=False)
class StainTrial:
    """What the model says of the same images with every dose and its controls, and the effects that this allows."""

    predictor: Predictor
    sheets: Sheets
    settings: StainSettings
    doses: Sequence[Dose]
    clean: Float32Array  # (N, K) logits of the images as they are
    logits: Float32Array  # (N, D, V, K)
    # (N, D) whether a patch beside the defect touches it after all, or where the model looks: it is no evidence
    covered: BoolArray
    has_donors: bool

    def name_controls(self, dose: int) -> tuple[str, ...]:
        names = [OPPOSITE if name == "dark-stain" and not self.doses[dose].bright else name for name in CONTROLS]
        return (*names, DONOR) if self.has_donors else tuple(names)

    def select_at_risk(self, target: str, dose: int) -> Int64Array:
        """Images that count: of another class (where that is known), not named `target`, their defect uncovered."""
        k = self.predictor.classes.index(target)
        other = self.sheets.lacks(target) | (self.sheets.first_labels == "")
        return np.flatnonzero(other & (self.clean.argmax(axis=1) != k) & ~self.covered[:, dose])

    def effect(self, target: str, dose: int, among: BoolArray | None = None, *, power: bool = False) -> Effect:
        """How much more often a stain turns images at risk, those `among` (N,) if given, to `target` than controls."""
        rows = self.select_at_risk(target, dose)
        rows = rows if among is None else rows[among[rows]]
        logits = self.logits[rows, dose]
        turned = logits.argmax(axis=2) == self.predictor.classes.index(target)
        before = compute_probabilities(self.predictor, self.clean[rows])
        own = before.argmax(axis=1)
        after = compute_probabilities(self.predictor, logits)[np.arange(len(rows)), :, own]
        lost = before[np.arange(len(rows)), own][:, None] - after
        behind = {name: 1 + c for c, name in enumerate(self.name_controls(dose))}
        return estimate_effect(
            turned[:, 0],
            {name: turned[:, v] for name, v in behind.items()},
            self.sheets.groups[rows],
            self.settings.tolerated,
            self.settings.seed,
            drops={name: lost[:, 0] - lost[:, v] for name, v in behind.items()},
            power=power,
        )

    def count_outcomes(self, target: str, dose: int, control: str) -> dict[str, Any]:
        """What people would see of the images at risk: as they are, with the stain, with its strongest control."""
        rows = self.select_at_risk(target, dose)
        names = self.name_controls(dose)
        shown = {"as it is": self.clean[rows], "stain": self.logits[rows, dose, 0]}
        if control in names:
            shown[control] = self.logits[rows, dose, 1 + names.index(control)]
        return {
            name: count_outcomes(self.predictor, logits, self.sheets.select(rows)) for name, logits in shown.items()
        }

    def list_examples(self, target: str, dose: int, most: int = 12) -> list[dict[str, Any]]:
        """The images whose probability of `target` the stain raised the most."""
        rows = self.select_at_risk(target, dose)
        k = self.predictor.classes.index(target)
        before = compute_probabilities(self.predictor, self.clean[rows])[:, k]
        after = compute_probabilities(self.predictor, self.logits[rows, dose, 0])[:, k]
        return [
            {
                "row": int(self.sheets.rows[rows[i]]),
                "file": self.sheets.names[rows[i]],
                "sha256": self.sheets.hashes[rows[i]],
                "before": float(before[i]),
                "after": float(after[i]),
                "turned": bool(self.logits[rows[i], dose, 0].argmax() == k),
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

    Marks are cut from the images `learnt` from, else from the very images that are tested.

    Raises:
        UsageError: the model does not know the class `settings.towards`.
    """
    directions = _choose_directions(predictor, settings)
    clean = predict_logits(predictor, sheets.grids)
    preds = clean.argmax(axis=1)
    regions = find_regions(predictor, sheets, preds)
    doses = _choose_doses(sheets, learnt, directions, settings)
    total, done = len(sheets) + 2 * min(settings.elsewhere, len(sheets)), count(1)

    def tick() -> None:
        progress("white-stain", next(done), total)

    trial = _run_trial(predictor, sheets, clean, regions, "off", doses, settings, tick, own_marks=learnt is None)
    half = split_halves(sheets.groups, settings.seed)
    labels = sheets.labels_or_predicted(predictor.classes, preds)
    judged = [_judge_direction(trial, target, half, settings) for target in directions]
    removal = _test_removal(predictor, sheets, preds, settings) if CLEAR in predictor.classes else Effect()
    # Every dose that was put to the proof is one look, and so is the removal.
    effects = [effect for _, proved, _ in judged for _, effect in proved] + [removal] * bool(removal.n)
    verdicts, corrected = decide_verdicts(effects, settings.tolerated, least=LEAST // 2 if settings.family else LEAST)
    left = iter(zip(verdicts, corrected, strict=True))
    findings = []
    for target, (whole, proved, harmless) in zip(directions, judged, strict=True):
        decided = [(dose, effect, *next(left)) for dose, effect in proved]
        red = next((one for one in decided if one[2] == FOR), None)
        # What was not proved is told by the worst dose on all images, which its half alone was too small to prove.
        worst = max(whole, key=lambda d: whole[d].interval[0])
        dose, effect, verdict, p = red or (
            worst, whole[worst], AGAINST if harmless else TOO_FEW, 1.0
        )  # fmt: skip
        among = ~half if red and settings.family else None
        findings.append(
            AuditFinding(
                **dict(trial.effect(target, dose, among, power=True) if effect.n else effect),
                name=f"towards {target}",
                verdict=verdict,
                sentence=_describe_finding(doses[dose], effect, target),
                p_corrected=p,
                per_class={
                    str(name): trial.effect(target, dose, (labels == name) & (True if among is None else among))
                    for name in dict.fromkeys(labels[trial.select_at_risk(target, dose)])
                },
                outcomes=trial.count_outcomes(target, dose, effect.control),
                dose=dose,
            )
        )
    pasted = sort_strongest_first(findings)
    if removal.n:
        verdict, p = next(left)
        findings.append(
            AuditFinding(
                **dict(removal),
                name=REMOVED,
                verdict=verdict,
                sentence=describe_effect(removal, "Painting over a bright mark of a clear sheet", "turns to a defect"),
                p_corrected=p,
                per_class={CLEAR: removal},
            )
        )
    # Painting over stains can show a shortcut. That it shows none is no answer to the question, and most data sets have
    # too few stained clear sheets to tell: it never stands in the way of the stain that is pasted.
    every = [finding.verdict for finding in findings]
    verdict = FOR if FOR in every else combine_verdicts([finding.verdict for finding in pasted])
    first = pasted[0].name.removeprefix("towards ")
    shown = int(pasted[0].to_json()["dose"])
    one = doses[shown].settings
    some = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.elsewhere]
    elsewhere = {
        position: _run_trial(
            predictor, sheets.select(some), clean[some], [regions[i] for i in some], position, [doses[shown]], settings,
            tick, own_marks=False,
        )
        for position in POSITIONS[1:]
    }  # fmt: skip
    return build_report(
        "white-stain",
        verdict,
        [*pasted, *(finding for finding in findings if finding.name == REMOVED)],
        predictor,
        sheets,
        settings,
        limits=_list_limits(trial, shown, regions),
        detail={
            "towards": first,
            "dose": one.to_json(),
            "doses": [
                {"dose": d, "words": dose.words, "position": "off", "area": dose.settings.area, "drawn": not dose.marks}
                | _pick_numbers(trial.effect(first, d))
                | {"proved": d in dict(judged[directions.index(first)][1])}
                for d, dose in enumerate(doses)
                if dose.towards in ("", first)
            ],
            "elsewhere": [
                {"position": position, "words": doses[shown].words} | _pick_numbers(other.effect(first, 0))
                for position, other in elsewhere.items()
            ],
            "evidence_inside": _measure_evidence_inside(trial, regions, first, shown),
            "examples": trial.list_examples(first, shown),
            # The verdict does not rest on these: a stain taken for a defect costs a look, not a bad coil.
            "other_direction": {
                f"towards {k}": trial.effect(k, shown).to_json() for k in predictor.classes if k not in directions
            },
        }
        # A stain that was cut out may come from an image that is nowhere on file.
        | ({"cut_stain": one.cut_stain} if one.cut_stain else {}),
    )


def _choose_doses(
    sheets: Sheets, learnt: Sheets | None, directions: Sequence[str], settings: StainSettings
) -> Sequence[Dose]:
    if not settings.family:
        return [Dose("the stain that was cut out" if settings.cut_stain else describe_stain(settings), settings)]
    source = learnt or sheets
    marks = cut_marks(source.grids, source.defects, source.labels)
    return make_family(sheets.grids, [mark for mark in marks if mark.label in directions], settings)


Judged = tuple[dict[int, Effect], list[tuple[int, Effect]], bool]


def _judge_direction(trial: StainTrial, target: str, half: BoolArray, settings: StainSettings) -> Judged:
    """Effects on all images by dose, those of the doses put to the proof, and whether every dose is harmless."""
    mine = [d for d, dose in enumerate(trial.doses) if dose.towards in ("", target)]
    whole = {d: trial.effect(target, d) for d in mine}
    if settings.family:
        searched = [trial.effect(target, d, half) for d in mine]
        proved = [(mine[k], trial.effect(target, mine[k], ~half)) for k in choose_worst(searched)]
    else:
        proved = list(whole.items())
    return whole, proved, is_harmless(list(whole.values()), settings.tolerated)


def _run_trial(
    predictor: Predictor,
    sheets: Sheets,
    clean: Float32Array,
    regions: Sequence[Mask],
    position: str,
    doses: Sequence[Dose],
    settings: StainSettings,
    tick: Callable[[], None],
    *,
    own_marks: bool,
) -> StainTrial:
    """Predict every variant of every image, one image at a time; `tick` is called after each.

    `own_marks`: whether marks were cut from these very images.
    """
    marks = [grow_mask(find_marks(grid)[0]) for grid in sheets.grids]  # a mark that is there is not clean steel
    donors = [i for i, labels in enumerate(sheets.labels) if labels == (CLEAR,) and not marks[i].any()]
    covered = np.zeros((len(sheets), len(doses)), bool)
    width = 1 + len(CONTROLS) + bool(donors)
    logits = np.empty((*covered.shape, width, len(predictor.classes)), np.float32)

    def draw_pictures() -> Iterator[Grey]:
        for i, (grid, region) in enumerate(zip(sheets.grids, regions, strict=True)):
            seed = derive_image_seed(settings.seed, sheets.hashes[i])
            avoid = {"off": region, "anywhere": None, "on": ~region if region.any() else None}[position]
            donor = _choose_donor(sheets, donors, i, seed)
            for d, dose in enumerate(doses):
                stain, area = dose.make_patch(seed, i if own_marks else -1)
                placed = stain.place(grid.shape, area, seed, avoid)
                met = int((placed.mask & region).sum())
                # A guess of where the defect is may be met: the controls hide as much of it.
                covered[i, d] = position == "off" and met > (region.sum() / 2 if sheets.defects[i] is None else 0)
                names = [OPPOSITE if name == "dark-stain" and not dose.bright else name for name in CONTROLS]
                for patch in (stain, *(make_control(name, stain) for name in names)):
                    yield patch.paste(grid, placed, seed, avoid=region | marks[i])
                if donor is not None:
                    steel = make_control("clean-steel", stain)
                    yield steel.paste(grid, placed, seed, avoid=region | marks[i], donor=donor)
            tick()

    flat = logits.reshape(-1, logits.shape[-1])
    for row, answer in enumerate(stream_logits(predictor, draw_pictures())):
        flat[row] = answer
    return StainTrial(predictor, sheets, settings, doses, clean, logits, covered, bool(donors))


def _choose_donor(sheets: Sheets, donors: Sequence[int], i: int, seed: int) -> Grey | None:
    """Another clear sheet of the size of image `i`, itself turned where there is none; None without clear sheets."""
    grid = sheets.grids[i]
    fitting = [d for d in donors if d != i and sheets.grids[d].shape == grid.shape]
    if fitting:
        return sheets.grids[fitting[seed % len(fitting)]]
    return grid[::-1, ::-1] if donors else None


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
        bright = find_marks(grid)[0]
        spots = grow_mask(bright) if bright.any() else bright
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
        power=True,
    )


def _pick_numbers(effect: Effect) -> dict[str, Any]:
    names = ("n", "groups", "flip_rate", "control_flip_rate", "controls", "excess", "interval")
    return {name: getattr(effect, name) for name in names}


def _measure_evidence_inside(trial: StainTrial, regions: Sequence[Mask], target: str, dose: int) -> dict[str, Any]:
    """Share of the Grad-CAM evidence for `target` inside the patch: before, with the stain, with clean steel."""
    predictor, sheets, settings = trial.predictor, trial.sheets, trial.settings
    rows = trial.select_at_risk(target, dose)[: settings.elsewhere]
    k = predictor.classes.index(target)
    shares: dict[str, list[float]] = {"before": [], "stain": [], "clean steel": []}
    area = 0.0
    for i in rows:
        grid, seed = sheets.grids[i], derive_image_seed(settings.seed, sheets.hashes[i])
        stain, size = trial.doses[dose].make_patch(seed, -1)
        placed = stain.place(grid.shape, size, seed, regions[i])
        steel = make_control("clean-steel", stain).paste(grid, placed, seed, avoid=regions[i])
        area += float(placed.mask.mean()) / len(rows)
        shown = [grid, stain.paste(grid, placed, seed), steel]
        for name, values in zip(shares, compute_evidence_maps(predictor, shown, [k] * 3), strict=True):
            shares[name].append(compute_share_inside(values, placed.mask) or 0.0)
    means = {name: float(np.mean(values)) if values else None for name, values in shares.items()}
    return {"class": target, "n": len(rows), "area": area} | means


def _list_limits(trial: StainTrial, dose: int, regions: Sequence[Mask]) -> list[str]:
    sheets, limits = trial.sheets, []
    if covered := int(trial.covered[:, dose].sum()):
        limits.append(f"{covered} of {len(sheets)} images are no evidence: their defect leaves no room for a stain.")
    if guessed := sum(defect is None for defect in sheets.defects):
        limits.append(f"Nothing tells where the defect of {guessed} images is: stains keep off where the model looks.")
    if any(region.all() for region in regions):
        limits.append("Some defects fill the picture.")
    if trial.settings.family and not any(one.marks for one in trial.doses):
        limits.append("No mark was found to cut from the images learnt from: only drawn stains were tested.")
    return limits


def _describe_finding(dose: Dose, effect: Effect, target: str) -> str:
    return describe_effect(effect, f"{dose.words[0].upper()}{dose.words[1:]}, beside the defect,", f"turns to {target}")
