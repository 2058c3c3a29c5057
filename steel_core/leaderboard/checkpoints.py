"""Leaderboards: every checkpoint, or every cross-validation, and baselines on the same images of one data set.

An image that any of them has learnt from is counted for none, so all figures rest on the same images and differences
can be paired. What cannot be compared is listed with the reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from steel_core.audit.statistics import combine_verdicts
from steel_core.baselines.base import BASELINES
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError, UsageError
from steel_core.evaluation.evaluation import Evaluation, map_labels
from steel_core.evaluation.store import evaluations_folder, load_or_evaluate
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.baselines import FittedBaseline, evaluate_baselines
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
from steel_core.models.checkpoint import WEIGHTS, list_checkpoints, read_card
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.store.audits import AuditStore
from steel_core.training.cross_validate import CrossValidation, pooled, rounds
from steel_core.training.prepare import with_groups, with_groups_and_splits

PARTS = ("test", "held-out")
"""Which images count: the test split, or everything that none of the compared has learnt from."""

_COUNTED = {
    "test": "of the test split of",
    "held-out": "of those images that no compared checkpoint has learnt from, nor from known copies of, in",
}
_START = {"random": "from scratch", "imagenet": "from ImageNet"}
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
    split = grouped.table["split"].to_numpy()
    rows = np.flatnonzero(split == "test" if part == "test" else (split != "train") | (not baselines))

    contenders: dict[str, tuple[Evaluation, PredictFunction]] = {
        name: (load_or_evaluate(each.predictor, index, folder, within(progress, name)), each.predictor.predict)
        for name, each in checkpoints.items()
        if name not in absent
    }
    if baselines:
        judged = evaluate_baselines(grouped, rows, classes, folder, progress)
        contenders |= {f"{kind}{BASELINE}": result for kind, result in judged.items()}
    tables = {name: evaluation.table for name, (evaluation, _) in contenders.items()}
    learnt = {
        name: set(table["image_sha256"][table["seen"].isin(("train", "val"))].str[:16])
        for name, table in tables.items()
    }
    most = _MOST_LEARNT if part == "test" else 1.0
    counted, remarks = keep_shared_images(contenders, learnt, most, grouped, rows, absent)
    if not counted:
        raise DataError(_why_nothing_compares(absent))

    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = time_predictions({name: contenders[name][1] for name in counted}, checkpoints, grouped, rows, progress)
    shortcuts = _find_shortcuts({each.predictor.hash: each.predictor.card for each in checkpoints.values()})
    entries = rank_entries(
        (
            _make_entry(
                replace(evaluation, part=part, checkpoint=name), timed[name], checkpoints.get(name), index, shortcuts
            )
            for name, evaluation in counted.items()
        ),
        folder,
    )
    if baselines and part == "held-out":
        train = int((split == "train").sum())
        remarks.insert(0, f"The baselines learn from the {train} images of the train split: none of them counts here.")
    if silent := [name for name in counted if name in checkpoints and not learnt[name]]:
        remarks.append(f"{', '.join(silent)} does not tell what it learnt from: some of these images may be among it.")
    if any(entry.explanation for entry in entries):
        remarks.append(BEST_OF_SEVERAL)
    sentences = dict.fromkeys(filter(None, (leak, *remarks, *entries[0].evaluation.remarks)))
    which = f"{_COUNTED[part]} {index.spec.title}"
    return Leaderboard(grouped, part, which, classes, entries, absent, tuple(sentences))


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


def _make_entry(
    evaluation: Evaluation,
    speed: float,
    checkpoint: _Checkpoint | None,
    index: DatasetIndex,
    shortcuts: Mapping[str, Shortcut],
) -> Entry:
    name = evaluation.checkpoint
    if checkpoint is None:
        return Entry(name, BASELINES[name.removesuffix(BASELINE)].info.title, evaluation, speed)
    card, size = checkpoint.predictor.card, (checkpoint.folder / WEIGHTS).stat().st_size
    explanation, shortcut = _best_explanation(card, index.spec.name), shortcuts.get(checkpoint.predictor.hash)
    return Entry(name, card.title, evaluation, speed, size, explanation, shortcut)


def _best_explanation(card: Card, data: str) -> Explanation | None:
    table = next((each.methods for each in card.quality.values() if each.data == data), {})
    measured = []
    for method, estimates in table.items():
        dice = estimates.get("dice")
        if dice is None or method not in EXPLAINERS or EXPLAINERS[method].info.control:
            continue
        if dice.value is not None and dice.low is not None and dice.high is not None:
            facts = {name: getattr(dice, name) for name in ("value", "low", "high", "n", "lift")}
            measured.append(Explanation(method=method, **facts))
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


def build_fold_leaderboard(
    index: DatasetIndex,
    work: Path,
    k: int = 5,
    *,
    baselines: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    report: Say = lambda _: None,
    progress: Progress = no_progress,
) -> Leaderboard:
    """Compare cross-validations: each image is counted once in each, so that differences can be paired.

    Splits that came with the data set are set aside; `cross_validate` left its rounds, made with seed 0, in `work`.
    Baselines learn in each round from the images that the networks learnt from; what they said is kept in `folder`, or
    in the user's cache.

    Raises:
        DataError: nothing can be compared; the message says why.
    """
    folder = folder or evaluations_folder()
    index = with_groups(index.without_splits(), report, progress)
    validated, absent = _find_cross_validations(index, work, k, device, progress)
    firsts = {name: Predictor.load(each.folder / "fold-1", device) for name, each in validated.items()}
    contenders: dict[str, tuple[Evaluation, PredictFunction]] = {
        name: (each.evaluation, firsts[name].predict) for name, each in validated.items()
    }
    if baselines:
        contenders |= _evaluate_baselines(index, k, folder, progress)
    counted, _ = keep_shared_images(contenders, {}, 1.0, index, np.arange(len(index)), absent)
    if not counted:
        why = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise DataError(f"{work.name}: expected cross-validations in {k} folds; {why or 'there is none'}")
    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = time_predictions({name: contenders[name][1] for name in counted}, validated, index, rows, progress)
    entries = rank_entries(
        (
            Entry(
                name,
                firsts[name].card.title if name in firsts else BASELINES[name.removesuffix(BASELINE)].info.title,
                replace(evaluation, checkpoint=name),
                timed[name],
                (validated[name].folder / "fold-1" / WEIGHTS).stat().st_size if name in validated else None,
                rounds=k,
            )
            for name, evaluation in counted.items()
        ),
        folder,
    )
    which = f"of {index.spec.title}, each judged by the one of {k} models that has seen neither it nor a near-duplicate"
    return Leaderboard(index, f"{k} folds", which, index.classes, entries, absent, entries[0].evaluation.remarks)


def _find_cross_validations(
    index: DatasetIndex, work: Path, k: int, device: str, progress: Progress
) -> tuple[dict[str, CrossValidation], dict[str, str]]:
    """The cross-validations in a folder by a name that tells their recipe, and why others cannot be compared."""
    validated: dict[str, CrossValidation] = {}
    absent: dict[str, str] = {}
    for place in sorted(path.parents[1] for path in work.glob("*/fold-1/card.json")):
        try:
            each = pooled(index, place, k, device=device, progress=progress)
        except SteelError as error:
            absent[place.name] = str(error)
            continue
        name = _describe_recipe(read_card(place / "fold-1"))
        if each.evaluation.multi_label:
            absent[name] = SEVERAL
        else:
            validated[f"{name} ({place.name})" if name in validated else name] = each
    return validated, absent


def _describe_recipe(card: Card) -> str:
    """As in "resnet18, 200 x 200, 25 epochs, from scratch"."""
    settings, (height, width) = card.training.settings, card.input_size
    start = _START.get(settings["init"], f"from {settings['init']}")
    return f"{card.backbone}, {height} x {width}, {settings['epochs']} epochs, {start}"


def _evaluate_baselines(
    index: DatasetIndex, k: int, folder: Path, progress: Progress
) -> dict[str, tuple[Evaluation, FittedBaseline]]:
    parts: dict[str, list[tuple[Evaluation, FittedBaseline]]] = {}
    for number, (split, fold) in enumerate(rounds(index, k, 0), 1):
        bar = within(progress, f"fold {number}")
        for kind, result in evaluate_baselines(split, fold, index.classes, folder, bar).items():
            parts.setdefault(f"{kind}{BASELINE}", []).append(result)
    return {
        name: (replace(each[-1][0], table=pd.concat([part.table for part, _ in each], ignore_index=True)), each[-1][1])
        for name, each in parts.items()
    }
