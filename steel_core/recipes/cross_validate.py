"""k-fold cross-validation by group: every image is counted once, by a model that has not seen its near-duplicates."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.splits import folds, split
from steel_core.errors import ImageError
from steel_core.inference import Predictor
from steel_core.metrics import multi_label
from steel_core.recipes.train import train, with_groups_and_splits
from steel_core.recipes.training import Progress, Report, TrainConfig, is_multi_label, skill
from steel_core.types import Prediction


def cross_validate(
    index: DatasetIndex,
    work: Path,
    config: TrainConfig = TrainConfig(),
    k: int = 5,
    *,
    device: str = "auto",
    report: Report = print,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
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

    Returns:
        The figures of `metrics.EvaluationReport.to_json`, or of `metrics.multi_label.MultiLabelReport.to_json`, with
        `folds`, `ece_before_temperature`, `recall_by_fold` (or `auc_by_fold`), and `errors`: file, actual, predicted
        and probability (of the likeliest class) of each image that was wrong.
    """
    several = is_multi_label(index, config.head)
    classes = multi_label.defect_types(index.classes) if several else index.classes
    index, _ = with_groups_and_splits(index.without_splits(), config.seed, report, progress)
    content = json.dumps([config.to_json(), index.content_hash(), k], default=str)
    rounds = work / hashlib.sha256(content.encode()).hexdigest()[:12]
    probs, raw, rows, by_fold = [], [], [], []
    labels: list[npt.NDArray[Any]] = []
    said: list[Prediction] = []
    for number, (rest, fold) in enumerate(folds(index, k, config.seed)):
        report(f"fold {number + 1} of {k}")
        splits = np.full(len(index), "test", dtype=object)
        splits[rest] = (
            split(index.select(rows=rest), shares=(0.9, 0.1, 0.0), seed=config.seed).table["split"].to_numpy()
        )
        out = rounds / f"fold-{number + 1}"
        if not (out / "card.json").exists():
            train(
                index.with_splits(splits),
                out,
                config,
                scale_maps=False,
                device=device,
                report=report,
                progress=progress,
            )
        predictor = Predictor.load(out, device)
        images, kept = [], []
        for i in fold:
            try:
                images.append(index.image(int(i)))
                kept.append(int(i))
            except ImageError:
                continue  # reported while reading
        found = predictor.predict(images)
        logits = np.array([prediction.logits for prediction in found], dtype=np.float64)
        cells = list(index.table["labels"].iloc[kept])
        truth: npt.NDArray[Any] = multi_label.targets(cells, classes) if several else index.labels_encoded()[kept]
        probs.append(metrics.probabilities(logits, config.head, predictor.card.temperature))
        raw.append(metrics.probabilities(logits, config.head))
        labels.append(truth)
        rows += kept
        said += found
        (name, value), *_ = skill(torch.from_numpy(logits), torch.from_numpy(truth)).items()
        by_fold.append(value)
        report(f"fold {number + 1}: {name.replace('_', ' ')} {value:.4f} on {len(kept)} images")
    pooled, of_all = np.concatenate(probs), np.concatenate(labels)
    groups = list(index.table["group"].iloc[rows])
    if several:
        called = np.array([[name in (each.defects or ()) for name in classes] for each in said])
        outcomes = [each.outcome for each in said]
        figures = multi_label.evaluate(pooled, of_all, classes, called, outcomes, groups).to_json()
        wrong = np.flatnonzero((called != (of_all > 0)).any(axis=1))
        gap = multi_label.mean_ece(np.concatenate(raw), of_all)
    else:
        figures = metrics.evaluate(pooled, of_all, classes, groups).to_json()
        wrong = np.flatnonzero(pooled.argmax(axis=1) != of_all)
        gap = metrics.ece(np.concatenate(raw), of_all)
    return figures | {
        "folds": k,
        "auc_by_fold" if several else "recall_by_fold": by_fold,
        "ece_before_temperature": float(np.nan_to_num(gap[0])),
        "errors": [
            {
                "file": index[rows[i]].path.name,
                "actual": ", ".join(index[rows[i]].labels),
                "predicted": said[i].pred if said[i].defects is None else ", ".join(said[i].defects or ("none",)),
                "probability": round(float(pooled[i].max()), 4),
            }
            for i in wrong
        ],
    }
