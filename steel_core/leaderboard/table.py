"""What a leaderboard is: rows of figures on the same images, the best first, and what every leaderboard shares.

Legend: N images, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.evaluation.compare import compare
from steel_core.evaluation.estimates import kept_paired
from steel_core.evaluation.evaluate import Evaluation, spreadsheet
from steel_core.metrics import EvaluationReport
from steel_core.progress import Progress
from steel_core.types import SteelImage

Ask = Callable[[list[SteelImage]], object]
"""Predicts images; what it answers does not matter where it is timed."""
FIGURES = {"accuracy": "Accuracy", "macro_recall": "Macro recall", "macro_f1": "F1", "auc": "AUC", "ece": "ECE"}
"""The figures of each row and their headings; less is better for ECE alone."""

BASELINE = " (baseline)"
"""Ends the name of a baseline: a checkpoint may have the same."""

SEVERAL = "it names several classes an image, which has other figures"
"""Why a multi-label checkpoint is not compared."""

CAUTION = (
    "The best was chosen on these very images, so on others its lead is likely to be smaller; where the interval of "
    "“behind the best” holds 0, these images cannot tell the two apart."
)

BEST_OF_SEVERAL = (
    "“Best map” is the method with the highest Dice on this data set, chosen on the very images it was measured on."
)

_NOTHING = "–"  # a cell that has nothing to say
_TIMED_IMAGES, _TIMED_ROUNDS = 16, 9


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best measured agreement of a checkpoint's maps with masks or boxes of the data set, from its card.

    Attributes:
        method: name of the explainer.
        value: Dice, 0 to 1.
        low: of its 95 % interval.
        high: of its 95 % interval.
        n: images.
        lift: how many times the Dice that the same area would reach anywhere; None if it was not measured.
    """

    method: str
    value: float
    low: float
    high: float
    n: int
    lift: float | None


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What the newest audit of a checkpoint says, or the ledger of a cure.

    Attributes:
        verdict: as in `steel_core.audit.statistics`.
        asked: names of the audits.
        source: "audit" and its run, or "card" for a ledger.
    """

    verdict: str
    asked: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Behind:
    """Macro recall less that of the best, on the same images, with its paired 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """As in "-0.444 (-0.532 to -0.313)"."""
        shown = (f"{round(number, 3) + 0.0:+.3f}" for number in (self.difference, self.low, self.high))
        return "{} ({} to {})".format(*shown)


@dataclass(frozen=True, eq=False)
class Entry:
    """One row.

    Attributes:
        name: of the checkpoint or baseline.
        title: for people.
        evaluation: what it said of the images that count.
        speed: images a second as a share of the fastest checkpoint's, all timed in turn in one run.
        size: bytes of the weights; None for a baseline, which is learnt anew.
        explanation: None where the maps were not measured.
        shortcut: None where no audit is known.
        behind: None for the best.
        rounds: how many models stand behind it: more than one in a cross-validation, which no audit looks at.
    """

    name: str
    title: str
    evaluation: Evaluation
    speed: float
    size: int | None = None
    explanation: Explanation | None = None
    shortcut: Shortcut | None = None
    behind: Behind | None = None
    rounds: int = 1

    @property
    def baseline(self) -> bool:
        """Whether it is no checkpoint."""
        return self.size is None

    @property
    def report(self) -> EvaluationReport:
        """Its figures with their intervals."""
        found = self.evaluation.report
        assert isinstance(found, EvaluationReport)
        return found

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        kept = ("n", "groups", *FIGURES, "recall")
        figures = {name: value for name, value in self.report.to_json().items() if name in kept}
        return {
            "name": self.name,
            "title": self.title,
            "baseline": self.baseline,
            **figures,
            "intervals": self.report.intervals,
            "behind_best": None if self.behind is None else asdict(self.behind),
            "size": self.size,
            "speed": self.speed,
            "explanation": None if self.explanation is None else asdict(self.explanation),
            "shortcut": None if self.shortcut is None else asdict(self.shortcut),
        }


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All that were compared, the highest macro recall first.

    Attributes:
        data: title of the data set.
        told: the data set with the groups and splits that were used.
        part: which images count, in one or two words.
        counted: the same as part of a sentence.
        classes: what everybody tells apart.
        entries: the rows.
        absent: why a checkpoint is not among them, by name.
        remarks: what a reader must know about the images, one sentence each.
    """

    data: str
    told: DatasetIndex
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
        """What was counted, in one sentence."""
        return f"{self.n:,} images {self.counted}, as {self.effective:.0f} independent ones"

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return {
            "data": self.data,
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
            for figure in FIGURES:
                low, high = entry.report.intervals[figure] or (None, None)
                row |= {figure: getattr(entry.report, figure), f"{figure}_low": low, f"{figure}_high": high}
            row |= {"n": entry.report.n, "groups": entry.report.groups}
            for name, facts, keys in (
                ("behind_best", entry.behind, ("difference", "low", "high")),
                ("best_map_dice", entry.explanation, ("value", "low", "high", "n", "lift", "method")),
            ):
                row |= {f"{name}_{key}": getattr(facts, key) if facts else None for key in keys}
            row |= {"size": entry.size, "speed": entry.speed}
            row["shortcut"] = entry.shortcut.verdict if entry.shortcut else ""
            rows.append(row)
        return pd.DataFrame(rows)

    def to_csv(self) -> str:
        """The rows for a spreadsheet; no cell is run as a formula."""
        return spreadsheet(self.table())

    def cells(self) -> list[dict[str, str]]:
        """The rows in words, for people: heading -> cell; without columns that have nothing to say of any row."""
        rows = [_cells(entry) for entry in self.entries]
        told = [head for head in rows[0] if any(row[head] != _NOTHING for row in rows)]
        return [{head: row[head] for head in told} for row in rows]

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
        """The table for a terminal."""
        rows = self.cells()
        widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in rows[0]}
        lines = ["  ".join(f"{head:{width}}" for head, width in widths.items()).rstrip()]
        lines += ["  ".join(f"{row[head]:{width}}" for head, width in widths.items()).rstrip() for row in rows]
        absent = [f"not compared: {name}: {reason}" for name, reason in self.absent.items()]
        return "\n".join([*lines, f"{self.about}; in brackets 95 % intervals.", CAUTION, *self.remarks, *absent])


def shared(
    found: Mapping[str, Evaluation],
    learnt: Mapping[str, set[str]],
    most: float,
    told: DatasetIndex,
    rows: npt.NDArray[np.int64],
    absent: dict[str, str],
) -> tuple[dict[str, Evaluation], list[str]]:
    """What each said of the candidates that all could read and none has learnt from, with the groups of `told`.

    A checkpoint that has learnt from a larger share of the candidates than `most`, or from all, goes to `absent`.
    """
    tables = {}
    for name, evaluation in found.items():
        table = evaluation.labelled.table
        table = table[table["row"].isin(rows)]
        knows = table["image_sha256"].str[:16].isin(learnt.get(name, set()))
        if not len(table):
            absent[name] = "no labelled image of this part could be read"
        elif knows.mean() > most or knows.all():
            absent[name] = f"{int(knows.sum())} of the {len(table)} images served to train or tune it"
        else:
            tables[name] = table.assign(learnt=knows)
    if not tables:
        return {}, []
    known = set.union(*(set(table["row"][table["learnt"]]) for table in tables.values()))
    kept = sorted(set.intersection(*(set(table["row"]) for table in tables.values())) - known)
    groups = told.table["group"].to_numpy()
    counted = {
        name: replace(
            found[name],
            table=table.drop(columns="learnt").set_index("row", drop=False).loc[kept]
            .assign(group=groups[kept]).reset_index(drop=True),
            data_key=hashlib.sha256(f"{found[name].data_key} {kept}".encode()).hexdigest(),  # fewer rows, other figures
            left_out=(),
        )
        for name, table in tables.items()
    }  # fmt: skip
    if not kept:
        absent |= dict.fromkeys(tables, "each image served to train or tune it or another one")
        return {}, []
    by = [name for name, table in tables.items() if table["learnt"].any()]
    remarks = [f"{len(known)} images served to train or tune {', '.join(by)} and are counted for nobody."] if by else []
    return counted, remarks


def speeds(
    contenders: Mapping[str, Ask],
    yardsticks: Container[str],
    index: DatasetIndex,
    rows: npt.NDArray[np.int64],
    progress: Progress,
) -> dict[str, float]:
    """Images a second of each as a share of the fastest yardstick's, in rounds in which all take turns.

    The quickest round of each counts: what makes one slower is other work on the machine.

    Args:
        contenders: what predicts.
        yardsticks: names of the networks.
        index: the data set.
        rows: of images, some of which are predicted.
        progress: receives what is being done, how much is done, and of how much.
    """
    images = [index.image(int(row)) for row in np.random.default_rng(0).permutation(rows)[:_TIMED_IMAGES]]
    for ask in contenders.values():
        ask(images)  # what is made at the first call is no part of the speed
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(_TIMED_ROUNDS):
        progress("timing", turn, _TIMED_ROUNDS)
        for name, ask in contenders.items():
            began = time.perf_counter()
            ask(images)
            seconds[name].append(time.perf_counter() - began)
    progress("timing", _TIMED_ROUNDS, _TIMED_ROUNDS)
    best = {name: min(taken) for name, taken in seconds.items()}
    fastest = min((best[name] for name in best if name in yardsticks), default=min(best.values()))
    return {name: fastest / taken for name, taken in best.items()}


def ranked(entries: Iterable[Entry], folder: Path) -> tuple[Entry, ...]:
    """By falling macro recall, each with its distance from the best, which is counted once and kept in `folder`."""
    best, *others = sorted(entries, key=lambda entry: (-entry.report.macro_recall, entry.size or 0))
    return best, *(replace(entry, behind=_behind(best.evaluation, entry.evaluation, folder)) for entry in others)


def _behind(best: Evaluation, other: Evaluation, folder: Path) -> Behind:
    figures = compare(best, other, paired=partial(kept_paired, folder=folder)).figures.set_index("figure")
    return Behind(*figures.loc["macro_recall", ["difference", "low", "high"]].to_numpy(float).tolist())


def _cells(entry: Entry) -> dict[str, str]:
    report, maps, behind = entry.report, entry.explanation, entry.behind
    figures = {}
    for name, heading in FIGURES.items():
        value, interval = getattr(report, name), report.intervals[name]
        figures[heading] = _NOTHING if value is None or interval is None else _figure(value, *interval)
    return {
        "Model": entry.name,
        **figures,
        "Behind the best": "the best" if behind is None else str(behind),
        "Size": _NOTHING if entry.size is None else f"{entry.size / 1e6:.1f} MB",
        "Speed": f"{entry.speed:.2f}" if entry.speed < 10 else f"{entry.speed:.0f}",
        "Best map, Dice": _NOTHING if maps is None else
        f"{_figure(maps.value, maps.low, maps.high, 2)}, {maps.method}, n {maps.n}"
        + ("" if maps.lift is None else f", {maps.lift:.1f} × chance"),
        "Shortcut": _NOTHING if entry.baseline or entry.rounds > 1 else "not audited" if entry.shortcut is None else
        f"{entry.shortcut.verdict} ({', '.join(entry.shortcut.asked)})",
    }  # fmt: skip


def _figure(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
