"""The property test: does something about the picture, rather than the steel, go with the label and move the model?

Two legs. In the images learnt from, a clue alone tells a class from the rest (`steel_core.evaluation.label_clues`). And
its component, put from images of that class into others, moves the model to the class: beyond the same component of
images that do not carry the clue, and beyond the same change of the defect alone. Each leg is shown, ruled out, or
undecided. A finding is red only where both are shown; a property is cleared where one is ruled out; else there is not
enough data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from steel_core.audit.components import COMPONENTS, Component, compress, estimate_jpeg_quality, make_place
from steel_core.audit.evidence import count_outcomes, find_regions, predict_logits, stream_logits
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
    FOR,
    NOTHING,
    TOO_FEW,
    Effect,
    combine_verdicts,
    decide_verdicts,
    estimate_effect,
)
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import CLUE_TABLE, FILE_FACTS, MARKS
from steel_core.data.transforms import resize
from steel_core.evaluation.label_clues import LEAST, LabelClue, rank_clues
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, Float32Array, Grey, Int64Array, Mask

_DONORS = 8
_IN_FILES = ("compression", *FILE_FACTS)  # what is tried by compressing again, at the picture's own size
UNTRIED = (*MARKS, "picture size")
"""Clues that no component stands for: marks are asked about by the white-stain test."""

WITHOUT, HIDDEN = "the same of images without it", "the change on the defect alone"
"""Controls: a change of the whole picture may turn it by what it does to the defect."""


def audit_properties(
    predictor: Predictor,
    sheets: Sheets,
    index: DatasetIndex,
    settings: PropertySettings = PropertySettings(),
    progress: Progress = no_progress,
    learnt: Sheets | None = None,
) -> AuditReport:
    """The test of these images; the data are asked in the images `learnt` from, else in these. Both are of `index`."""
    source = learnt or sheets
    source = source.select(np.flatnonzero(source.first_labels != ""))
    if not len(source):
        nothing = ("No image has a label, so no property can go with one.",)
        return build_report("properties", TOO_FEW, [], predictor, sheets, settings, limits=nothing)
    table = CLUE_TABLE.load_or_measure(index.select(source.rows))
    kept = np.flatnonzero(table["brightness"].notna().to_numpy())
    source, table = source.select(kept), table.iloc[kept].reset_index(drop=True)
    clues = rank_clues(table, source.first_labels, source.groups, range(len(source)), settings.seed)
    trial = _Trial(predictor, sheets, source, table, index, predict_logits(predictor, sheets.grids), settings)
    all_known = all(defect is not None for defect in source.defects)
    tested: list[tuple[LabelClue, bool | None, Effect, dict[str, Any]]] = []
    for done, clue in enumerate(clues):
        # The model's own answer is the second leg, so that less is asked of the data than where they stand alone.
        data = True if clue.interval[0] > settings.margin else False if clue.interval[1] < LEAST else None
        asked = clue.interval[1] > 0 and clue.label in predictor.classes and clue.name not in UNTRIED
        effect, outcomes = trial.move(clue) if asked else (Effect(), {})
        tested.append((clue, data, effect, outcomes))
        progress("properties", done + 1, len(clues))
    moved = [k for k, (_, _, effect, _) in enumerate(tested) if effect.n]
    verdicts, corrected = decide_verdicts([tested[k][2] for k in moved], settings.tolerated)
    by_model = {k: (verdict, p) for k, verdict, p in zip(moved, verdicts, corrected, strict=True)}
    findings = []
    for k, (clue, data, effect, outcomes) in enumerate(tested):
        verdict, p = by_model.get(k, (TOO_FEW, 1.0))
        model = {FOR: True, AGAINST: False}.get(verdict)
        # What moves the model that much is not cleared by how weakly it goes with the label.
        legs = {"data": None if data is False and model else data, "model": model}
        if clue.label != CLEAR and not all_known and not clue.clue.made:
            legs["not the defect"] = None  # a person must look: nothing tells the defect from what goes with it
        findings.append(
            AuditFinding(
                **dict(effect),
                name=clue.name,
                verdict=FOR if all(legs.values()) else AGAINST if False in legs.values() else TOO_FEW,
                sentence=_describe_property(clue, effect, legs),
                p_corrected=p,
                legs=legs,
                outcomes=outcomes,
                data={
                    "label": clue.label,
                    "strength": clue.strength,
                    "interval": clue.interval,
                    "named": clue.named,
                    "n": clue.n,
                    "rows": [int(source.rows[i]) for i in clue.rows],
                    "where": clue.where,
                },
            )
        )
    # What cannot be changed in a picture can be no finding; marks are the question of the white-stain test.
    doubts = [finding.verdict for finding in findings if finding.name not in UNTRIED]
    limits = []
    if learnt is None:
        limits.append(
            "None of the images learnt from are here: what goes with the label was measured on those audited."
        )
    if loud := [f.name for f in findings if f.name in MARKS and f.legs["data"]]:
        limits.append(f"What {' and '.join(loud)} do to the model is asked by the white-stain test.")
    if any(f.name == "picture size" and f.legs["data"] for f in findings):
        limits.append("The size of the picture goes with the label, and cannot be changed to try what it does.")
    return build_report(
        "properties",
        combine_verdicts(doubts or [NOTHING]),
        sort_strongest_first(findings),
        predictor,
        sheets,
        settings,
        limits=limits,
    )


class _Tried(NamedTuple):
    """Images by position, and logits (N, 3, K) of each with the change and with both controls."""

    rows: Int64Array
    logits: Float32Array


@dataclass(frozen=True, eq=False)
class _Trial:
    """How a model answers to components put into pictures; `clean` are the logits (N, K) of the audited `sheets`."""

    predictor: Predictor
    sheets: Sheets
    source: Sheets
    table: pd.DataFrame  # clues of the source
    index: DatasetIndex
    clean: Float32Array
    settings: PropertySettings

    def move(self, clue: LabelClue) -> tuple[Effect, dict[str, Any]]:
        """How often the component moves images to the class, and taking it away moves carriers off it, over control."""
        k = self.predictor.classes.index(clue.label)
        preds = self.clean.argmax(axis=1)
        others = np.flatnonzero((preds != k) & self.sheets.lacks(clue.label))
        own = np.flatnonzero((preds == k) & (self.sheets.first_labels == clue.label))
        if clue.name in _IN_FILES:
            added, removed = self._compress(clue, others, own)
        else:
            added, removed = self._interchange(clue, others, own)
        turned = np.concatenate(
            [added.logits.argmax(axis=2) == k, removed.logits.argmax(axis=2) != k]  # (N, the change and its controls)
        )
        rows = np.concatenate([added.rows, removed.rows])
        effect = estimate_effect(
            turned[:, 0],
            dict(zip((WITHOUT, HIDDEN), turned[:, 1:].T, strict=True)),
            self.sheets.groups[rows],
            self.settings.tolerated,
            self.settings.seed,
            power=True,
        )
        seen = self.sheets.select(added.rows)
        shown = {"as it is": self.clean[added.rows], "changed": added.logits[:, 0], "control": added.logits[:, 1]}
        return effect, {name: count_outcomes(self.predictor, each, seen) for name, each in shown.items()}

    def _interchange(self, clue: LabelClue, others: Int64Array, own: Int64Array) -> tuple[_Tried, _Tried]:
        component = make_place(clue.where) if clue.where else COMPONENTS[clue.name]
        carriers = [self.source.grids[i] for i in clue.rows]
        taken = [component.take(self.source.grids[i], self._steel(self.source, i)) for i in clue.rows]
        if component.local:  # the same steel from elsewhere in the carrier hides as much, and shows no clue
            plain = [component.take(_turn_in(grid), np.ones(grid.shape, bool)) for grid in carriers]
        else:
            without = self._choose_non_carriers(clue)
            plain = [component.take(self.source.grids[i], self._steel(self.source, i)) for i in without]
        added = self._put(component, others, taken, plain)
        removed = self._put(component, self._find_carriers(clue, own), plain, taken)
        return added, removed

    def _put(self, component: Component, rows: Int64Array, taken: Sequence[Any], plain: Sequence[Any]) -> _Tried:
        def draw_pictures() -> Iterator[Grey]:
            for i in rows:
                grid, steel = self.sheets.grids[i], self._steel(self.sheets, i)
                changed, plainly = (
                    np.asarray(np.clip(component.put(grid, steel, parts[int(i) % len(parts)]), 0, 1), np.float32)
                    for parts in (taken, plain)
                )
                if component.local:  # a part that is pasted hides no defect that is on file
                    changed, plainly = np.where(steel, changed, grid), np.where(steel, plainly, grid)
                    hidden = plainly
                else:
                    hidden = np.where(self._regions[i], changed, grid)
                yield from (changed, plainly, hidden)

        return self._predict(rows, draw_pictures())

    def _compress(self, clue: LabelClue, others: Int64Array, own: Int64Array) -> tuple[_Tried, _Tried]:
        """Encode at the quality of the class; the control is noise of the same mean square."""
        there = [i for i in range(len(self.source)) if self.source.first_labels[i] != clue.label][:_DONORS]
        quality, usual = (
            int(np.median([estimate_jpeg_quality(self.index.image(int(self.source.rows[i])).grey()) for i in rows]))
            for rows in (clue.rows, there)
        )
        added = self._recode(others if quality < usual else others[:0], quality)
        removed = self._recode(own if usual < quality else own[:0], usual)
        return added, removed

    def _recode(self, rows: Int64Array, quality: int) -> _Tried:
        def draw_pictures() -> Iterator[Grey]:
            for i in rows:
                grey = self.index.image(int(self.sheets.rows[i])).grey()
                coded = compress(grey, quality)
                noise = np.random.default_rng([self.settings.seed, int(i)]).standard_normal(grey.shape)
                noisy = np.clip(grey + float(np.sqrt(((coded - grey) ** 2).mean())) * noise, 0, 1).astype(np.float32)
                grid = self.sheets.grids[i]
                changed, noised = (resize(image, *grid.shape) for image in (coded, noisy))
                yield from (changed, noised, np.where(self._regions[i], changed, grid))

        return self._predict(rows, draw_pictures())

    def _predict(self, rows: Int64Array, pictures: Iterator[Grey]) -> _Tried:
        logits = np.array(list(stream_logits(self.predictor, pictures)), np.float32)
        return _Tried(rows, logits.reshape(len(rows), 3, len(self.predictor.classes)))

    def _choose_non_carriers(self, clue: LabelClue) -> list[int]:
        """Images of the class with least of the clue, where they are like the others; else usual ones of the others."""
        values = self.table[clue.name].to_numpy(float)
        mine = self.source.first_labels == clue.label
        carried, usual = float(np.median(values[list(clue.rows)])), float(np.median(values[~mine]))
        away = np.abs(values - usual)
        plain = [i for i in np.argsort(away, kind="stable") if mine[i] and away[i] < abs(values[i] - carried)]
        return plain[:_DONORS] if len(plain) >= 3 else np.flatnonzero(~mine)[np.argsort(away[~mine])][:_DONORS].tolist()

    def _find_carriers(self, clue: LabelClue, rows: Int64Array) -> Int64Array:
        """Those of some audited images that carry the clue; none for a place, which no single number tells."""
        if clue.where or not len(rows):
            return rows[:0]
        values = self.table[clue.name].to_numpy(float)
        carried = float(np.median(values[list(clue.rows)]))
        usual = float(np.median(values[self.source.first_labels != clue.label]))
        seen = self._audited[clue.name].to_numpy(float)[rows]
        return rows[np.abs(seen - carried) < np.abs(seen - usual)]

    @cached_property
    def _regions(self) -> list[Mask]:
        """Where the defect of each audited image is, or where the model looks."""
        return find_regions(self.predictor, self.sheets, self.clean.argmax(axis=1))

    @cached_property
    def _audited(self) -> pd.DataFrame:
        return CLUE_TABLE.load_or_measure(self.index.select(self.sheets.rows))

    @staticmethod
    def _steel(sheets: Sheets, i: int) -> Mask:
        """What of a picture is no defect, as far as that is known; all of it where the defect leaves too little."""
        defect = sheets.defects[i]
        return np.ones(sheets.grids[i].shape, bool) if defect is None or defect.mean() > 0.9 else ~defect


def _turn_in(grid: Grey) -> Grey:
    """The picture with its middle at its border, and its border in the middle."""
    return np.roll(grid, [side // 2 for side in grid.shape], axis=(0, 1))


def _describe_property(clue: LabelClue, effect: Effect, legs: dict[str, bool | None]) -> str:
    parts = [clue.sentence]
    if effect.excess is not None:
        low, high = effect.interval
        parts.append(
            f"Put into others, or taken away, it turns {format_share(effect.flip_rate)} of {effect.n} images, the "
            f"control {format_share(effect.control_flip_rate)} (excess {format_difference(low)} to "
            f"{format_difference(high)})."
        )
    words = {True: "shown", False: "ruled out", None: "undecided"}
    parts.append(f"{', '.join(f'{leg}: {words[holds]}' for leg, holds in legs.items())}.".capitalize())
    return " ".join(parts)
