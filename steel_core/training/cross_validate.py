"""k-fold cross-validation by group: every image is counted once, by a model that has not seen its near-duplicates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.splits import Rows, folds, split
from steel_core.errors import DataError
from steel_core.evaluation.evaluate import Evaluation, data_key, evaluate
from steel_core.inference.predictor import Predictor
from steel_core.metrics import EvaluationReport, multi_label
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.progress import Progress, no_progress
from steel_core.training.config import TrainConfig
from steel_core.training.fit import Report, skill
from steel_core.training.train import train, with_groups


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What the models of all rounds said, each of the fold it has not seen.

    Attributes:
        folder: holds the rounds' checkpoints, `fold-1` and on.
        evaluation: of all images. Each round's logits are divided by its own temperature.
        by_fold: the figure of `steel_core.training.fit.skill` in each fold.
        ece_before_temperature: calibration error of the logits as they were.
    """

    folder: Path
    evaluation: Evaluation
    by_fold: tuple[float, ...]
    ece_before_temperature: float

    @cached_property
    def report(self) -> EvaluationReport | MultiLabelReport:
        """The figures, with intervals by group."""
        found = self.evaluation
        if not found.multi_label:
            return found.report
        called = self._called
        outcomes = found.table["outcome"].to_numpy(object)
        return multi_label.evaluate(found.probs, found.targets, found.classes, called, outcomes, list(found.groups))

    @property
    def wrong(self) -> pd.DataFrame:
        """The images that were named wrong: file, actual, predicted, probability (of the likeliest class)."""
        found = self.evaluation
        several = found.multi_label
        rows = (self._called != (found.targets > 0)).any(axis=1) if several else found.wrong
        table = found.table[rows]
        named = table["named"].where(table["named"] != "", "none") if several else table["pred"]
        return pd.DataFrame({
            "file": [Path(path).name for path in table["file"]],
            "actual": table["label"].str.replace("|", ", ").to_numpy(),
            "predicted": named.str.replace("|", ", ").to_numpy(),
            "probability": found.probs[rows].max(axis=1).round(4),
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The figures of `report`, with `folds`, `recall_by_fold` (or `auc_by_fold`) and `errors`, see `wrong`."""
        return self.report.to_json() | {
            "folds": len(self.by_fold),
            "auc_by_fold" if self.evaluation.multi_label else "recall_by_fold": list(self.by_fold),
            "ece_before_temperature": self.ece_before_temperature,
            "errors": self.wrong.to_dict("records"),
        }

    @cached_property
    def _called(self) -> Any:
        """Whether each class was named (N, K): each round has thresholds of its own."""
        cells = self.evaluation.table["named"].str.split("|")
        return np.array([[name in cell for name in self.evaluation.classes] for cell in cells])


def cross_validate(
    index: DatasetIndex,
    work: Path,
    config: TrainConfig = TrainConfig(),
    k: int = 5,
    *,
    device: str = "auto",
    report: Report = print,
    progress: Progress = no_progress,
) -> CrossValidation:
    """Train `k` models and pool what each says about its own fold.

    In each round a tenth of the other folds, by group, serves to stop early and to fit the temperature; the fold itself
    serves for nothing but counting. Rounds of the same data and settings that `work` already holds are not trained
    again.

    Args:
        index: the data set; splits that came with it are set aside.
        work: folder for the rounds' checkpoints.
        config: settings, the same in each round.
        k: number of folds.
        device: "auto", "cpu", "cuda" or "mps".
        report: receives lines about the course.
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible.
    """
    index = with_groups(index.without_splits(), report, progress)
    content = json.dumps([config.to_json(), index.content_hash(), k], default=str)
    folder = work / hashlib.sha256(content.encode()).hexdigest()[:12]
    for number, (told, _) in enumerate(rounds(index, k, config.seed), 1):
        out = folder / f"fold-{number}"
        report(f"fold {number} of {k}")
        if not (out / "card.json").exists():
            train(told, out, config, scale_maps=False, device=device, report=report, progress=progress)
    found = pooled(index, folder, k, config.seed, device=device, progress=progress)
    report("by fold: " + ", ".join(f"{value:.4f}" for value in found.by_fold))
    return found


def rounds(index: DatasetIndex, k: int, seed: int) -> Iterator[tuple[DatasetIndex, Rows]]:
    """The data set of each round with its splits, and the rows of its fold, which is the test split.

    Args:
        index: the data set, with groups.
        k: number of folds.
        seed: the same seed gives the same rounds.
    """
    for rest, fold in folds(index, k, seed):
        splits = np.full(len(index), "test", dtype=object)
        splits[rest] = split(index.select(rows=rest), shares=(0.9, 0.1, 0.0), seed=seed).table["split"].to_numpy()
        yield index.with_splits(splits), fold


def pooled(
    index: DatasetIndex,
    folder: Path,
    k: int,
    seed: int = 0,
    *,
    device: str = "auto",
    progress: Progress = no_progress,
) -> CrossValidation:
    """What the rounds in a folder say, each of its own fold.

    Args:
        index: the data set, with groups.
        folder: holds the checkpoints of all `k` rounds.
        k: number of folds.
        seed: of the folds.
        device: "auto", "cpu", "cuda" or "mps".
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        DataError: a round is missing, has learnt from an image of its fold, or was made for other folds.
        CheckpointError: a round cannot be loaded.
    """
    missing = [name for name in (f"fold-{i + 1}" for i in range(k)) if not (folder / name / "card.json").exists()]
    if missing:
        raise DataError(f"{folder.name}: of its {k} rounds {', '.join(missing)} is still missing")
    hashes: list[str] = []
    parts: list[Evaluation] = []
    by_fold: list[float] = []
    for number, (told, fold) in enumerate(rounds(index, k, seed), 1):
        predictor = Predictor.load(folder / f"fold-{number}", device)
        found = evaluate(predictor, told.select(rows=fold), "all", partial(progress, f"counting fold {number}"))
        if (found.table["seen"] != "test").any() or predictor.card.split["counts"]["test"] != len(found):
            raise DataError(f"{folder.name}: the checkpoints in it were trained on other folds")
        if not found.known.all():
            raise DataError(f"{folder.name}: it tells apart {', '.join(found.classes)}, not {', '.join(index.classes)}")
        by_fold += skill(torch.from_numpy(found.logits), torch.from_numpy(_truth(found))).values()
        parts.append(replace(found, table=found.table.assign(row=fold[found.table["row"]])))
        hashes.append(predictor.hash)
    raw = np.concatenate([metrics.probabilities(part.logits, part.head) for part in parts])
    truth = np.concatenate([_truth(part) for part in parts])
    gap = multi_label.mean_ece if found.multi_label else metrics.ece
    model = hashlib.sha256("".join(hashes).encode()).hexdigest()
    evaluation = Evaluation(
        table=pd.concat([_scaled(part) for part in parts], ignore_index=True), classes=found.classes, head=found.head,
        temperature=1.0, thresholds={}, part=f"{k} folds", checkpoint=folder.name, checkpoint_hash=model, model=model,
        data=found.data, data_key=data_key(index), left_out=tuple(line for part in parts for line in part.left_out),
        unreadable=sum(part.unreadable for part in parts), multi_label=found.multi_label,
    )  # fmt: skip
    return CrossValidation(folder, evaluation, tuple(by_fold), float(np.nan_to_num(gap(raw, truth)[0])))


def _truth(found: Evaluation) -> Any:
    """Labels (N,), or targets (N, K) of several."""
    return found.targets if found.multi_label else found.labels


def _scaled(found: Evaluation) -> pd.DataFrame:
    """The table with logits that give the probabilities at a temperature of 1."""
    return found.table.assign(**{f"z.{name}": found.table[f"z.{name}"] / found.temperature for name in found.classes})
