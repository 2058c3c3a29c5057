"""A leaderboard on all images of a data set: every cross-validation in a folder, and baselines, on the same folds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from steel_core.baselines.base import BASELINES
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.store import evaluations_folder
from steel_core.inference.predictor import Predictor
from steel_core.leaderboard.baselines import FittedBaseline, evaluate_baselines
from steel_core.leaderboard.table import (
    BASELINE,
    SEVERAL,
    Entry,
    Leaderboard,
    PredictFunction,
    keep_shared_images,
    rank_entries,
    time_predictions,
)
from steel_core.models.card import Card
from steel_core.models.checkpoint import WEIGHTS, read_card
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.training.cross_validate import CrossValidation, pooled, rounds
from steel_core.training.prepare import with_groups

_START = {"random": "from scratch", "imagenet": "from ImageNet"}


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
    evaluations = {name: each.evaluation for name, each in validated.items()}
    firsts = {name: Predictor.load(each.folder / "fold-1", device) for name, each in validated.items()}
    predict: dict[str, PredictFunction] = {name: each.predict for name, each in firsts.items()}
    if baselines:
        for name, (evaluation, baseline) in _evaluate_baselines(index, k, folder, progress).items():
            evaluations[name], predict[name] = evaluation, baseline
    counted, _ = keep_shared_images(evaluations, {}, 1.0, index, np.arange(len(index)), absent)
    if not counted:
        why = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise DataError(f"{work.name}: expected cross-validations in {k} folds; {why or 'there is none'}")
    rows = next(iter(counted.values())).table["row"].to_numpy()
    timed = time_predictions({name: predict[name] for name in counted}, validated, index, rows, progress)
    entries = rank_entries(
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


def _title(name: str, firsts: dict[str, Predictor]) -> str:
    return firsts[name].card.title if name in firsts else BASELINES[name.removesuffix(BASELINE)].info.title


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
