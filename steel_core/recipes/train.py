"""Train a checkpoint: read, split, measure, find a learning rate, fit, calibrate, test, save. Reads top to bottom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import steel_core
from steel_core import inference, metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.near_duplicates import near_duplicate_groups
from steel_core.data.splits import split
from steel_core.data.transforms import Preprocessing
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError, UsageError
from steel_core.files import write_bytes
from steel_core.inference import Predictor
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.batch_norm import fold_batch_norm, insert_batch_norm
from steel_core.models.checkpoint import (
    Card,
    Checkpoint,
    check_destination,
    load_features,
    save_checkpoint,
)
from steel_core.models.pretrained import read_state_dict
from steel_core.recipes.scales import map_scales, some_images
from steel_core.recipes.training import (
    TUNING_RATE,
    Curves,
    Fit,
    FitResult,
    ImageTable,
    Progress,
    Report,
    TrainConfig,
    class_weights,
    common_size,
    find_learning_rate,
    measure,
    read_images,
    run_fit,
)
from steel_core.types import CLEAR

SHARES = (0.8, 0.1, 0.1)
"""Parts of a data set without splits that serve to train, to validate and to test."""

BACKGROUND_IMAGES = 20
_SIZE_SAMPLE = 200


def train(  # noqa: PLR0915 - a recipe reads from top to bottom
    index: DatasetIndex,
    out: Path,
    config: TrainConfig = TrainConfig(),
    *,
    name: str = "",
    title: str = "",
    notes: tuple[str, ...] = (),
    drawn_background: bool = False,
    scale_maps: bool = True,
    device: str = "auto",
    report: Report = print,
    progress: Progress = lambda *_: None,
) -> Card:
    """Train on the train split, choose on the validation split, count on the test split, and save a checkpoint.

    An interrupted run goes on where it stopped when it is called again with the same data, settings and `out`.

    Args:
        index: the data set; groups and splits are made where it has none.
        out: folder of the checkpoint.
        config: settings.
        name: of the checkpoint; that of `out` if empty.
        title: for people.
        notes: sentences for the card.
        drawn_background: SHAP compares with sheets drawn by the program instead of training images; for a checkpoint
            that is passed on while the images may not be.
        scale_maps: whether to measure the scale of each explainer's maps; not needed by a model that only counts.
        device: "auto", "cpu", "cuda" or "mps".
        report: receives lines about the course.
        progress: receives what is being done, how much is done, and of how much.

    Returns:
        The card of the saved checkpoint.

    Raises:
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible, or `out` holds something else than a checkpoint.
        CheckpointError: the initial weights cannot be had.
    """
    # Setup
    tune_memory()
    seed_everything(config.seed)
    target = choose_device(device)
    if len(index.classes) < 2:
        raise DataError(f"expected images of at least 2 classes, got {', '.join(index.classes) or 'none'}")
    check_destination(out)
    _new_model(config, len(index.classes))  # a setting that cannot be met is refused before any work
    index, leaks = with_groups_and_splits(index, config.seed, report, progress)
    input_size = config.input_size or common_size(index, _sample(index, config.seed).tolist())
    smallest = BACKBONES[config.backbone].config.min_size
    if min(input_size) < smallest:
        raise UsageError(f"input size {input_size[0]} x {input_size[1]}: expected at least {smallest} pixels a side")
    table = read_images(index, input_size, lambda done, of: progress("reading images", done, of))
    for problem in table.problems:
        report(f"left out: {problem}")
    parts = {part: table.part(np.flatnonzero(index.table["split"] == part)) for part in ("train", "val", "test")}
    if not len(parts["train"]) or not len(parts["val"]):
        raise DataError(
            f"expected images to train and to validate on, got {len(parts['train'])} and {len(parts['val'])}"
        )
    config = config.for_images(len(parts["train"]))
    preprocessing = measure(table, parts["train"], input_size)
    counts = ", ".join(f"{len(rows)} {part}" for part, rows in parts.items())
    report(
        f"{len(table.rows)} images, {len(index.classes)} classes, {counts}; seen at {input_size[0]} x {input_size[1]}, "
        f"mean grey {preprocessing.mean:.3f}, standard deviation {preprocessing.std:.3f}; on {target}"
    )

    # Fit
    run_folder = _run_folder(out, index, table, config)
    fit, result, rate, curves = _fit_or_retry(
        index, table, parts, preprocessing, config, target, run_folder, report, progress
    )
    model = _finished(fit, result)
    val_labels = table.labels[parts["val"]].numpy()

    # Calibrate and set thresholds on the validation split
    val_logits = fit.logits(model, parts["val"]).numpy().astype(np.float64)
    temperature = metrics.fit_temperature(val_logits, val_labels, config.head)
    val_probs = metrics.probabilities(val_logits, config.head, temperature)
    thresholds = metrics.refer_thresholds(val_probs, val_labels)

    # Count on the test split
    groups = index.table["group"].to_numpy()[table.rows]
    figures = {"val": _figures(val_probs, val_labels, index, groups[parts["val"].numpy()])}
    warning = _no_better_than_majority(figures["val"], index)
    if len(parts["test"]):
        test_logits = fit.logits(model, parts["test"]).numpy().astype(np.float64)
        test_probs = metrics.probabilities(test_logits, config.head, temperature)
        test_labels = table.labels[parts["test"]].numpy()
        figures["test"] = _figures(test_probs, test_labels, index, groups[parts["test"].numpy()])
        figures["test"]["refer"] = float((test_probs.max(axis=1) < thresholds[test_probs.argmax(axis=1)]).mean())
        figures["test"]["ece_before_temperature"] = float(
            metrics.ece(metrics.probabilities(test_logits, config.head), test_labels)[0]
        )

    # Card, background and scales
    if drawn_background:
        background, background_title = inference.drawn_background(preprocessing, config.seed), inference.DRAWN_TITLE
    else:
        background, background_title = _training_background(index, table, parts["train"], config.seed)
    card = Card(
        name=name or out.name,
        title=title or f"{index.spec.title}, {BACKBONES[config.backbone].config.title}",
        backbone=config.backbone,
        head=config.head,
        classes=index.classes,
        input_size=input_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        temperature=temperature,
        thresholds=dict(zip(index.classes, map(float, thresholds), strict=True)),
        data={
            "name": index.spec.name,
            "title": index.spec.title,
            "licence": index.spec.licence,
            "citation": index.spec.citation,
            "images": len(table.rows),
            "groups": len(set(groups)),
            "hash": _data_hash(table),
        },
        split={
            "seed": config.seed,
            "counts": {part: len(rows) for part, rows in parts.items()},
            "files": {part: [table.hashes[i][:16] for i in rows.tolist()] for part, rows in parts.items()},
        },
        metrics=figures,
        training={
            "settings": config.to_json() | {"init": Path(config.init).name, "learning_rate": rate},
            "learning_rate_search": [[(round(r, 6), round(loss, 4)) for r, loss in curve] for curve in curves],
            "best_epoch": result.epoch,
            "history": result.history,
            "torch": torch.__version__,
            "device": target.type,
        },
        background=background_title,
        notes=tuple(filter(None, (*notes, leaks, warning))),
        code_version=steel_core.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if scale_maps:
        predictor = Predictor(Checkpoint(card, model, background, ""), str(target))
        card = replace(card, map_scale=map_scales(predictor, some_images(table, parts["val"]), progress))
    save_checkpoint(out, card, model.state_dict(), background)

    # Clean up
    shutil.rmtree(run_folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other settings have an unfinished run there
        run_folder.parent.rmdir()
    if warning:
        report(f"WARNING: {warning}")
    report(
        f"saved {card.name}: "
        + ", ".join(f"{part} macro recall {f['macro_recall']:.3f}" for part, f in figures.items())
    )
    return card


def with_groups_and_splits(
    index: DatasetIndex, seed: int, report: Report, progress: Progress
) -> tuple[DatasetIndex, str]:
    """The data set with groups of near-duplicates and splits by group, made where they are missing.

    Splits that came with the data stand: a test split is never trained on. Where there is none to validate on, it is
    taken from the train split.

    Returns:
        The data set, and a sentence where the splits that came with it leak, else "".
    """
    index = with_groups(index, report, progress)
    if not (index.table["split"] != "").any():
        return split(index, SHARES, seed), ""
    leaking = index.leaking_groups()
    warning = ""
    if leaking:
        warning = (
            f"{len(leaking)} groups of near-duplicates lie in more than one of the splits that came with the data: "
            "the figures are better than they would be on new images."
        )
        report(f"WARNING: {warning}")
    if not (index.table["split"] == "val").any():
        report("the data has no validation split; a tenth of its train split serves as one")
        rows = np.flatnonzero(index.table["split"] == "train")
        splits = index.table["split"].to_numpy(dtype=object, copy=True)
        splits[rows] = split(index.select(rows=rows), (0.9, 0.1, 0.0), seed).table["split"].to_numpy()
        index = replace(index, table=index.table.assign(split=splits))
    return index, warning


def with_groups(index: DatasetIndex, report: Report, progress: Progress) -> DatasetIndex:
    """The data set with groups of near-duplicates, searched for unless every image has one."""
    if not (index.table["group"] == "").any():
        return index
    report("looking for near-duplicates")
    groups = near_duplicate_groups(index, progress=lambda done, of: progress("looking for near-duplicates", done, of))
    return index.with_groups(groups)


def _sample(index: DatasetIndex, seed: int) -> npt.NDArray[np.int64]:
    """Rows of some training images."""
    rows = np.flatnonzero(index.table["split"] == "train")
    return np.random.default_rng(seed).permutation(rows)[:_SIZE_SAMPLE]


def _fit_or_retry(
    index: DatasetIndex,
    table: ImageTable,
    parts: dict[str, torch.Tensor],
    preprocessing: Preprocessing,
    config: TrainConfig,
    device: torch.device,
    run_folder: Path,
    report: Report,
    progress: Progress,
) -> tuple[Fit, FitResult, float, Curves]:
    """Fit; where that is no better than naming the majority class, once more with a third of the rate. The better."""
    weights = class_weights(table.labels[parts["train"]], len(index.classes)).to(device)
    present = len(torch.unique(table.labels[parts["val"]]))
    rate = config.learning_rate or (TUNING_RATE if config.pretrained else None)
    curves: Curves = []
    tries: list[tuple[float, Fit, FitResult, float]] = []
    for attempt in range(2):
        seed_everything(config.seed + attempt)
        fit = Fit(_new_model(config, len(index.classes)), table, preprocessing, config, device)
        if rate is None:
            rate, curves = _found_rate(
                run_folder / "learning-rate.json", partial(find_learning_rate, fit, parts["train"], weights)
            )
            report(f"learning rate found: {rate:.1e}")
        state = run_folder / f"state-{attempt}.pt"
        result = run_fit(fit, parts["train"], parts["val"], rate, state, report, progress)
        if result.state:
            recall = result.history[result.epoch - 1]["val_macro_recall"]
            tries.append((recall, fit, result, rate))
            if metrics.wilson(recall, len(parts["val"]))[0] > 1 / present:
                break
        if attempt == 0:
            rate /= 3
            report(f"no better than the majority class; trying again with learning rate {rate:.1e}")
    if not tries:
        raise DataError("training found no weights with a finite loss, twice; are the images all alike?")
    _, fit, result, rate = max(tries, key=lambda attempt: attempt[0])
    return fit, result, rate, curves


def _found_rate(kept: Path, search: Callable[[], tuple[float, Curves]]) -> tuple[float, Curves]:
    """What the search found, kept for a run that goes on later: on a GPU a second search may find another rate."""
    if not kept.exists():
        write_bytes(kept, json.dumps(search()).encode())
    rate, curves = json.loads(kept.read_bytes())
    return rate, [[(r, loss) for r, loss in curve] for curve in curves]


def _new_model(config: TrainConfig, classes: int) -> Classifier:
    model = BACKBONES[config.backbone](classes, dropout=config.dropout)
    if config.init == "imagenet":
        load_features(model, model.pretrained())
    elif config.init != "random":
        if not Path(config.init).is_file():
            raise UsageError(f"init: expected random, imagenet or a file of weights, got {Path(config.init).name!r}")
        load_features(model, read_state_dict(Path(config.init)))
    if config.normalised and not model.config.batch_norm:
        insert_batch_norm(model.features)
    return model


def _finished(fit: Fit, result: FitResult) -> Classifier:
    """The plain network with the weights of the best epoch."""
    fit.model.load_state_dict(result.state)
    fold_batch_norm(fit.model.eval())
    return fit.model


def _figures(
    probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], index: DatasetIndex, groups: npt.NDArray[Any]
) -> dict[str, Any]:
    return metrics.evaluate(probs, labels, index.classes, [str(g) for g in groups]).to_json()


def _no_better_than_majority(figures: dict[str, Any], index: DatasetIndex) -> str:
    """A sentence if the interval of the macro recall holds what naming one class for every image would reach."""
    present = sum(count > 0 for count in figures["support"].values())
    if figures["intervals"]["macro_recall"][0] > 1 / present:
        return ""
    return (
        f"on {figures['n']} validation images this model is no better than always naming one class "
        f"(macro recall {figures['macro_recall']:.2f} against {1 / present:.2f}): do not rely on it. "
        f"More images of {', '.join(index.classes)}, or a closer look at their labels, would help"
    )


def _training_background(
    index: DatasetIndex, table: ImageTable, train_rows: torch.Tensor, seed: int
) -> tuple[npt.NDArray[np.uint8], str]:
    """Reference images (B, H, W) for SHAP: of class "clear" where there is one, else evenly over the classes."""
    labels = table.labels[train_rows].numpy()
    rng = np.random.default_rng(seed)
    wanted = [index.classes.index(CLEAR)] if CLEAR in index.classes else list(range(len(index.classes)))
    pools = [rng.permutation(np.flatnonzero(labels == k)) for k in wanted]
    count = BACKGROUND_IMAGES
    chosen = [pool[turn] for turn in range(count) for pool in pools if turn < len(pool)][:count]
    images = table.grids[train_rows[torch.from_numpy(np.array(chosen))], 0].float().numpy()
    title = f"{len(chosen)} {'clear ' if CLEAR in index.classes else ''}images of the training split"
    return (images * 255).round().astype(np.uint8), title


def _run_folder(out: Path, index: DatasetIndex, table: ImageTable, config: TrainConfig) -> Path:
    """Where an unfinished run keeps its state: one folder for each combination of data, split and settings."""
    splits = index.table["split"].to_list()
    content = json.dumps([config.to_json(), _data_hash(table), splits, index.classes], default=str)
    return out.parent / f".{out.name}-run" / hashlib.sha256(content.encode()).hexdigest()[:12]


def _data_hash(table: ImageTable) -> str:
    lines = sorted(f"{digest} {label}" for digest, label in zip(table.hashes, table.labels.tolist(), strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
