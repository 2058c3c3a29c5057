"""The property test: does something about the picture, rather than the steel, go with the label and move the model?

Three legs: in the data, the property alone predicts the label better than the commonest label does; changing it moves
the model to the label that it goes with; and the model's evidence lies where the property shows. Each leg is shown,
ruled out, or undecided, by its interval. A finding is red only where all three are shown; a property is cleared where
data or model is ruled out; else there is not enough data. Where the defect is on file, properties are measured beside
it: a dark defect does not make its sheet dark.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from sklearn.model_selection import GroupKFold
from sklearn.tree import DecisionTreeClassifier

from steel_core.audit.evidence import measure_evidence_in_parts, predict_logits, stream_logits
from steel_core.audit.report import (
    AuditFinding,
    AuditReport,
    build_report,
    format_difference,
    format_share,
    sort_strongest_first,
)
from steel_core.audit.settings import PropertySettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import (
    AGAINST,
    ALPHA,
    FOR,
    LEAST,
    TOO_FEW,
    Effect,
    combine_verdicts,
    estimate_difference,
    estimate_effect,
)
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import find_marks
from steel_core.data.quality.properties import noise, sharpness
from steel_core.inference.predictor import Predictor
from steel_core.metrics import holm_correction
from steel_core.perturb.base import Perturbation
from steel_core.perturb.methods.patches import CleanSteel, WhiteStain
from steel_core.perturb.methods.photometric import Brightness, Contrast, Jpeg, Noise, Sharpness
from steel_core.perturb.stencil import inpaint
from steel_core.progress import Progress, no_progress
from steel_core.types import BoolArray, Float32Array, Float64Array, Grey, Int64Array, Mask, StrArray


@dataclass(frozen=True)
class Property:
    """One property."""

    measure: Callable[[Grey, Mask], float]  # of a picture (H, W) and what of it counts (H, W)
    # the change that raises it, and `less` the one that lowers it; None where it cannot be changed
    more: Perturbation | None = None
    less: Perturbation | None = None
    # the pixels in which it shows (H, W); None for what the whole picture has
    where: Callable[[Grey], Mask] | None = None


def _measure_steel(function: Callable[[Grey], float]) -> Callable[[Grey, Mask], float]:
    """A function of a picture, with its defect painted over."""
    return lambda grid, steel: function(grid if steel.all() else inpaint(grid, ~steel))


def _measure_streaks(grid: Grey) -> float:
    """Streaks: logarithm of how much the picture changes along its rows over how much it changes down its columns."""
    across, down = np.abs(np.diff(grid, axis=1)).mean(), np.abs(np.diff(grid, axis=0)).mean()
    return float(np.log((across + 1e-4) / (down + 1e-4)))


def _measure_blocks(grid: Grey) -> float:
    """How much stronger steps are at the seams of 8 x 8 blocks than elsewhere: 1 without JPEG compression."""
    steps = np.abs(np.diff(grid, axis=1)).mean(axis=0)
    seams = np.arange(len(steps)) % 8 == 7
    return float(steps[seams].mean() / max(steps[~seams].mean(), 1e-6)) if seams.any() else 1.0


def _find_bright(grid: Grey) -> Mask:
    return np.asarray(grid >= np.quantile(grid, 0.9))


def _find_detailed(grid: Grey) -> Mask:
    energy = cv2.GaussianBlur((grid - cv2.GaussianBlur(grid, (0, 0), 2)) ** 2, (0, 0), 3)
    return np.asarray(energy >= np.quantile(energy, 0.9))


PROPERTIES = {
    "brightness": Property(
        lambda grid, steel: float(grid[steel].mean()), Brightness(), Brightness(sign=-1), _find_bright
    ),
    "contrast": Property(lambda grid, steel: float(grid[steel].std()), Contrast(), Contrast(sign=-1), _find_detailed),
    "sharpness": Property(_measure_steel(sharpness), Sharpness(), Sharpness(sign=-1), _find_detailed),
    "noise": Property(_measure_steel(noise), Noise(), Sharpness(sign=-1), _find_detailed),
    "background texture": Property(_measure_steel(_measure_streaks)),
    "stain-likeness": Property(
        lambda grid, steel: float((find_marks(grid)[0] & steel).mean()),
        WhiteStain(),
        None,
        lambda grid: find_marks(grid)[0],
    ),
    "JPEG blocks": Property(_measure_steel(_measure_blocks), Jpeg()),
}
"""What is measured on every picture; size and acquisition order come from the data set's table."""


def measure_properties(sheets: Sheets, index: DatasetIndex) -> dict[str, Float64Array]:
    """Each property of each image (N,), but for those that do not vary."""
    steel = mask_steel(sheets)
    measured = {
        name: np.array([kind.measure(grid, own) for grid, own in zip(sheets.grids, steel, strict=True)], np.float64)
        for name, kind in PROPERTIES.items()
    }
    measured["size"] = np.array([math.sqrt(math.prod(index.size(int(row)))) for row in sheets.rows])
    digits = index.table["path"].iloc[sheets.rows].str.extract(r"(\d+)\D*$")[0]
    measured["acquisition order"] = np.array([float(d) if isinstance(d, str) else math.nan for d in digits])
    return {name: values for name, values in measured.items() if np.isfinite(values).all() and np.ptp(values) > 1e-9}


def mask_steel(sheets: Sheets) -> list[Mask]:
    """What of each picture is no defect, as far as that is known; all of it where the defect leaves too little."""
    return [
        np.ones(grid.shape, bool) if defect is None or defect.mean() > 0.9 else ~defect
        for grid, defect in zip(sheets.grids, sheets.defects, strict=True)
    ]


def audit_properties(
    predictor: Predictor,
    sheets: Sheets,
    index: DatasetIndex,
    settings: PropertySettings = PropertySettings(),
    progress: Progress = no_progress,
    learnt: Sheets | None = None,
) -> AuditReport:
    """The test of these images, of which those without a label do not count; `index` tells their size and order."""
    labelled = sheets.select(np.flatnonzero(sheets.first_labels != ""))
    if not len(labelled):
        nothing = ("No image has a label, so no property can go with one.",)
        return build_report("properties", TOO_FEW, [], predictor, sheets, settings, limits=nothing)
    measured = measure_properties(labelled, index)
    trial = _Trial(predictor, labelled, mask_steel(labelled), predict_logits(predictor, labelled.grids), settings)
    tested: list[tuple[str, dict[str, Any], Effect, dict[str, Any]]] = []
    for done, (name, values) in enumerate(measured.items()):
        data = _predict_label(values, labelled.first_labels, labelled.groups, settings.seed)
        kind = PROPERTIES.get(name)
        tested.append((name, data, trial.move(kind, data), trial.locate_evidence(kind, data)))
        progress("properties", done + 1, len(measured))
    by_data = holm_correction([data["p"] for _, data, _, _ in tested])
    by_model = holm_correction([effect.p for _, _, effect, _ in tested])
    findings = []
    for (name, data, effect, evidence), p_data, p_model in zip(tested, by_data, by_model, strict=True):
        legs = _decide_legs(data, effect, evidence, p_data, p_model, settings)
        # A map may miss what moves the model, so only data or model can rule a property out.
        ruled_out = False in (legs["data"], legs["model"])
        findings.append(
            AuditFinding(
                **dict(effect),
                name=name,
                verdict=FOR if all(legs.values()) else AGAINST if ruled_out else TOO_FEW,
                sentence=_describe_property(name, data, effect, legs),
                p_corrected=p_model,
                legs=legs,
                data=data,
                evidence=evidence,
            )
        )
    # What cannot be changed in a picture can be no finding; it is a doubt only where it goes with the label.
    doubts = [finding for finding in findings if finding.excess is not None or finding.legs["data"]]
    untested = [finding.name for finding in findings if finding not in doubts and finding.verdict == TOO_FEW]
    limits = ["A property that cannot be changed in a picture, as its size or its place in the order, is never red."]
    if untested:
        limits.append(f"Whether {', '.join(untested)} goes with the label is not known; changing it cannot be tried.")
    if any(defect is None for defect in labelled.defects):
        limits.append("Defects without mask or box are measured with the steel.")
    return build_report(
        "properties",
        combine_verdicts([finding.verdict for finding in doubts]),
        sort_strongest_first(findings),
        predictor,
        labelled,
        settings,
        limits=limits,
    )


def _decide_legs(
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
        "data": _decide_leg(
            p_data < ALPHA / 2 and data["above_majority"] > settings.margin, data["interval"][1] < settings.margin
        ),
        "model": _decide_leg(
            enough and p_model < ALPHA / 2 and (effect.excess or 0.0) > settings.tolerated,
            enough and effect.interval[1] < settings.tolerated,
        ),
        "evidence": _decide_leg(low > 0, high < 0),
    }


def _decide_leg(shown: bool, ruled_out: bool) -> bool | None:
    return True if shown else False if ruled_out else None


def _predict_label(values: Float64Array, labels: StrArray, groups: StrArray, seed: int) -> dict[str, Any]:
    """How well a property alone tells the label: a tree of four leaves, five folds by group, against the majority."""
    names, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    majority = int(counts.argmax())
    folds = min(5, len(np.unique(groups)))
    predicted = np.full(len(values), majority)
    if folds >= 2 and len(names) >= 2:
        for train, test in GroupKFold(folds).split(values, numbers, groups):
            tree = DecisionTreeClassifier(
                max_leaf_nodes=4, min_samples_leaf=max(5, len(train) // 20), random_state=seed
            )
            predicted[test] = tree.fit(values[train, None], numbers[train]).predict(values[test, None])
    right = (predicted == numbers).astype(float) - (numbers == majority)
    interval, p = estimate_difference(right, groups, seed=seed)
    means = np.array([values[numbers == k].mean() for k in range(len(names))])
    ends = int(means.argmin()), int(means.argmax())
    return {
        "accuracy": float((predicted == numbers).mean()),
        "majority": float(counts.max() / len(labels)),
        "above_majority": float(right.mean()),
        "interval": interval,
        "p": p,
        "n": len(values),
        "low": str(names[ends[0]]),
        "high": str(names[ends[1]]),
        "means": dict(zip(names.tolist(), means.tolist(), strict=True)),
    }


@dataclass(frozen=True, eq=False)
class _Trial:
    """How a model answers to changes of a property, on labelled images.

    `steel` is what of each is no defect (H, W), `clean` their logits (N, K) as they are.
    """

    predictor: Predictor
    sheets: Sheets
    steel: list[Mask]
    clean: Float32Array
    settings: PropertySettings

    def move(self, kind: Property | None, data: dict[str, Any]) -> Effect:
        """How often changing it moves images to the label that it goes with, over changing it the other way.

        More of it should move images to the label with the most of it, and less of it to the one with the least. Where
        it can only be raised, the control is a patch or a change that does not raise it: clean steel for a stain.
        """
        tries: list[tuple[BoolArray, BoolArray, StrArray]] = [(np.empty(0, bool), np.empty(0, bool), np.empty(0, str))]
        if kind is not None:
            for change, other, label in ((kind.more, kind.less, data["high"]), (kind.less, kind.more, data["low"])):
                if change is None or label not in self.predictor.classes:
                    continue
                k = self.predictor.classes.index(label)
                rows = np.flatnonzero((self.clean.argmax(axis=1) != k) & self.sheets.lacks(label))
                against = other or (CleanSteel() if isinstance(change, WhiteStain) else None)
                turned = self._predict(rows, change) == k
                back = np.zeros(len(rows), bool) if against is None else self._predict(rows, against) == k
                tries.append((turned, back, self.sheets.groups[rows]))
        flips, control, groups = (np.concatenate(parts) for parts in zip(*tries, strict=True))
        return estimate_effect(flips, {"the other way": control}, groups, self.settings.tolerated, self.settings.seed)

    def locate_evidence(self, kind: Property | None, data: dict[str, Any]) -> dict[str, Any]:
        """Share of the evidence for the predicted class in the pixels where the property shows, against their area.

        For images that the model gives the label with the most of it: there the property must show.
        """
        parts: Iterable[tuple[int, int, Mask]] = ()
        if kind is not None and kind.where is not None and data["high"] in self.predictor.classes:
            k = self.predictor.classes.index(data["high"])
            rows = np.flatnonzero(self.clean.argmax(axis=1) == k)
            order = np.random.default_rng(self.settings.seed).permutation(rows)
            parts = ((i, k, where) for i in order if (where := kind.where(self.sheets.grids[i])).any())
        return measure_evidence_in_parts(
            self.predictor, self.sheets, parts, self.settings.mapped, least=LEAST, seed=self.settings.seed
        )

    def _predict(self, rows: Int64Array, change: Perturbation) -> Int64Array:
        usual, seed = change.info.usual, self.settings.seed
        changed = (change.perturb(self.sheets.grids[i], usual, seed + int(i), avoid=~self.steel[i]).image for i in rows)
        return np.array([int(logits.argmax()) for logits in stream_logits(self.predictor, changed)], dtype=np.int64)


def _describe_property(name: str, data: dict[str, Any], effect: Effect, legs: dict[str, bool | None]) -> str:
    parts = [
        f"{name[0].upper()}{name[1:]} alone names the label of {format_share(data['accuracy'])} of {data['n']} images "
        f"(the commonest label is that of {format_share(data['majority'])})."
    ]
    if effect.excess is not None:
        low, high = effect.interval
        parts.append(
            f"Changing it moves {format_share(effect.flip_rate)} of {effect.n} images to the label it goes with, the "
            f"control {format_share(effect.control_flip_rate)} (excess {format_difference(low)} to "
            f"{format_difference(high)})."
        )
    words = {True: "shown", False: "ruled out", None: "undecided"}
    parts.append(f"{', '.join(f'{leg}: {words[holds]}' for leg, holds in legs.items())}.".capitalize())
    return " ".join(parts)
