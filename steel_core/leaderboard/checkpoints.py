"""A leaderboard: every checkpoint and baseline on the same images of one data set, the best first.

An image that any of them has learnt from is counted for none, so all figures rest on the same images and differences
can be paired. What cannot be compared is listed with the reason.

Legend: N images, K classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steel_core.audit.statistics import combine_verdicts
from steel_core.baselines.base import BASELINES
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError, UsageError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.labels import map_labels
from steel_core.evaluation.store import evaluations_folder, load_or_evaluate
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.baselines import evaluate_baselines
from steel_core.leaderboard.table import (
    BASELINE,
    BEST_OF_SEVERAL,
    SEVERAL,
    Entry,
    Explanation,
    Leaderboard,
    PredictFunction,
    Shortcut,
    keep_shared_images,
    rank_entries,
    time_predictions,
)
from steel_core.models.card import Card
from steel_core.models.checkpoint import WEIGHTS, list_checkpoints
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.store.audits import AuditStore
from steel_core.training.prepare import with_groups, with_groups_and_splits
from steel_core.types import Int64Array

PARTS = ("test", "held-out")
"""Which images count: the test split, or everything that none of the compared has learnt from."""

_COUNTED = {
    "test": "of the test split of",
    "held-out": "of those files that no compared checkpoint has learnt from (copies of them are not looked for) in",
}
_MOST_LEARNT = 0.5  # who knows a larger share of the test split is left out, and not the images


def build_leaderboard(
    index: DatasetIndex,
    names: Sequence[str] | None = None,
    part: str = "test",
    *,
    baselines: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    report: Say = lambda _: None,
    progress: Progress = no_progress,
) -> Leaderboard:
    """Compare checkpoints, and baselines where asked, on the images that none of them has learnt from.

    Stored evaluations in `folder`, or the user's cache, are used again. Groups of near-duplicates and splits are made
    where the data set has none, as `train` makes them with seed 0. Of `names` (all that can be found if None) those
    with the classes of most of them that have words for every label are compared; "clear" and "defect" stand for all
    types where they must. Baselines learn from the train split.

    Raises:
        UsageError: `part` is unknown.
        DataError: nothing can be compared; the message says why.
    """
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    folder = folder or evaluations_folder()
    checkpoints, absent = _load_checkpoints(names, device)
    classes = _choose_classes(index, {name: each.predictor.card for name, each in checkpoints.items()}, absent)
    if not (classes or baselines):
        raise DataError(_why_nothing_compares(absent))
    classes = classes or index.classes
    index = map_labels(index, classes)
    if baselines or part == "test":
        grouped, leak = with_groups_and_splits(index, 0, report, progress)
    else:
        grouped, leak = with_groups(index, report, progress), ""
    rows = _candidate_rows(grouped, part, baselines)

    evaluations: dict[str, Evaluation] = {}
    predict: dict[str, PredictFunction] = {}
    for name, each in checkpoints.items():
        if name not in absent:
            bar = within(progress, name)
            evaluations[name] = load_or_evaluate(each.predictor, index, folder, bar)
            predict[name] = each.predictor.predict
    if baselines:
        for kind, (evaluation, baseline) in evaluate_baselines(grouped, rows, classes, folder, progress).items():
            name = f"{kind}{BASELINE}"
            evaluations[name], predict[name] = evaluation, baseline
    learnt = {name: _learnt_hashes(each.predictor.card) for name, each in checkpoints.items()}
    most = _MOST_LEARNT if part == "test" else 1.0
    counted, remarks = keep_shared_images(evaluations, learnt, most, grouped, rows, absent)
    if not counted:
        raise DataError(_why_nothing_compares(absent))

    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = time_predictions({name: predict[name] for name in counted}, checkpoints, grouped, rows, progress)
    shortcuts = _find_shortcuts({each.predictor.hash: each.predictor.card for each in checkpoints.values()})
    entries = rank_entries(
        (
            _add_facts(
                Entry(name, "", replace(evaluation, part=part, checkpoint=name), timed[name]),
                checkpoints.get(name),
                index.spec.name,
                shortcuts,
            )
            for name, evaluation in counted.items()
        ),
        folder,
    )
    if baselines and part == "held-out":
        train = int((grouped.table["split"] == "train").sum())
        remarks.insert(0, f"The baselines learn from the {train} images of the train split: none of them counts here.")
    silent = [name for name in counted if name in checkpoints and not learnt[name]]
    if silent:
        remarks.append(f"{', '.join(silent)} does not tell what it learnt from: some of these images may be among it.")
    if any(entry.explanation for entry in entries):
        remarks.append(BEST_OF_SEVERAL)
    sentences = dict.fromkeys(filter(None, (leak, *remarks, *entries[0].evaluation.remarks)))
    which = f"{_COUNTED[part]} {index.spec.title}"
    return Leaderboard(index.spec.title, grouped, part, which, classes, entries, absent, tuple(sentences))


class _Checkpoint(NamedTuple):
    folder: Path
    predictor: Predictor


def _load_checkpoints(names: Sequence[str] | None, device: str) -> tuple[dict[str, _Checkpoint], dict[str, str]]:
    folders = list_checkpoints()
    checkpoints, absent = {}, {}
    for name in folders if names is None else names:
        folder = folders.get(name, Path(name))
        try:
            predictor = Predictor.load(folder, device)
        except SteelError as error:
            absent[folder.name] = str(error)
            continue
        if predictor.card.multi_label:
            absent[folder.name] = SEVERAL
        else:
            checkpoints[folder.name] = _Checkpoint(folder, predictor)
    return checkpoints, absent


def _choose_classes(index: DatasetIndex, cards: Mapping[str, Card], absent: dict[str, str]) -> tuple[str, ...]:
    """The classes of most checkpoints that have words for every label; why the others do not compare goes to `absent`.

    Checkpoints that know the labels as they are come before those that know "clear" and "defect" alone.
    """
    fits: Counter[frozenset[str]] = Counter()
    for name, card in cards.items():
        worded = map_labels(index, card.classes)
        if unknown := sorted(set(worded.classes) - set(card.classes)):
            absent[name] = f"it has no words for {', '.join(unknown)}; it knows {', '.join(card.classes)}"
        else:
            fits[frozenset(card.classes)] += 1
    if not fits:
        return ()
    chosen = max(fits, key=lambda names: (set(index.classes) <= names, fits[names]))
    for name, card in cards.items():
        if name not in absent and set(card.classes) != chosen:
            absent[name] = f"it tells apart {', '.join(card.classes)}, the others {', '.join(sorted(chosen))}"
    return next(card.classes for name, card in cards.items() if name not in absent)


def _candidate_rows(index: DatasetIndex, part: str, baselines: bool) -> Int64Array:
    split = index.table["split"].to_numpy()
    return np.flatnonzero(split == "test" if part == "test" else (split != "train") | (not baselines))


def _learnt_hashes(card: Card) -> set[str]:
    files = card.split.files
    return {*files.get("train", ()), *files.get("val", ())}


def _add_facts(entry: Entry, checkpoint: _Checkpoint | None, data: str, shortcuts: Mapping[str, Shortcut]) -> Entry:
    if checkpoint is None:
        return replace(entry, title=BASELINES[entry.name.removesuffix(BASELINE)].info.title)
    card = checkpoint.predictor.card
    return replace(
        entry,
        title=card.title,
        size=(checkpoint.folder / WEIGHTS).stat().st_size,
        explanation=_best_explanation(card, data),
        shortcut=shortcuts.get(checkpoint.predictor.hash),
    )


def _best_explanation(card: Card, data: str) -> Explanation | None:
    table = next((each.methods for each in card.quality.values() if each.data == data), {})
    measured = []
    for method, estimates in table.items():
        dice = estimates.get("dice")
        if dice is None or method not in EXPLAINERS or EXPLAINERS[method].info.control:
            continue
        if dice.value is not None and dice.low is not None and dice.high is not None:
            bounds = {"value": dice.value, "low": dice.low, "high": dice.high}
            measured.append(Explanation(method=method, **bounds, n=dice.n, lift=dice.lift))
    return max(measured, key=lambda explanation: explanation.value, default=None)


def _find_shortcuts(cards: Mapping[str, Card]) -> dict[str, Shortcut]:
    """One verdict of the newest audit of each kind, for each checkpoint by its hash: a later, easier one hides none.

    Where no white stain was tried here, the ledger of a cure, which may be in its card, tells of it, before or after.
    """
    newest: dict[str, dict[str, tuple[str, str]]] = {}
    for run in AuditStore().history()[0]:
        for report in run.reports:
            source = (report["verdict"], f"audit {run.name}")
            newest.setdefault(report["model_hash"], {}).setdefault(report["audit"], source)
    for cured, card in cards.items():
        if not (cure := card.training.cure):
            continue
        for of, side in ((cured, cure.audit.after), (cure.of_hash, cure.audit.before)):
            if of and (verdict := side.get("verdict")):
                newest.setdefault(of, {}).setdefault("white-stain", (verdict, "card"))
    return {
        of: Shortcut(
            verdict=combine_verdicts([verdict for verdict, _ in kinds.values()]),
            asked=tuple(sorted(kinds)),
            source=", ".join(dict.fromkeys(source for _, source in kinds.values())),
        )
        for of, kinds in newest.items()
    }


def _why_nothing_compares(absent: Mapping[str, str]) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in list(absent.items())[:3])
    return f"nothing can be compared on these images ({why or 'there is no checkpoint'})"
