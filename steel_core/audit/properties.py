"""The property test: does something about the picture, rather than the steel, go with the label and move the model?

Three legs: in the data, the property alone predicts the label better than the commonest label does; changing it moves
the model to the label that it goes with; and the model's evidence lies where the property shows. Each leg is shown,
ruled out, or undecided, by its interval. A finding is red only where all three are shown; a property is cleared where
data or model is ruled out; else there is not enough data. Where the defect is on file, properties are measured beside
it: a dark defect does not make its sheet dark.

Legend of shapes: N images, K classes; H, W of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold
from sklearn.tree import DecisionTreeClassifier

from steel_core.audit import sheets as pictures
from steel_core.audit.report import AuditReport, Finding, finished, in_percent, signed, strongest_first
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import AGAINST, ALPHA, FOR, LEAST, TOO_FEW, Effect, joint, measure, paired_interval
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.properties import noise, sharpness
from steel_core.inference.predictor import Predictor
from steel_core.metrics import holm
from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.stencil import bright_spots, inpainted
from steel_core.progress import Progress, no_progress

QUESTION = "Does a property of the picture, rather than the steel, go with the label and move the model?"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PropertySettings:
    """What is asked.

    Attributes:
        margin: by how much a property must beat the majority rate in the data.
        tolerated: excess share of images moved to the label that is put up with.
        mapped: images whose evidence is measured.
        seed: of everything drawn at random.
    """

    margin: float = 0.03
    tolerated: float = 0.05
    mapped: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Property:
    """One property.

    Attributes:
        measure: of a picture (H, W) and what of it counts (H, W).
        more: the change that raises it, and `less` the one that lowers it; None where it cannot be changed.
        less: see `more`.
        where: the pixels in which it shows (H, W); None for what the whole picture has.
    """

    measure: Callable[[Grey, Mask], float]
    more: Perturbation | None = None
    less: Perturbation | None = None
    where: Callable[[Grey], Mask] | None = None


def _of_steel(function: Callable[[Grey], float]) -> Callable[[Grey, Mask], float]:
    """A function of a picture, with its defect painted over."""
    return lambda grid, steel: function(grid if steel.all() else inpainted(grid, ~steel))


def _texture(grid: Grey) -> float:
    """Streaks: logarithm of how much the picture changes along its rows over how much it changes down its columns."""
    across, down = np.abs(np.diff(grid, axis=1)).mean(), np.abs(np.diff(grid, axis=0)).mean()
    return float(np.log((across + 1e-4) / (down + 1e-4)))


def _blocks(grid: Grey) -> float:
    """How much stronger steps are at the seams of 8 x 8 blocks than elsewhere: 1 without JPEG compression."""
    steps = np.abs(np.diff(grid, axis=1)).mean(axis=0)
    seams = np.arange(len(steps)) % 8 == 7
    return float(steps[seams].mean() / max(steps[~seams].mean(), 1e-6)) if seams.any() else 1.0


def _bright(grid: Grey) -> Mask:
    return np.asarray(grid >= np.quantile(grid, 0.9))


def _detailed(grid: Grey) -> Mask:
    energy = cv2.GaussianBlur((grid - cv2.GaussianBlur(grid, (0, 0), 2)) ** 2, (0, 0), 3)
    return np.asarray(energy >= np.quantile(energy, 0.9))


def _change(name: str, **settings: Any) -> Perturbation:
    return PERTURBATIONS[name](**settings)


def _stain_share(grid: Grey, steel: Mask) -> float:
    return float((bright_spots(grid) & steel).mean())


def known_properties() -> dict[str, Property]:
    """What is measured on every picture; size and acquisition order come from the data set's table."""
    return {
        "brightness": Property(
            lambda grid, steel: float(grid[steel].mean()),
            _change("brightness"),
            _change("brightness", sign=-1),
            _bright,
        ),
        "contrast": Property(
            lambda grid, steel: float(grid[steel].std()), _change("contrast"), _change("contrast", sign=-1), _detailed
        ),
        "sharpness": Property(_of_steel(sharpness), _change("sharpness"), _change("sharpness", sign=-1), _detailed),
        "noise": Property(_of_steel(noise), _change("noise"), _change("sharpness", sign=-1), _detailed),
        "background texture": Property(_of_steel(_texture)),
        "stain-likeness": Property(_stain_share, WhiteStain(), None, bright_spots),
        "JPEG blocks": Property(_of_steel(_blocks), _change("jpeg"), None),
    }


def audit_properties(
    predictor: Predictor,
    sheets: Sheets,
    index: DatasetIndex,
    settings: PropertySettings = PropertySettings(),
    progress: Progress = no_progress,
) -> AuditReport:
    """The test on a whole split.

    Args:
        predictor: the checkpoint.
        sheets: the images; those without a label do not count.
        index: where they come from, for their size and their order.
        settings: what is asked.
        progress: called with properties done and their number. What it raises ends the audit.
    """
    labelled = sheets.part(np.flatnonzero(sheets.first_labels != ""))
    if not len(labelled):
        return finished(
            "properties",
            QUESTION,
            TOO_FEW,
            [],
            predictor,
            sheets,
            settings=asdict(settings),
            seed=settings.seed,
            limits=("No image has a label, so no property can go with one.",),
        )
    measured = _measured(labelled, index)
    labels = labelled.first_labels
    clean = np.stack(list(pictures.stream_logits(predictor, labelled.grids)))
    steel = _steel(labelled)
    known = known_properties()
    tested: list[tuple[str, dict[str, Any], Effect, dict[str, Any]]] = []
    for done, (name, values) in enumerate(measured.items()):
        data = _predicts(values, labels, labelled.groups, settings.seed)
        kind = known.get(name)
        effect = _moves(predictor, labelled, steel, clean, kind, data, settings)
        evidence = _lies_on(predictor, labelled, clean, kind, data, settings)
        tested.append((name, data, effect, evidence))
        progress("properties", done + 1, len(measured))
    by_data = holm([data["p"] for _, data, _, _ in tested])
    by_model = holm([effect.p for _, _, effect, _ in tested])
    findings = []
    for (name, data, effect, evidence), p_data, p_model in zip(tested, by_data, by_model, strict=True):
        legs = _legs(data, effect, evidence, p_data, p_model, settings)
        # A map may miss what moves the model, so only data or model can rule a property out.
        ruled_out = False in (legs["data"], legs["model"])
        verdict = FOR if all(legs.values()) else AGAINST if ruled_out else TOO_FEW
        findings.append(
            Finding(
                name,
                verdict,
                _sentence(name, data, effect, legs),
                effect,
                p_model,
                {},
                legs,
                {"data": data, "evidence": evidence},
            )
        )
    # What cannot be changed in a picture can be no finding; it is a doubt only where it goes with the label.
    doubts = [f for f in findings if f.effect.excess is not None or f.legs["data"]]
    untested = [f.name for f in findings if f not in doubts and f.verdict == TOO_FEW]
    return finished(
        "properties",
        QUESTION,
        joint([finding.verdict for finding in doubts]),
        strongest_first(findings),
        predictor,
        labelled,
        settings=asdict(settings),
        seed=settings.seed,
        limits=(
            "A property that cannot be changed in a picture, as its size or its place in the order, is never red.",
            *(
                (f"Whether {', '.join(untested)} goes with the label is not known; changing it cannot be tried.",)
                if untested
                else ()
            ),
            *(
                ("Defects without mask or box are measured with the steel.",)
                if any(d is None for d in labelled.defects)
                else ()
            ),
        ),
    )


def _legs(
    data: dict[str, Any],
    effect: Effect,
    evidence: dict[str, Any],
    p_data: float,
    p_model: float,
    settings: PropertySettings,
) -> dict[str, bool | None]:
    """Of data, model and evidence: whether it is shown (True) or ruled out (False); None where undecided."""
    low, high = evidence["interval_of_difference"] or (-1.0, 1.0)
    enough = effect.groups >= LEAST and effect.excess is not None
    return {
        "data": _leg(
            p_data < ALPHA / 2 and data["above_majority"] > settings.margin, data["interval"][1] < settings.margin
        ),
        "model": _leg(
            enough and p_model < ALPHA / 2 and (effect.excess or 0.0) > settings.tolerated,
            enough and effect.interval[1] < settings.tolerated,
        ),
        "evidence": _leg(low > 0, high < 0),
    }


def _leg(shown: bool, ruled_out: bool) -> bool | None:
    return True if shown else False if ruled_out else None


def _measured(sheets: Sheets, index: DatasetIndex) -> dict[str, Values]:
    """Each property of each image (N,)."""
    steel = _steel(sheets)
    found = {
        name: np.array([kind.measure(grid, own) for grid, own in zip(sheets.grids, steel, strict=True)], np.float64)
        for name, kind in known_properties().items()
    }
    sizes = [index.size(int(row)) for row in sheets.rows]
    found["size"] = np.array([math.sqrt(height * width) for height, width in sizes])
    names = index.table["path"].iloc[sheets.rows]
    digits = names.str.extract(r"(\d+)\D*$")[0]
    found["acquisition order"] = np.array([float(d) if isinstance(d, str) else math.nan for d in digits])
    return {name: values for name, values in found.items() if np.isfinite(values).all() and np.ptp(values) > 1e-9}


def _steel(sheets: Sheets) -> list[Mask]:
    """What of each picture is no defect, as far as that is known; all of it where the defect leaves too little."""
    found = []
    for grid, defect in zip(sheets.grids, sheets.defects, strict=True):
        whole = np.ones(grid.shape, bool)
        found.append(whole if defect is None or defect.mean() > 0.9 else ~defect)
    return found


def _predicts(values: Values, labels: npt.NDArray[np.str_], groups: npt.NDArray[np.str_], seed: int) -> dict[str, Any]:
    """How well a property alone tells the label: a tree of four leaves, five folds by group, against the majority."""
    names, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    majority = int(counts.argmax())
    folds = min(5, len(np.unique(groups)))
    said = np.full(len(values), majority)
    if folds >= 2 and len(names) >= 2:
        for train, test in GroupKFold(folds).split(values, numbers, groups):
            tree = DecisionTreeClassifier(
                max_leaf_nodes=4, min_samples_leaf=max(5, len(train) // 20), random_state=seed
            )
            said[test] = tree.fit(values[train, None], numbers[train]).predict(values[test, None])
    right = (said == numbers).astype(float) - (numbers == majority)
    interval, p = paired_interval(right, groups, seed=seed)
    means = np.array([values[numbers == k].mean() for k in range(len(names))])
    ends = int(means.argmin()), int(means.argmax())
    return {
        "accuracy": float((said == numbers).mean()),
        "majority": float(counts.max() / len(labels)),
        "above_majority": float(right.mean()),
        "interval": interval,
        "p": p,
        "n": len(values),
        "low": str(names[ends[0]]),
        "high": str(names[ends[1]]),
        "means": dict(zip(names.tolist(), means.tolist(), strict=True)),
    }


def _moves(
    predictor: Predictor,
    sheets: Sheets,
    steel: list[Mask],
    clean: npt.NDArray[np.float32],
    kind: Property | None,
    data: dict[str, Any],
    settings: PropertySettings,
) -> Effect:
    """How often changing the property moves images to the label that it goes with, over changing it the other way.

    More of it should move images to the label with the most of it, and less of it to the one with the least. Where it
    can only be raised, the control is a patch or a change that does not raise it: clean steel for a stain.
    """
    up: list[npt.NDArray[np.bool_]] = []
    groups: list[npt.NDArray[np.str_]] = []
    down: list[npt.NDArray[np.bool_]] = []
    if kind is not None:
        toward = [(kind.more, kind.less, data["high"]), (kind.less, kind.more, data["low"])]
        for change, other, label in toward:
            if change is None or label not in predictor.classes:
                continue
            k = predictor.classes.index(label)
            rows = np.flatnonzero((clean.argmax(axis=1) != k) & sheets.lacks(label))
            against = other or (PERTURBATIONS["clean-steel"]() if isinstance(change, WhiteStain) else None)
            up.append(_named(predictor, sheets, steel, rows, change, settings.seed) == k)
            down.append(
                np.zeros(len(rows), bool)
                if against is None
                else _named(predictor, sheets, steel, rows, against, settings.seed) == k
            )
            groups.append(sheets.groups[rows])
    if not up:
        return measure(np.empty(0), {"the other way": np.empty(0)}, np.empty(0, str), tolerated=settings.tolerated)
    return measure(
        np.concatenate(up),
        {"the other way": np.concatenate(down)},
        np.concatenate(groups),
        tolerated=settings.tolerated,
        seed=settings.seed,
    )


def _named(
    predictor: Predictor,
    sheets: Sheets,
    steel: list[Mask],
    rows: npt.NDArray[np.int64],
    change: Perturbation,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Class (M,) that the model gives some images after a change."""
    changed = (change.perturb(sheets.grids[i], change.info.usual, seed + int(i), avoid=~steel[i]).image for i in rows)
    return np.array([int(logits.argmax()) for logits in pictures.stream_logits(predictor, changed)], dtype=np.int64)


def _lies_on(
    predictor: Predictor,
    sheets: Sheets,
    clean: npt.NDArray[np.float32],
    kind: Property | None,
    data: dict[str, Any],
    settings: PropertySettings,
) -> dict[str, Any]:
    """Share of the evidence for the predicted class in the pixels where the property shows, against their area.

    For images that the model gives the label with the most of it: there the property must show.
    """
    nothing: dict[str, Any] = {"n": 0, "share": None, "area": None, "interval_of_difference": None}
    if kind is None or kind.where is None or data["high"] not in predictor.classes:
        return nothing
    k = predictor.classes.index(data["high"])
    shares: list[float] = []
    areas: list[float] = []
    groups: list[str] = []
    rows = np.random.default_rng(settings.seed).permutation(np.flatnonzero(clean.argmax(axis=1) == k))
    for i in rows:
        where = kind.where(sheets.grids[i])
        if not where.any() or len(shares) >= settings.mapped:
            continue
        values = pictures.evidence_maps(predictor, [sheets.grids[i]], [k])[0]
        share = pictures.share_inside(values, where)
        if share is not None:
            shares.append(share)
            areas.append(float(where.mean()))
            groups.append(sheets.groups[i])
    if len(shares) < LEAST:
        return nothing | {"n": len(shares)}
    interval, _ = paired_interval(np.array(shares) - np.array(areas), np.array(groups), seed=settings.seed)
    return {
        "n": len(shares),
        "share": float(np.mean(shares)),
        "area": float(np.mean(areas)),
        "interval_of_difference": interval,
    }


def _sentence(name: str, data: dict[str, Any], effect: Effect, legs: dict[str, bool | None]) -> str:
    parts = [
        f"{name[0].upper()}{name[1:]} alone names the label of {in_percent(data['accuracy'])} of {data['n']} images "
        f"(the commonest label is that of {in_percent(data['majority'])})."
    ]
    if effect.excess is not None:
        low, high = effect.interval
        parts.append(
            f"Changing it moves {in_percent(effect.flip_rate)} of {effect.n} images to the label it goes with, the "
            f"control {in_percent(effect.control_flip_rate)} (excess {signed(low)} to {signed(high)})."
        )
    words = {True: "shown", False: "ruled out", None: "undecided"}
    parts.append(f"{', '.join(f'{leg}: {words[holds]}' for leg, holds in legs.items())}.".capitalize())
    return " ".join(parts)
