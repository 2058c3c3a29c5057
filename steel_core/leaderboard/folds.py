"""A leaderboard on all images of a data set: every cross-validation in a folder, and baselines, on the same folds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from steel_core.baselines.base import BASELINES
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError
from steel_core.evaluation.evaluate import Evaluation
from steel_core.files import cache_folder
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.baselines import Judge, judge_by_baselines
from steel_core.leaderboard.table import BASELINE, SEVERAL, Ask, Entry, Leaderboard, ranked, shared, speeds
from steel_core.models.checkpoint import WEIGHTS, Card, read_card
from steel_core.progress import Progress, no_progress
from steel_core.training.cross_validate import CrossValidation, pooled, rounds
from steel_core.training.fit import Report
from steel_core.training.train import with_groups

_START = {"random": "from scratch", "imagenet": "from ImageNet"}


def leaderboard_of_folds(
    index: DatasetIndex,
    work: Path,
    k: int = 5,
    *,
    baselines: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    report: Report = lambda _: None,
    progress: Progress = no_progress,
) -> Leaderboard:
    """Compare cross-validations: each image is counted once in each, so that differences can be paired.

    Args:
        index: the data set; splits that came with it are set aside.
        work: the folder in which `cross_validate` left its rounds, made with seed 0.
        k: number of folds.
        baselines: whether every baseline is to learn in each round, from the images that the networks learnt from.
        device: "auto", "cpu", "cuda" or "mps".
        folder: where what the baselines said is kept; in the user's cache if None.
        report: receives lines about the course.
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        DataError: nothing can be compared; the message says why.
    """
    folder = folder or cache_folder() / "evaluations"
    index = with_groups(index.without_splits(), report, progress)
    validated, absent = _validated(index, work, k, device, progress)
    found = {name: each.evaluation for name, each in validated.items()}
    firsts = {name: Predictor.load(each.folder / "fold-1", device) for name, each in validated.items()}
    ask: dict[str, Ask] = {name: each.predict for name, each in firsts.items()}
    if baselines:
        for name, (evaluation, judge) in _baselines(index, k, folder, progress).items():
            found[name], ask[name] = evaluation, judge
    counted, _ = shared(found, {}, 1.0, index, np.arange(len(index)), absent)
    if not counted:
        why = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise DataError(f"{work.name}: expected cross-validations in {k} folds; {why or 'there is none'}")
    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = speeds({name: ask[name] for name in counted}, validated, index, rows, progress)
    entries = ranked(
        (
            Entry(
                name,
                _title(name, firsts),
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
    remarks = entries[0].evaluation.remarks
    return Leaderboard(index.spec.title, index, f"{k} folds", which, index.classes, entries, absent, remarks)


def _validated(
    index: DatasetIndex, work: Path, k: int, device: str, progress: Progress
) -> tuple[dict[str, CrossValidation], dict[str, str]]:
    """The cross-validations in a folder by a name that tells their recipe, and why others cannot be compared."""
    found: dict[str, CrossValidation] = {}
    absent: dict[str, str] = {}
    for place in sorted(path.parents[1] for path in work.glob("*/fold-1/card.json")):
        try:
            each = pooled(index, place, k, device=device, progress=progress)
        except SteelError as error:
            absent[place.name] = str(error)
            continue
        name = _recipe(read_card(place / "fold-1"))
        if each.evaluation.multi_label:
            absent[name] = SEVERAL
        else:
            found[f"{name} ({place.name})" if name in found else name] = each
    return found, absent


def _recipe(card: Card) -> str:
    """As in "resnet18, 200 x 200, 25 epochs, from scratch"."""
    settings, (height, width) = card.training["settings"], card.input_size
    start = _START.get(settings["init"], f"from {settings['init']}")
    return f"{card.backbone}, {height} x {width}, {settings['epochs']} epochs, {start}"


def _title(name: str, firsts: dict[str, Predictor]) -> str:
    return firsts[name].card.title if name in firsts else BASELINES[name.removesuffix(BASELINE)].info.title


def _baselines(index: DatasetIndex, k: int, folder: Path, progress: Progress) -> dict[str, tuple[Evaluation, Judge]]:
    """What each baseline said of every fold, and that of the last round."""
    said: dict[str, list[tuple[Evaluation, Judge]]] = {}
    for number, (told, fold) in enumerate(rounds(index, k, 0), 1):
        bar = partial(_within, progress, f"fold {number}")
        for kind, judged in judge_by_baselines(told, fold, index.classes, folder, bar).items():
            said.setdefault(f"{kind}{BASELINE}", []).append(judged)
    return {
        name: (replace(each[-1][0], table=pd.concat([part.table for part, _ in each], ignore_index=True)), each[-1][1])
        for name, each in said.items()
    }


def _within(progress: Progress, where: str, what: str, done: int, of: int) -> None:
    progress(f"{where}: {what}", done, of)
