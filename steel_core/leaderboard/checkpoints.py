"""A leaderboard: every checkpoint and baseline on the same images of one data set, the best first.

An image that any of them has learnt from is counted for none, so all figures rest on the same images and differences
can be paired. What cannot be compared is listed with the reason.

Legend: N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from steel_core.audit.statistics import joint
from steel_core.baselines.base import BASELINES
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError, UsageError
from steel_core.evaluation.evaluate import Evaluation, in_words_of, stored_evaluation
from steel_core.explain.base import EXPLAINERS
from steel_core.files import cache_folder
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.baselines import judge_by_baselines
from steel_core.leaderboard.table import (
    BASELINE,
    BEST_OF_SEVERAL,
    SEVERAL,
    Ask,
    Entry,
    Explanation,
    Leaderboard,
    Shortcut,
    ranked,
    shared,
    speeds,
)
from steel_core.models.checkpoint import WEIGHTS, Card, list_checkpoints
from steel_core.progress import Progress, no_progress
from steel_core.store.audits import AuditStore
from steel_core.training.fit import Report
from steel_core.training.train import with_groups, with_groups_and_splits

PARTS = ("test", "held-out")
"""Which images count: the test split, or everything that none of the compared has learnt from."""

_COUNTED = {
    "test": "of the test split of",
    "held-out": "of those files that no compared checkpoint has learnt from (copies of them are not looked for) in",
}
_MOST_LEARNT = 0.5  # who knows a larger share of the test split is left out, and not the images


def leaderboard(
    index: DatasetIndex,
    names: Sequence[str] | None = None,
    part: str = "test",
    *,
    baselines: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    report: Report = lambda _: None,
    progress: Progress = no_progress,
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
            name = f"{kind}{BASELINE}"
            found[name], ask[name] = evaluation, judge
    learnt = {name: _learnt(each.predictor.card) for name, each in checkpoints.items()}
    most = _MOST_LEARNT if part == "test" else 1.0
    counted, remarks = shared(found, learnt, most, told, rows, absent)
    if not counted:
        raise DataError(_nothing(absent))

    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = speeds({name: ask[name] for name in counted}, checkpoints, told, rows, progress)
    audited = _audited({each.predictor.hash: each.predictor.card for each in checkpoints.values()})
    entries = ranked(
        (
            _with_facts(
                Entry(name, "", replace(evaluation, part=part, checkpoint=name), timed[name]),
                checkpoints.get(name),
                index.spec.name,
                audited,
            )
            for name, evaluation in counted.items()
        ),
        folder,
    )
    if baselines and part == "held-out":
        train = int((told.table["split"] == "train").sum())
        remarks.insert(0, f"The baselines learn from the {train} images of the train split: none of them counts here.")
    silent = [name for name in counted if name in checkpoints and not learnt[name]]
    if silent:
        remarks.append(f"{', '.join(silent)} does not tell what it learnt from: some of these images may be among it.")
    if any(entry.explanation for entry in entries):
        remarks.append(BEST_OF_SEVERAL)
    said = dict.fromkeys(filter(None, (leak, *remarks, *entries[0].evaluation.remarks)))
    which = f"{_COUNTED[part]} {index.spec.title}"
    return Leaderboard(index.spec.title, told, part, which, classes, entries, absent, tuple(said))


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
            absent[folder.name] = SEVERAL
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


def _with_facts(entry: Entry, checkpoint: _Checkpoint | None, data: str, audited: Mapping[str, Shortcut]) -> Entry:
    """An entry with what the checkpoint's files, its card and the audits tell; None stands for a baseline."""
    if checkpoint is None:
        return replace(entry, title=BASELINES[entry.name.removesuffix(BASELINE)].info.title)
    card = checkpoint.predictor.card
    return replace(
        entry,
        title=card.title,
        size=(checkpoint.folder / WEIGHTS).stat().st_size,
        explanation=_explanation(card, data),
        shortcut=audited.get(checkpoint.predictor.hash),
    )


def _explanation(card: Card, data: str) -> Explanation | None:
    """The method with the highest Dice on this data set; None where none was measured on it."""
    told = [each["methods"] for each in card.quality.values() if each.get("data") == data]
    dice = {
        method: figures["dice"]
        for methods in told[:1] for method, figures in methods.items()
        if "dice" in figures and figures["dice"]["low"] is not None
        and method in EXPLAINERS and not EXPLAINERS[method].info.control
    }  # fmt: skip
    if not dice:
        return None
    method = max(dice, key=lambda name: dice[name]["value"])
    facts = {key: dice[method][key] for key in ("value", "low", "high", "n")}
    return Explanation(method, **facts, lift=dice[method].get("lift"))


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


def _nothing(absent: Mapping[str, str]) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in list(absent.items())[:3])
    return f"nothing can be compared on these images ({why or 'there is no checkpoint'})"
