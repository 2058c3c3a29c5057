"""What a leaderboard is: rows of figures on the same images, the best first, and what every leaderboard shares."""

import hashlib
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.evaluation.compare import compare
from steel_core.evaluation.evaluation import Evaluation, table_to_csv
from steel_core.evaluation.store import cached_paired_estimates
from steel_core.metrics import EvaluationReport
from steel_core.progress import Progress
from steel_core.records import Record
from steel_core.types import Int64Array, SteelImage

PredictFunction = Callable[[list[SteelImage]], object]
"""Predicts images; what it answers does not matter where it is timed."""
ESTIMATES = {"accuracy": "Accuracy", "macro_recall": "Macro recall", "macro_f1": "F1", "auc": "AUC", "ece": "ECE"}
"""The figures of each row and their headings; less is better for ECE alone."""

BASELINE = " (baseline)"
"""Ends the name of a baseline: a checkpoint may have the same."""

SEVERAL = "it names several classes an image, which has other figures"

CAUTION = (
    "The best was chosen on these very images, so on others its lead is likely to be smaller; where the interval of "
    "“behind the best” holds 0, these images cannot tell the two apart."
)

BEST_OF_SEVERAL = (
    "“Best map” is the method with the highest Dice on this data set, chosen on the very images it was measured on."
)

_NOTHING = "–"  # a cell that has nothing to say
_TIMED_IMAGES, _TIMED_ROUNDS = 16, 9


class Explanation(Record):
    """The best measured agreement of a checkpoint's maps with masks or boxes of the data set, from its card."""

    method: str = Field(description="Name of the explainer.")
    value: float = Field(description="Dice, 0 to 1.")
    low: float = Field(description="Of its 95 % interval.")
    high: float = Field(description="Of its 95 % interval.")
    n: int = Field(description="Images.")
    lift: float | None = Field(description="How many times the Dice that the same area would reach anywhere.")


class Shortcut(Record):
    """What the newest audit of a checkpoint says, or the ledger of a cure."""

    verdict: str = Field(description="As in steel_core.audit.statistics.")
    asked: tuple[str, ...] = Field(description="Names of the audits.")
    source: str = Field(description="audit and its run, or card for a ledger.")


class Gap(Record):
    """Macro recall less that of the best, on the same images, with its paired 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """As in "-0.444 (-0.532 to -0.313)"."""
        shown = (f"{round(number, 3) + 0.0:+.3f}" for number in (self.difference, self.low, self.high))
        return "{} ({} to {})".format(*shown)


@dataclass(frozen=True, eq=False)
class Entry:
    """One row.

    Attributes:
        speed: images a second as a share of the fastest checkpoint's, all timed in turn in one run.
        size: bytes of the weights; None for a baseline, which is learnt anew.
        rounds: how many models stand behind it: more than one in a cross-validation, which no audit looks at.
    """

    name: str
    title: str
    evaluation: Evaluation
    speed: float
    size: int | None = None
    explanation: Explanation | None = None
    shortcut: Shortcut | None = None
    behind: Gap | None = None
    rounds: int = 1

    @property
    def baseline(self) -> bool:
        return self.size is None

    @property
    def report(self) -> EvaluationReport:
        report = self.evaluation.report
        assert isinstance(report, EvaluationReport)
        return report

    def to_json(self) -> dict[str, Any]:
        kept = {"n", "groups", *ESTIMATES, "recall"}
        figures = {name: value for name, value in self.report.to_json().items() if name in kept}
        return {
            "name": self.name,
            "title": self.title,
            "baseline": self.baseline,
            **figures,
            "intervals": self.report.intervals,
            "behind_best": self.behind and self.behind.to_json(),
            "size": self.size,
            "speed": self.speed,
            "explanation": self.explanation and self.explanation.to_json(),
            "shortcut": self.shortcut and self.shortcut.to_json(),
        }


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All that were compared, the highest macro recall first, and why others are `absent`."""

    index: DatasetIndex
    part: str
    counted: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    absent: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def n(self) -> int:
        """Images that count, the same for all."""
        return self.entries[0].report.n

    @property
    def effective(self) -> float:
        """The independent observations among them (Kish)."""
        return metrics.effective_observations(self.entries[0].evaluation.groups)

    @property
    def about(self) -> str:
        return f"{self.n:,} images {self.counted}, as {self.effective:.0f} independent ones"

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.index.spec.title,
            "part": self.part,
            "classes": list(self.classes),
            "n": self.n,
            "effective": self.effective,
            "best": self.entries[0].name,
            "caution": CAUTION,
            "rows": [entry.to_json() for entry in self.entries],
            "absent": self.absent,
            "remarks": list(self.remarks),
        }

    def table(self) -> pd.DataFrame:
        """The rows in numbers: each figure with low and high, then what else is known of each."""
        rows = []
        for entry in self.entries:
            row: dict[str, Any] = {"name": entry.name, "title": entry.title, "baseline": entry.baseline}
            for name in ESTIMATES:
                low, high = entry.report.intervals[name] or (None, None)
                row |= {name: getattr(entry.report, name), f"{name}_low": low, f"{name}_high": high}
            row |= {"n": entry.report.n, "groups": entry.report.groups}
            for prefix, facts, keys in (
                ("behind_best", entry.behind, ("difference", "low", "high")),
                ("best_map_dice", entry.explanation, ("value", "low", "high", "n", "lift", "method")),
            ):
                row |= {f"{prefix}_{key}": getattr(facts, key) if facts else None for key in keys}
            row |= {"size": entry.size, "speed": entry.speed}
            row["shortcut"] = entry.shortcut.verdict if entry.shortcut else ""
            rows.append(row)
        return pd.DataFrame(rows)

    def to_csv(self) -> str:
        """The rows for a spreadsheet; no cell is run as a formula."""
        return table_to_csv(self.table())

    def cells(self) -> list[dict[str, str]]:
        """The rows in words, for people: heading -> cell; without columns that have nothing to say of any row."""
        rows = [_describe_entry(entry) for entry in self.entries]
        heads = [head for head in rows[0] if any(row[head] != _NOTHING for row in rows)]
        return [{head: row[head] for head in heads} for row in rows]

    def markdown(self) -> str:
        """The table as Markdown, with what was counted and what is missing below it."""
        rows = self.cells()
        heads = list(rows[0])
        lines = [heads, ["---"] * len(heads), *([row[head].replace("|", "\\|") for head in heads] for row in rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = [f"{self.about}; in brackets 95 % intervals.", CAUTION, *self.remarks]
        return f"{table}\n\n{' '.join(notes)}" + "".join(
            f"\nNot compared: {name}, {reason}." for name, reason in self.absent.items()
        )

    def text(self) -> str:
        rows = self.cells()
        widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in rows[0]}
        lines = ["  ".join(f"{head:{width}}" for head, width in widths.items()).rstrip()]
        lines += ["  ".join(f"{row[head]:{width}}" for head, width in widths.items()).rstrip() for row in rows]
        absent = [f"not compared: {name}: {reason}" for name, reason in self.absent.items()]
        return "\n".join([*lines, f"{self.about}; in brackets 95 % intervals.", CAUTION, *self.remarks, *absent])


def keep_shared_images(
    contenders: Mapping[str, tuple[Evaluation, PredictFunction]],
    learnt: Mapping[str, set[str]],
    most: float,
    index: DatasetIndex,
    rows: Int64Array,
    absent: dict[str, str],
) -> tuple[dict[str, Evaluation], list[str]]:
    """What each said of the candidates that all could read and none has learnt from, with the groups of `index`.

    A checkpoint that has learnt from a larger share of the candidates than `most`, or from all, goes to `absent`.
    """
    tables = {}
    for name, (evaluation, _) in contenders.items():
        table = evaluation.labelled.table
        table = table[table["row"].isin(rows)]
        learnt_here = table["image_sha256"].str[:16].isin(learnt.get(name, set()))
        if not len(table):
            absent[name] = "no labelled image of this part could be read"
        elif learnt_here.mean() > most or learnt_here.all():
            absent[name] = f"{int(learnt_here.sum())} of the {len(table)} images served to train or tune it"
        else:
            tables[name] = table.assign(learnt=learnt_here)
    if not tables:
        return {}, []
    excluded = set.union(*(set(table["row"][table["learnt"]]) for table in tables.values()))
    kept = sorted(set.intersection(*(set(table["row"]) for table in tables.values())) - excluded)
    groups = index.table["group"].to_numpy()
    counted = {
        name: replace(
            contenders[name][0],
            table=table.drop(columns="learnt").set_index("row", drop=False).loc[kept]
            .assign(group=groups[kept]).reset_index(drop=True),
            data_key=hashlib.sha256(f"{contenders[name][0].data_key} {kept}".encode()).hexdigest(),  # fewer rows
            left_out=(),
        )
        for name, table in tables.items()
    }  # fmt: skip
    if not kept:
        absent |= dict.fromkeys(tables, "each image served to train or tune it or another one")
        return {}, []
    by = [name for name, table in tables.items() if table["learnt"].any()]
    remark = f"{len(excluded)} images served to train or tune {', '.join(by)} and are counted for nobody."
    return counted, [remark] if by else []


def time_predictions(
    contenders: Mapping[str, PredictFunction],
    yardsticks: Container[str],
    index: DatasetIndex,
    rows: Int64Array,
    progress: Progress,
) -> dict[str, float]:
    """Images a second of each as a share of the fastest yardstick's, in rounds in which all take turns.

    The quickest round of each counts: what makes one slower is other work on the machine.
    """
    images = [index.image(int(row)) for row in np.random.default_rng(0).permutation(rows)[:_TIMED_IMAGES]]
    for predict in contenders.values():
        predict(images)  # what is made at the first call is no part of the speed
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(_TIMED_ROUNDS):
        progress("timing", turn, _TIMED_ROUNDS)
        for name, predict in contenders.items():
            began = time.perf_counter()
            predict(images)
            seconds[name].append(time.perf_counter() - began)
    progress("timing", _TIMED_ROUNDS, _TIMED_ROUNDS)
    best = {name: min(taken) for name, taken in seconds.items()}
    fastest = min((best[name] for name in best if name in yardsticks), default=min(best.values()))
    return {name: fastest / taken for name, taken in best.items()}


def rank_entries(entries: Iterable[Entry], folder: Path) -> tuple[Entry, ...]:
    """By falling macro recall, each with its distance from the best, which is counted once and kept in `folder`."""
    best, *others = sorted(entries, key=lambda entry: (-entry.report.macro_recall, entry.size or 0))
    return best, *(replace(entry, behind=_measure_gap(best.evaluation, entry.evaluation, folder)) for entry in others)


def _measure_gap(best: Evaluation, other: Evaluation, folder: Path) -> Gap:
    comparison = compare(best, other, paired=partial(cached_paired_estimates, folder=folder))
    row = comparison.estimates.set_index("figure").loc["macro_recall", ["difference", "low", "high"]]
    difference, low, high = row.to_numpy(float).tolist()
    return Gap(difference=difference, low=low, high=high)


def _describe_entry(entry: Entry) -> dict[str, str]:
    report, maps, behind = entry.report, entry.explanation, entry.behind
    estimates = {}
    for name, heading in ESTIMATES.items():
        value, interval = getattr(report, name), report.intervals[name]
        estimates[heading] = _NOTHING if value is None or interval is None else _with_interval(value, *interval)
    return {
        "Model": entry.name,
        **estimates,
        "Behind the best": "the best" if behind is None else str(behind),
        "Size": _NOTHING if entry.size is None else f"{entry.size / 1e6:.1f} MB",
        "Speed": f"{entry.speed:.2f}" if entry.speed < 10 else f"{entry.speed:.0f}",
        "Best map, Dice": _NOTHING if maps is None else
        f"{_with_interval(maps.value, maps.low, maps.high, 2)}, {maps.method}, n {maps.n}"
        + ("" if maps.lift is None else f", {maps.lift:.1f} × chance"),
        "Shortcut": _NOTHING if entry.baseline or entry.rounds > 1 else "not audited" if entry.shortcut is None else
        f"{entry.shortcut.verdict} ({', '.join(entry.shortcut.asked)})",
    }  # fmt: skip


def _with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
