"""The white-stain test: does a harmless stain turn the verdict, and more often than a patch that is no stain?

A stain that lies on the defect hides it, so a flip alone proves nothing. Stains are put beside the defect, each with
controls of the same outline at the same place, and only the excess over the strongest control counts.

Legend of shapes: N images, A areas, B brightnesses, V variants (B stains, then controls), K classes; H, W of a grid.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core.audit import sheets as pictures
from steel_core.audit.report import AuditReport, Finding, finished, strongest_first, told
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import FOR, Effect, joint, judged, measure
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.base import PERTURBATIONS, Grey, Mask
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.patch import LARGEST_AREA, Patch, Placed
from steel_core.perturb.stencil import Stencil, bright_spots, cut_box, inpainted, place
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, SteelImage

QUESTION = "Does a harmless white stain turn the verdict of this model?"
CONTROLS = ("clean-steel", "mean-grey", "dark-stain", "scrambled-stain")
"""Patches that a stain is compared with, beside steel from another clear sheet where there is one."""
DONOR = "other-clear-steel"
REMOVED = "a stain removed"
"""Name of the second test: natural stains of clear sheets painted over."""
POSITIONS = ("off", "anywhere", "on")
"""Where a stain lies: beside the defect, wherever it falls, or on the defect. Only "off" counts as evidence."""


_PNG = "data:image/png;base64,"


@dataclass(frozen=True)
class StainSettings:
    """What is asked.

    Attributes:
        areas: doses, as shares of the picture.
        brightnesses: doses, grey of the film, 0 to 1.
        area: the dose that the verdict rests on; one of `areas`.
        brightness: the same; one of `brightnesses`.
        shape: outline of the stains.
        number: of stains that share the area.
        texture: of the stains.
        source: a stain cut out of a picture, to be pasted instead of drawn ones. It keeps its own brightness.
        cut_from: the picture and the part of it that `source` is, for the report.
        tolerated: excess flip rate that is put up with.
        towards: class whose gain is tested; if empty, "clear" where the model knows it, else every class.
        elsewhere: images for the positions that are no evidence, and for the evidence inside the stain.
        seed: of everything drawn at random.
    """

    areas: tuple[float, ...] = (0.01, 0.02, 0.035, 0.05, 0.1)
    brightnesses: tuple[float, ...] = (0.6, 0.7, 0.8, 0.92, 1.0)
    area: float = 0.05
    brightness: float = 0.92
    shape: str = "blot"
    number: int = 1
    texture: str = "film"
    source: Stencil | None = None
    cut_from: str = ""
    tolerated: float = 0.05
    towards: str = ""
    elsewhere: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.area not in self.areas or self.brightness not in self.brightnesses:
            raise UsageError("white-stain test: the dose of the verdict must be one of the doses")
        if not all(0 < area <= LARGEST_AREA for area in self.areas):
            raise UsageError(f"area of a stain: expected above 0 and at most {LARGEST_AREA:g}, got {self.areas}")
        if not 0 <= self.tolerated < 1:
            raise UsageError(f"tolerated excess: expected 0 to 1, got {self.tolerated:g}")
        self.stain(self.brightness)

    def stain(self, brightness: float) -> WhiteStain:
        """The stain of that brightness."""
        return WhiteStain(self.shape, self.number, None, self.source, brightness, self.texture)

    def cut_out_of(self, image: SteelImage, box: tuple[int, int, int, int]) -> StainSettings:
        """The same test with the stain that a box marks in an image.

        Args:
            image: any size.
            box: left column, top row, width and height, in pixels.

        Raises:
            UsageError: the box is too small or does not lie inside the image.
        """
        return replace(
            self,
            brightnesses=(self.brightness,),  # a stain that was cut out keeps its own
            source=cut_box(image.grey(), box),
            cut_from=cut_name(image.name, image.sha256, box),
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        kept = {name: value for name, value in asdict(replace(self, source=None)).items() if name != "source"}
        return kept | {"stain": "drawn" if self.source is None else "cut out of a picture"}


def audit_white_stain(
    predictor: Predictor, sheets: Sheets, settings: StainSettings = StainSettings(), progress: Progress = no_progress
) -> AuditReport:
    """The test on a whole split.

    Args:
        predictor: the checkpoint.
        sheets: the images.
        settings: what is asked.
        progress: called with predictions done and their number. What it raises ends the audit.

    Raises:
        UsageError: the model does not know the class `settings.towards`.
    """
    directions = _directions(predictor, settings)
    clean = np.stack(list(pictures.stream_logits(predictor, sheets.grids)))
    preds = clean.argmax(axis=1)
    regions = pictures.regions(predictor, sheets, preds)
    some = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.elsewhere]
    total = len(sheets) + 2 * len(some)
    runs = {}
    done = 0
    for position in POSITIONS:
        rows = np.arange(len(sheets)) if position == "off" else some
        tick = _offset(progress, done, total)
        runs[position] = _expose(predictor, sheets.part(rows), [regions[i] for i in rows], position, settings, tick)
        done += len(rows)

    dose = settings.areas.index(settings.area), settings.brightnesses.index(settings.brightness)
    trial = _Trial(predictor, sheets, clean, runs["off"])
    tested: dict[str, tuple[Effect, dict[str, Effect]]] = {}
    for target in directions:
        effect, rows = trial.effect(target, dose, settings)
        labels = np.array([sheets.labels[i][0] if sheets.labels[i] else predictor.classes[preds[i]] for i in rows])
        each = {name: trial.effect(target, dose, settings, rows[labels == name])[0] for name in dict.fromkeys(labels)}
        tested[f"towards {target}"] = effect, each
    if CLEAR in predictor.classes and (removal := _removal(predictor, sheets, preds, settings)).n:
        tested[REMOVED] = removal, {CLEAR: removal}
    said, corrected = judged([effect for effect, _ in tested.values()], settings.tolerated)
    findings = [
        Finding(name, own, _sentence(name, effect, cut_out=settings.source is not None), effect, p, each)
        for (name, (effect, each)), own, p in zip(tested.items(), said, corrected, strict=True)
    ]
    pasted = strongest_first([finding for finding in findings if finding.name != REMOVED])
    # Painting over stains can show a shortcut. That it shows none is no answer to the question, and most data sets have
    # too few stained clear sheets to tell: it never stands in the way of the stain that is pasted.
    verdict = FOR if FOR in said else joint([finding.verdict for finding in pasted])
    first = pasted[0].name.removeprefix("towards ")
    return finished(
        "white-stain",
        QUESTION,
        verdict,
        [*pasted, *(finding for finding in findings if finding.name == REMOVED)],
        predictor,
        sheets,
        settings=settings.to_json(),
        seed=settings.seed,
        limits=_limits(sheets, regions, runs["off"], dose[0]),
        detail={
            "towards": first,
            "doses": _doses(predictor, sheets, clean, runs, some, first, settings),
            "evidence_inside": _evidence_inside(predictor, sheets, regions, trial, first, dose, settings),
            "examples": trial.examples(first, dose),
            "other_direction": _other_direction(trial, directions, dose, settings),
        }
        | _kept(settings.source),
    )


@dataclass(frozen=True, eq=False)
class Exposure:
    """What the model says of the same images with every dose and every control.

    Attributes:
        logits: (N, A, V, K) float32.
        covered: (N, A) whether the patch touches the defect, or where the model looks.
        area: (N, A) share of the picture that the patch takes.
        controls: names of the variants behind the B stains.
    """

    logits: npt.NDArray[np.float32]
    covered: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float64]
    controls: tuple[str, ...]


def variants(
    grid: Grey, placed: Placed, settings: StainSettings, seed: int, avoid: Mask | None, donor: Grey | None
) -> Iterator[tuple[str, Grey]]:
    """Name and picture (H, W) of a stain of each brightness, then of each control, all in one place.

    The controls do not depend on the brightness, except the scrambled stain, which has that of the verdict's dose.
    """
    for brightness in settings.brightnesses:
        yield f"white-stain {brightness:g}", settings.stain(brightness).paste(grid, placed, seed, avoid=avoid)
    stain = settings.stain(settings.brightness)
    for name in CONTROLS:
        yield name, control_patch(name, stain).paste(grid, placed, seed, avoid=avoid)
    if donor is not None:
        yield DONOR, control_patch("clean-steel", stain).paste(grid, placed, seed, avoid=avoid, donor=donor)


def control_patch(name: str, stain: WhiteStain) -> Patch:
    """The control of that name with the outline of a stain."""
    kind = PERTURBATIONS[name]
    shared: dict[str, Any] = {part: getattr(stain, part) for part in ("shape", "number", "centre", "source")}
    if issubclass(kind, WhiteStain):
        shared |= {"brightness": stain.brightness, "texture": stain.texture}
    made = kind(**shared)
    assert isinstance(made, Patch)
    return made


def _expose(
    predictor: Predictor,
    sheets: Sheets,
    regions: Sequence[Mask],
    position: str,
    settings: StainSettings,
    tick: Callable[[int], None] = lambda _: None,
) -> Exposure:
    """Predict every variant of every image, one image at a time."""
    spots = [bright_spots(grid) for grid in sheets.grids]  # a stain that is there already is not clean steel
    donors = [i for i, labels in enumerate(sheets.labels) if labels == (CLEAR,) and not spots[i].any()]
    covered = np.zeros((len(sheets), len(settings.areas)), bool)
    share = np.zeros(covered.shape)
    controls = (*CONTROLS, DONOR) if donors else CONTROLS
    width = len(settings.brightnesses) + len(controls)
    logits = np.empty((*covered.shape, width, len(predictor.classes)), np.float32)

    def pictures_of() -> Iterator[Grey]:
        for i, (grid, region) in enumerate(zip(sheets.grids, regions, strict=True)):
            seed = seed_of(settings.seed, sheets.hashes[i])
            avoid = {"off": region, "anywhere": None, "on": ~region if region.any() else None}[position]
            fitting = [d for d in donors if d != i and sheets.grids[d].shape == grid.shape]
            donor = sheets.grids[fitting[seed % len(fitting)]] if fitting else None
            if donor is None and donors:
                donor = grid[::-1, ::-1]  # the only clear sheet of this size: itself, turned
            for a, area in enumerate(settings.areas):
                placed = settings.stain(settings.brightness).placed(grid.shape, area, seed, avoid)
                covered[i, a] = bool((placed.mask & region).any())
                share[i, a] = placed.mask.mean()
                for _, picture in variants(grid, placed, settings, seed, region | spots[i], donor):
                    yield picture
            tick(i + 1)

    flat = logits.reshape(-1, logits.shape[-1])
    for row, found in enumerate(pictures.stream_logits(predictor, pictures_of())):
        flat[row] = found
    return Exposure(logits, covered, share, controls)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Effects of one exposure."""

    predictor: Predictor
    sheets: Sheets
    clean: npt.NDArray[np.float32]
    exposure: Exposure

    def at_risk(self, target: str, area: int) -> npt.NDArray[np.int64]:
        """Images that count: of another class (where that is known), not named `target`, their defect uncovered."""
        k = self.predictor.classes.index(target)
        other = self.sheets.lacks(target) | (self.sheets.first_labels == "")
        return np.flatnonzero(other & (self.clean.argmax(axis=1) != k) & ~self.exposure.covered[:, area])

    def effect(
        self,
        target: str,
        dose: tuple[int, int],
        settings: StainSettings,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> tuple[Effect, npt.NDArray[np.int64]]:
        """How much more often a stain turns images to `target` than its controls, and the images' numbers."""
        area, brightness = dose
        rows = self.at_risk(target, area) if rows is None else rows
        k = self.predictor.classes.index(target)
        found = self.exposure.logits[rows, area]
        turned = found.argmax(axis=2) == k
        before = pictures.probs_of(self.predictor, self.clean[rows])
        own = before.argmax(axis=1)
        after = pictures.probs_of(self.predictor, found)
        lost = (
            (before[np.arange(len(rows)), own][:, None] - after[np.arange(len(rows)), :, own]) if len(rows) else turned
        )
        behind = {name: len(settings.brightnesses) + c for c, name in enumerate(self.exposure.controls)}
        effect = measure(
            turned[:, brightness],
            {name: turned[:, v] for name, v in behind.items()},
            self.sheets.groups[rows],
            drops=lost[:, brightness],
            control_drops={name: lost[:, v] for name, v in behind.items()},
            tolerated=settings.tolerated,
            seed=settings.seed,
        )
        return effect, rows

    def examples(self, target: str, dose: tuple[int, int], most: int = 12) -> list[dict[str, Any]]:
        """The images whose probability of `target` the stain raised the most."""
        area, brightness = dose
        rows = self.at_risk(target, area)
        k = self.predictor.classes.index(target)
        before = pictures.probs_of(self.predictor, self.clean[rows])[:, k]
        after = pictures.probs_of(self.predictor, self.exposure.logits[rows, area, brightness])[:, k]
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


def _directions(predictor: Predictor, settings: StainSettings) -> list[str]:
    if settings.towards:
        if settings.towards not in predictor.classes:
            raise UsageError(f"towards: expected one of {', '.join(predictor.classes)}, got {settings.towards!r}")
        return [settings.towards]
    return [CLEAR] if CLEAR in predictor.classes else list(predictor.classes)


def _removal(predictor: Predictor, sheets: Sheets, preds: npt.NDArray[np.int64], settings: StainSettings) -> Effect:
    """Clear sheets that look stained: does painting over the stain turn "clear" into a defect?

    The control paints over as much steel, of the same outline, elsewhere on the sheet.
    """
    clear = predictor.classes.index(CLEAR)
    rows, painted = [], []
    for i, grid in enumerate(sheets.grids):
        if preds[i] != clear or (sheets.labels[i] and CLEAR not in sheets.labels[i]):
            continue
        spots = bright_spots(grid)
        if not 0 < spots.mean() < LARGEST_AREA:
            continue
        top, left = (np.flatnonzero(spots.any(axis=axis)) for axis in (1, 0))
        footprint = spots[top[0] : top[-1] + 1, left[0] : left[-1] + 1]
        rng = np.random.default_rng(seed_of(settings.seed, sheets.hashes[i]))
        row, column = place(footprint, spots, rng)
        elsewhere = np.zeros_like(spots)
        elsewhere[row : row + footprint.shape[0], column : column + footprint.shape[1]] = footprint
        if (elsewhere & spots).any():
            continue
        rows.append(i)
        painted += [inpainted(grid, spots), inpainted(grid, elsewhere)]
    turned = (predictor.logits(painted).argmax(axis=1) != clear).reshape(-1, 2)
    return measure(
        turned[:, 0],
        {"steel painted over": turned[:, 1]},
        sheets.groups[rows],
        tolerated=settings.tolerated,
        seed=settings.seed,
    )


def _doses(
    predictor: Predictor,
    sheets: Sheets,
    clean: npt.NDArray[np.float32],
    runs: dict[str, Exposure],
    some: npt.NDArray[np.int64],
    target: str,
    settings: StainSettings,
) -> list[dict[str, Any]]:
    """One row for each area, brightness and position. Where a patch may cover the defect, covered images count too."""
    table = []
    for position, exposure in runs.items():
        rows = np.arange(len(sheets)) if position == "off" else some
        covered = exposure.covered if position == "off" else np.zeros_like(exposure.covered)
        trial = _Trial(predictor, sheets.part(rows), clean[rows], replace(exposure, covered=covered))
        for a, area in enumerate(settings.areas):
            for b, brightness in enumerate(settings.brightnesses):
                effect, _ = trial.effect(target, (a, b), settings)
                table.append(
                    {
                        "position": position,
                        "area": area,
                        "brightness": brightness,
                        "n": effect.n,
                        "flip_rate": effect.flip_rate,
                        "control_flip_rate": effect.control_flip_rate,
                        "excess": effect.excess,
                        "interval": effect.interval,
                        "counts_as_evidence": position == "off",
                    }
                )
    return table


def _evidence_inside(
    predictor: Predictor,
    sheets: Sheets,
    regions: Sequence[Mask],
    trial: _Trial,
    target: str,
    dose: tuple[int, int],
    settings: StainSettings,
) -> dict[str, Any]:
    """Share of the Grad-CAM evidence for `target` inside the patch: before, with the stain, with clean steel."""
    rows = trial.at_risk(target, dose[0])[: settings.elsewhere]
    k = predictor.classes.index(target)
    shares: dict[str, list[float]] = {"before": [], "stain": [], "clean steel": []}
    area = 0.0
    for i in rows:
        grid, seed = sheets.grids[i], seed_of(settings.seed, sheets.hashes[i])
        stain = settings.stain(settings.brightness)
        placed = stain.placed(grid.shape, settings.area, seed, regions[i])
        shown = [
            grid,
            stain.paste(grid, placed, seed),
            control_patch("clean-steel", stain).paste(grid, placed, seed, avoid=regions[i] | bright_spots(grid)),
        ]
        area += float(placed.mask.mean()) / len(rows)
        for name, values in zip(shares, pictures.evidence_maps(predictor, shown, [k] * 3), strict=True):
            shares[name].append(pictures.share_inside(values, placed.mask) or 0.0)
    means = {name: float(np.mean(values)) if values else None for name, values in shares.items()}
    return {"class": target, "n": len(rows), "area": area} | means


def _other_direction(
    trial: _Trial, directions: list[str], dose: tuple[int, int], settings: StainSettings
) -> dict[str, Any]:
    """Effects that the verdict does not rest on: a stain taken for a defect costs a look, not a bad coil."""
    others = [k for k in trial.predictor.classes if k not in directions]
    return {f"towards {k}": trial.effect(k, dose, settings)[0].to_json() for k in others}


def cut_name(name: str, sha256: str, box: Sequence[int]) -> str:
    """What a report says of where a stain was cut out: the image, its hash, and the box in pixels."""
    return f"{name} ({sha256[:16]}), box {','.join(map(str, box))}"


def _kept(source: Stencil | None) -> dict[str, str]:
    """A stain that was cut out, as a picture in the report: it may come from an image that is nowhere on file."""
    return {} if source is None else {"cut_stain": _PNG + base64.b64encode(source.png()).decode()}


def cut_stain(report: dict[str, Any]) -> Stencil | None:
    """The stain that was cut out and pasted; None for drawn ones, and in reports of before November 2026.

    Args:
        report: what `AuditReport.to_json` gave, perhaps read back from a file.
    """
    kept = report["detail"].get("cut_stain")
    return Stencil.from_png(base64.b64decode(kept.removeprefix(_PNG))) if kept else None


def _limits(sheets: Sheets, regions: Sequence[Mask], exposure: Exposure, area: int) -> tuple[str, ...]:
    said = []
    if covered := int(exposure.covered[:, area].sum()):
        said.append(f"{covered} of {len(sheets)} images are no evidence: their defect leaves no room for a stain.")
    if guessed := sum(defect is None for defect in sheets.defects):
        said.append(f"Nothing tells where the defect of {guessed} images is: stains keep off where the model looks.")
    if any(region.all() for region in regions):
        said.append("Some defects fill the picture.")
    return tuple(said)


def _sentence(name: str, effect: Effect, *, cut_out: bool) -> str:
    if name.startswith("towards "):
        stain = "The stain that was cut out, beside the defect," if cut_out else "A white stain beside the defect"
        return told(effect, stain, f"turns to {name.removeprefix('towards ')}")
    return told(effect, "Painting over a bright spot of a clear sheet", "turns to a defect")


def seed_of(seed: int, sha256: str) -> int:
    """One for each image, the same whatever other images there are."""
    return (seed * 1_000_003 + int(sha256[:12] or "0", 16)) % 2**31


def _offset(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress("white-stain", done + more, total)
