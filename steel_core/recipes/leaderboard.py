"""A leaderboard: every checkpoint and baseline on the same images of one data set, the best first.

An image that any of them has learnt from is counted for none, so all figures rest on the same images and differences
can be paired. What cannot be compared is listed with the reason.

Legend: N images, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core import metrics
from steel_core.audit.statistics import joint
from steel_core.baselines.base import BASELINES
from steel_core.data.base import cache_folder
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError, UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.inference import Predictor
from steel_core.metrics import EvaluationReport
from steel_core.models.checkpoint import WEIGHTS, Card, list_checkpoints
from steel_core.recipes.baselines import judge_by_baselines
from steel_core.recipes.compare import compare
from steel_core.recipes.evaluate import Evaluation, in_words_of, spreadsheet, stored_evaluation
from steel_core.recipes.figures import kept_paired
from steel_core.recipes.train import with_groups, with_groups_and_splits
from steel_core.recipes.training import Progress, Report
from steel_core.store.audits import AuditStore
from steel_core.types import SteelImage

Ask = Callable[[list[SteelImage]], object]
"""Predicts images; what it answers does not matter where it is timed."""

PARTS = ("test", "held-out")
"""Which images count: the test split, or everything that none of the compared has learnt from."""

FIGURES = {"accuracy": "Accuracy", "macro_recall": "Macro recall", "macro_f1": "F1", "auc": "AUC", "ece": "ECE"}
"""The figures of each row and their headings; less is better for ECE alone."""

CAUTION = (
    "The best was chosen on these very images, so on others its lead is likely to be smaller; where the interval of "
    "“behind the best” holds 0, these images cannot tell the two apart."
)

_BASELINE = " (baseline)"  # ends its name; a checkpoint may have that of a baseline
_MOST_LEARNT = 0.5  # who knows a larger share of the test split is left out, and not the images
_TIMED_IMAGES, _TIMED_ROUNDS = 16, 9


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best measured agreement of a checkpoint's maps with masks or boxes, from its card.

    Attributes:
        method: name of the explainer.
        data: what it was measured on.
        value: Dice, 0 to 1.
        low: of its 95 % interval.
        high: of its 95 % interval.
        n: images.
        lift: how many times the Dice that the same area would reach anywhere; None if it was not measured.
    """

    method: str
    data: str
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
    """

    name: str
    title: str
    evaluation: Evaluation
    speed: float
    size: int | None = None
    explanation: Explanation | None = None
    shortcut: Shortcut | None = None
    behind: Behind | None = None

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
        part: one of `PARTS`.
        classes: what everybody tells apart.
        entries: the rows.
        absent: why a checkpoint is not among them, by name.
        remarks: what a reader must know about the images, one sentence each.
    """

    data: str
    part: str
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
        part = (
            "the test split of"
            if self.part == "test"
            else "those files that no compared checkpoint has learnt from (copies of them are not looked for) in"
        )
        return f"{self.n:,} images of {part} {self.data}, as {self.effective:.0f} independent ones"

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return {
            "data": self.data,
            "part": self.part,
            "classes": list(self.classes),
            "n": self.n,
            "effective": self.effective,
            "best": self.entries[0].name,
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
                ("maps_dice", entry.explanation, ("value", "low", "high", "n", "lift", "method", "data")),
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
        """The rows in words, for people: heading -> cell."""
        return [_cells(entry) for entry in self.entries]

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


def leaderboard(
    index: DatasetIndex,
    names: Sequence[str] | None = None,
    part: str = "test",
    *,
    baselines: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    report: Report = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Leaderboard:
    """Compare checkpoints, and baselines where asked, on the images that none of them has learnt from.

    Stored evaluations are used again. Groups of near-duplicates and splits are made where the data set has none, as
    `train` makes them with seed 0.

    Args:
        index: the data set.
        names: of checkpoints, or their folders; all that can be found if None. Those with the classes of most of them
            that have words for every label are compared; "clear" and "defect" stand for all types where they must.
        part: one of `PARTS`.
        baselines: whether to learn every baseline on the data set's train split, too.
        device: "auto", "cpu", "cuda" or "mps".
        folder: where evaluations are kept; in the user's cache if None.
        report: receives lines about the course.
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        UsageError: `part` is unknown.
        DataError: nothing can be compared; the message says why.
    """
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    folder = folder or cache_folder() / "evaluations"
    checkpoints, absent = _loaded(names, device)
    classes = _classes_compared(index, {name: each.predictor.card for name, each in checkpoints.items()}, absent)
    if not (classes or baselines):
        raise DataError(_nothing(absent))
    classes = classes or index.classes
    index = in_words_of(index, classes)
    if baselines or part == "test":
        told, leak = with_groups_and_splits(index, 0, report, progress)
    else:
        told, leak = with_groups(index, report, progress), ""
    rows = _candidates(told, part, baselines)

    found: dict[str, Evaluation] = {}
    ask: dict[str, Ask] = {}
    for name, each in checkpoints.items():
        if name not in absent:
            bar = partial(progress, f"evaluating {name}")
            found[name], ask[name] = stored_evaluation(each.predictor, index, folder, bar), each.predictor.predict
    if baselines:
        for kind, (evaluation, judge) in judge_by_baselines(told, rows, classes, folder, progress).items():
            name = f"{kind}{_BASELINE}"
            found[name], ask[name] = evaluation, judge
    learnt = {name: _learnt(each.predictor.card) for name, each in checkpoints.items()}
    most = _MOST_LEARNT if part == "test" else 1.0
    counted, remarks = _shared(found, learnt, most, told, rows, absent)
    if not counted:
        raise DataError(_nothing(absent))

    speeds = _speeds({name: ask[name] for name in counted}, checkpoints, _some(told, counted), progress)
    audited = _audited({each.predictor.hash: each.predictor.card for each in checkpoints.values()})
    entries = [
        _with_facts(
            Entry(name, "", replace(evaluation, part=part, checkpoint=name), speeds[name]),
            checkpoints.get(name),
            index.spec.name,
            audited,
        )
        for name, evaluation in counted.items()
    ]
    entries.sort(key=lambda entry: (-entry.report.macro_recall, entry.size or 0))
    best = entries[0].evaluation
    ranked = [entries[0], *(replace(entry, behind=_behind(best, entry.evaluation, folder)) for entry in entries[1:])]
    silent = [name for name in counted if name in checkpoints and not learnt[name]]
    if silent:
        remarks.append(f"{', '.join(silent)} does not tell what it learnt from: some of these images may be among it.")
    said = dict.fromkeys(filter(None, (leak, *remarks, *best.remarks)))
    return Leaderboard(index.spec.title, part, classes, tuple(ranked), absent, tuple(said))


class _Checkpoint(NamedTuple):
    folder: Path
    predictor: Predictor


def _loaded(names: Sequence[str] | None, device: str) -> tuple[dict[str, _Checkpoint], dict[str, str]]:
    """The checkpoints by name, and why others cannot be compared."""
    known = list_checkpoints()
    found, absent = {}, {}
    for given in known if names is None else names:
        folder = known.get(given, Path(given))
        try:
            predictor = Predictor.load(folder, device)
        except SteelError as error:
            absent[folder.name] = str(error)
            continue
        if predictor.card.multi_label:
            absent[folder.name] = "it names several classes an image, which has other figures"
        else:
            found[folder.name] = _Checkpoint(folder, predictor)
    return found, absent


def _classes_compared(index: DatasetIndex, cards: Mapping[str, Card], absent: dict[str, str]) -> tuple[str, ...]:
    """The classes of most checkpoints that have words for every label; why the others do not compare goes to `absent`.

    Checkpoints that know the labels as they are come before those that know "clear" and "defect" alone.
    """
    fits: Counter[frozenset[str]] = Counter()
    for name, card in cards.items():
        worded = in_words_of(index, card.classes)
        if unknown := sorted(set(worded.classes) - set(card.classes)):
            absent[name] = f"it has no words for {', '.join(unknown)}; it knows {', '.join(card.classes)}"
        else:
            fits[frozenset(card.classes)] += 1
    if not fits:
        return ()
    chosen = max(fits, key=lambda known: (set(index.classes) <= known, fits[known]))
    for name, card in cards.items():
        if name not in absent and set(card.classes) != chosen:
            absent[name] = f"it tells apart {', '.join(card.classes)}, the others {', '.join(sorted(chosen))}"
    return next(card.classes for name, card in cards.items() if name not in absent)


def _candidates(told: DatasetIndex, part: str, baselines: bool) -> npt.NDArray[np.int64]:
    """Rows that may count: the test split; or all, but those that the baselines learn from."""
    split = told.table["split"].to_numpy()
    return np.flatnonzero(split == "test" if part == "test" else (split != "train") | (not baselines))


def _learnt(card: Card) -> set[str]:
    """Short hashes of the images that a checkpoint has learnt from or was tuned on; see `Card.part_of`."""
    files = card.split.get("files", {})
    return {*files.get("train", ()), *files.get("val", ())}


def _shared(
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


def _some(told: DatasetIndex, counted: Mapping[str, Evaluation]) -> list[SteelImage]:
    """A few of the images that count."""
    rows = next(iter(counted.values())).table["row"].to_numpy()
    return [told.image(int(row)) for row in np.random.default_rng(0).permutation(rows)[:_TIMED_IMAGES]]


def _speeds(
    contenders: Mapping[str, Ask], yardsticks: Container[str], images: list[SteelImage], progress: Progress
) -> dict[str, float]:
    """Images a second of each as a share of the fastest yardstick's, in rounds in which all take turns.

    The quickest round of each counts: what makes one slower is other work on the machine.
    """
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


def _with_facts(entry: Entry, checkpoint: _Checkpoint | None, data: str, audited: Mapping[str, Shortcut]) -> Entry:
    """An entry with what the checkpoint's files, its card and the audits tell; None stands for a baseline."""
    if checkpoint is None:
        return replace(entry, title=BASELINES[entry.name.removesuffix(_BASELINE)].info.title)
    card = checkpoint.predictor.card
    return replace(
        entry,
        title=card.title,
        size=(checkpoint.folder / WEIGHTS).stat().st_size,
        explanation=_explanation(card, data),
        shortcut=audited.get(checkpoint.predictor.hash),
    )


def _explanation(card: Card, data: str) -> Explanation | None:
    """The method with the highest Dice, measured on this data set if it was, else on the first that has one."""
    for told in sorted(card.quality.values(), key=lambda quality: quality.get("data") != data):
        dice = {
            method: figures["dice"]
            for method, figures in told["methods"].items()
            if "dice" in figures and figures["dice"]["low"] is not None
            and method in EXPLAINERS and not EXPLAINERS[method].info.control
        }  # fmt: skip
        if dice:
            method = max(dice, key=lambda name: dice[name]["value"])
            facts = {key: dice[method][key] for key in ("value", "low", "high", "n")}
            return Explanation(method, str(told.get("data", "")), **facts, lift=dice[method].get("lift"))
    return None


def _audited(cards: Mapping[str, Card]) -> dict[str, Shortcut]:
    """One verdict of the newest audit of each kind, for each checkpoint by its hash: a later, easier one hides none.

    Where no white stain was tried here, the ledger of a cure tells of it, before or after.

    Args:
        cards: those that may hold a ledger, by the hash of the checkpoint.
    """
    newest: dict[str, dict[str, tuple[str, str]]] = {}
    for run in AuditStore().history()[0]:
        for report in run.reports:
            said = (report["verdict"], f"audit {run.name}")
            newest.setdefault(report["model_hash"], {}).setdefault(report["audit"], said)
    for cured, card in cards.items():
        ledger = card.training.get("cure", {})
        for of, when in ((cured, "after"), (ledger.get("of_hash"), "before")):
            if of and (verdict := ledger.get("audit", {}).get(when, {}).get("verdict")):
                newest.setdefault(of, {}).setdefault("white-stain", (verdict, "card"))
    return {
        of: Shortcut(
            joint([verdict for verdict, _ in kinds.values()]),
            tuple(sorted(kinds)),
            ", ".join(dict.fromkeys(source for _, source in kinds.values())),
        )
        for of, kinds in newest.items()
    }


def _behind(best: Evaluation, other: Evaluation, folder: Path) -> Behind:
    figures = compare(best, other, paired=partial(kept_paired, folder=folder)).figures.set_index("figure")
    return Behind(*figures.loc["macro_recall", ["difference", "low", "high"]].to_numpy(float).tolist())


def _nothing(absent: Mapping[str, str]) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in list(absent.items())[:3])
    return f"nothing can be compared on these images ({why or 'there is no checkpoint'})"


def _cells(entry: Entry) -> dict[str, str]:
    report, maps, behind = entry.report, entry.explanation, entry.behind
    figures = {}
    for name, heading in FIGURES.items():
        value, interval = getattr(report, name), report.intervals[name]
        figures[heading] = "–" if value is None or interval is None else _figure(value, *interval)
    return {
        "Model": entry.name,
        **figures,
        "Behind the best": "the best" if behind is None else str(behind),
        "Size": "–" if entry.size is None else f"{entry.size / 1e6:.1f} MB",
        "Speed": f"{entry.speed:.2f}" if entry.speed < 10 else f"{entry.speed:.0f}",
        "Maps, Dice": "–" if maps is None else f"{_figure(maps.value, maps.low, maps.high, 2)}, {maps.method} on "
        f"{maps.data}, n {maps.n}" + ("" if maps.lift is None else f", {maps.lift:.1f} × chance"),
        "Shortcut": "–" if entry.baseline else "not audited" if entry.shortcut is None else
        f"{entry.shortcut.verdict} ({', '.join(entry.shortcut.asked)})",
    }  # fmt: skip


def _figure(value: float, low: float, high: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
