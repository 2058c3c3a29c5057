"""k-fold cross-validation by group: every image is counted once, by a model that has not seen its near-duplicates."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.splits import folds, split
from steel_core.errors import ImageError
from steel_core.inference import Predictor
from steel_core.recipes.train import train, with_groups_and_splits
from steel_core.recipes.training import Progress, Report, TrainConfig


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
        The figures of `metrics.EvaluationReport.to_json`, with `folds`, `ece_before_temperature`, `recall_by_fold`, and
        `errors`: file, actual, predicted and probability of each image that was wrong.
    """
    index, _ = with_groups_and_splits(index.without_splits(), config.seed, report, progress)
    content = json.dumps([config.to_json(), index.content_hash(), k], default=str)
    rounds = work / hashlib.sha256(content.encode()).hexdigest()[:12]
    probs, raw, labels, groups, names, by_fold = [], [], [], [], [], []
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
        truth = np.array([index.classes.index(index[i].label) for i in kept])
        probs.append(metrics.probabilities(logits, config.head, predictor.card.temperature))
        raw.append(metrics.probabilities(logits, config.head))
        labels.append(truth)
        groups += [index[i].group for i in kept]
        names += [index[i].path.name for i in kept]
        counts = metrics.confusion(truth, logits.argmax(axis=1), len(index.classes))
        by_fold.append(float(metrics.macro_recall(counts)[0]))
        report(f"fold {number + 1}: macro recall {by_fold[-1]:.4f} on {len(kept)} images")
    pooled, truth = np.concatenate(probs), np.concatenate(labels)
    wrong = np.flatnonzero(pooled.argmax(axis=1) != truth)
    return metrics.evaluate(pooled, truth, index.classes, groups).to_json() | {
        "folds": k,
        "recall_by_fold": by_fold,
        "ece_before_temperature": float(metrics.ece(np.concatenate(raw), truth)[0]),
        "errors": [
            {
                "file": names[i],
                "actual": index.classes[truth[i]],
                "predicted": index.classes[pooled[i].argmax()],
                "probability": round(float(pooled[i].max()), 4),
            }
            for i in wrong
        ],
    }
