"""k-fold cross-validation by group: every image is counted once, by a model that has not seen its near-duplicates."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.splits import make_folds, split_dataset
from steel_core.errors import DataError
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.evaluation import Evaluation
from steel_core.inference.keys import data_key
from steel_core.inference.predictor import Predictor
from steel_core.metrics import EvaluationReport, multi_label
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.training.fit import skill
from steel_core.training.prepare import with_groups
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from steel_core.types import IndexArray


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What the models of all rounds (`fold-1` and on in `folder`) said, each of the fold it has not seen.

    Each round's logits are divided by its own temperature; `by_fold` is the `skill` in each fold.
    """

    folder: Path
    evaluation: Evaluation
    by_fold: tuple[float, ...]
    ece_before_temperature: float

    @cached_property
    def report(self) -> EvaluationReport | MultiLabelReport:
        """The estimates, with intervals by group."""
        evaluation = self.evaluation
        if not evaluation.multi_label:
            return evaluation.report
        outcomes, groups = evaluation.table["outcome"].to_numpy(object), list(evaluation.groups)
        return multi_label.evaluate(
            evaluation.probs, evaluation.targets, evaluation.classes, self._called, outcomes, groups
        )

    @property
    def wrong(self) -> pd.DataFrame:
        """The images that were named wrong: file, actual, predicted, probability (of the likeliest class)."""
        evaluation = self.evaluation
        several = evaluation.multi_label
        rows = (self._called != (evaluation.targets > 0)).any(axis=1) if several else evaluation.wrong
        table = evaluation.table[rows]
        named = table["named"].where(table["named"] != "", "none") if several else table["pred"]
        return pd.DataFrame({
            "file": [Path(path).name for path in table["file"]],
            "actual": table["label"].str.replace("|", ", ").to_numpy(),
            "predicted": named.str.replace("|", ", ").to_numpy(),
            "probability": evaluation.probs[rows].max(axis=1).round(4),
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """`report` as JSON, with `folds`, `recall_by_fold` (or `auc_by_fold`) and `errors`, see `wrong`."""
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
    config: TrainingSettings = TrainingSettings(),
    k: int = 5,
    *,
    device: str = "auto",
    report: Say = print,
    progress: Progress = no_progress,
) -> CrossValidation:
    """Train `k` models and pool what each says about its own fold.

    In each round a tenth of the other folds, by group, serves to stop early and to fit the temperature; the fold itself
    serves for nothing but counting. Splits that came with the data are set aside. Rounds of the same data and settings
    that `work` already holds are not trained again.

    Raises:
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible.
    """
    index = with_groups(index.without_splits(), report, progress)
    content = json.dumps([config.to_json(), index.content_hash(), k], default=str)
    folder = work / hashlib.sha256(content.encode()).hexdigest()[:12]
    for number, (dataset, _) in enumerate(rounds(index, k, config.seed), 1):
        out = folder / f"fold-{number}"
        report(f"fold {number} of {k}")
        if not (out / "card.json").exists():
            train(dataset, out, config, finish=False, device=device, report=report, progress=progress)
    result = pooled(index, folder, k, config.seed, device=device, progress=progress)
    report("by fold: " + ", ".join(f"{value:.4f}" for value in result.by_fold))
    return result


def rounds(index: DatasetIndex, k: int, seed: int) -> Iterator[tuple[DatasetIndex, IndexArray]]:
    """The data set, which has groups, with the splits of each round, and the rows of its fold: its test split."""
    for rest, fold in make_folds(index, k, seed):
        splits = np.full(len(index), "test", dtype=object)
        splits[rest] = split_dataset(index.select(rows=rest), (0.9, 0.1, 0.0), seed).table["split"].to_numpy()
        yield index.with_splits(splits), fold


def pooled(
    index: DatasetIndex, folder: Path, k: int, seed: int = 0, *, device: str = "auto", progress: Progress = no_progress
) -> CrossValidation:
    """What the `k` rounds in a folder say, each of its own fold; the data set has groups.

    Raises:
        DataError: a round is missing, has learnt from an image of its fold, or was made for other folds.
        CheckpointError: a round cannot be loaded.
    """
    missing = [name for name in (f"fold-{i + 1}" for i in range(k)) if not (folder / name / "card.json").exists()]
    if missing:
        raise DataError(f"{folder.name}: of its {k} rounds {', '.join(missing)} is still missing")
    parts: list[Evaluation] = []
    tables: list[pd.DataFrame] = []
    by_fold: list[float] = []
    for number, (dataset, fold) in enumerate(rounds(index, k, seed), 1):
        predictor = Predictor.load(folder / f"fold-{number}", device)
        evaluation = evaluate(predictor, dataset.select(rows=fold), "all", within(progress, f"fold {number}"))
        if (evaluation.table["seen"] != "test").any() or predictor.card.split.counts["test"] != len(evaluation):
            raise DataError(f"{folder.name}: the checkpoints in it were trained on other folds")
        if not evaluation.has_truth.all():
            raise DataError(
                f"{folder.name}: it tells apart {', '.join(evaluation.classes)}, not {', '.join(index.classes)}"
            )
        by_fold += skill(torch.from_numpy(evaluation.logits), torch.from_numpy(evaluation.truth)).values()
        table = evaluation.table
        scaled = {f"z.{name}": table[f"z.{name}"] / evaluation.temperature for name in evaluation.classes}
        tables.append(table.assign(row=fold[table["row"]], **scaled))  # its logits give `probs` at a temperature of 1
        parts.append(evaluation)
    raw = np.concatenate([metrics.logits_to_probabilities(part.logits, part.head) for part in parts])
    truth = np.concatenate([part.truth for part in parts])
    gap = multi_label.mean_ece if evaluation.multi_label else metrics.ece
    model = hashlib.sha256("".join(part.checkpoint_hash for part in parts).encode()).hexdigest()
    whole = replace(
        evaluation,
        table=pd.concat(tables, ignore_index=True),
        temperature=1.0,
        thresholds={},
        part=f"{k} folds",
        checkpoint=folder.name,
        checkpoint_hash=model,
        model=model,
        data_key=data_key(index),
        left_out=tuple(line for part in parts for line in part.left_out),
        unreadable=sum(part.unreadable for part in parts),
    )
    return CrossValidation(folder, whole, tuple(by_fold), float(np.nan_to_num(gap(raw, truth)[0])))
