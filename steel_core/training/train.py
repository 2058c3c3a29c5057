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
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import steel_core
from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import near_duplicate_groups
from steel_core.data.splits import split
from steel_core.data.transforms import Preprocessing
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluate import data_key
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.predictor import DRAWN_TITLE, Predictor
from steel_core.inference.predictor import drawn_background as drawn_sheets
from steel_core.inference.tiling import squeezed
from steel_core.jobs.run_log import EpochLog, RunLog
from steel_core.metrics import multi_label
from steel_core.metrics.decisions import decide
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
from steel_core.progress import Progress, no_progress
from steel_core.training.cam_layer import with_cam_layer
from steel_core.training.config import TUNING_RATE, TrainConfig
from steel_core.training.distributed import Team
from steel_core.training.fit import Curves, Fit, FitResult, Report, find_learning_rate, run_fit
from steel_core.training.images import ImageTable, common_size, is_multi_label, measure, rare_defects, read_images
from steel_core.training.map_scales import map_scales, some_images
from steel_core.types import CLEAR, REFER

SHARES = (0.8, 0.1, 0.1)
"""Parts of a data set without splits that serve to train, to validate and to test."""

BACKGROUND_IMAGES = 20
_SIZE_SAMPLE = 200
_EXAMPLES = 12

P = ParamSpec("P")


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
    progress: Progress = no_progress,
    log: RunLog | None = None,
) -> Card:
    """Train on the train split, choose on the validation split, count on the test split, and save a checkpoint.

    An interrupted run goes on where it stopped when it is called again with the same data, settings and `out`. Within
    `steel_core.training.distributed.joined` several processes train one model; the first one writes and reports.

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
        log: where others follow the course, and ask it to stop.

    Returns:
        The card of the saved checkpoint.

    Raises:
        RunStopped: the log held a request to stop.
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible, or `out` holds something else than a checkpoint.
        CheckpointError: the initial weights cannot be had.
    """
    # Setup
    leads = Team.current().leads
    log = log if log and leads else RunLog()
    report, progress = _both(report, log.message, leads), _both(progress, log.progress, leads)
    tune_memory()
    seed_everything(config.seed)
    target = choose_device(device)
    check_destination(out)
    index, config, table, parts, preprocessing, leaks, init_hash = prepare(index, config, report, progress)
    several, input_size = table.labels.ndim == 2, preprocessing.input_size
    report(f"training {BACKBONES[config.backbone].config.title} on {target}")

    # Fit
    examples = _examples(table.labels[parts["val"]])
    log.write(
        "start",
        name=name or out.name,
        out=out,
        title=title,
        backbone=config.backbone,
        classes=index.classes,
        counts={part: len(rows) for part, rows in parts.items()},
        input_size=input_size,
        epochs=config.epochs,
        settings=config.to_json(),
        device=target.type,
        examples=_example_pictures(log, index, table, parts["val"][examples]),
    )
    run_folder = _run_folder(out, index, table, config, init_hash)
    fit, result, rate, curves = _fit_or_retry(
        index, table, parts, preprocessing, config, target, run_folder, report, progress, log, examples
    )
    model = _finished(fit, result)
    val_labels = table.labels[parts["val"]].numpy()

    # Calibrate and set thresholds on the validation split
    val_logits = fit.logits(model, parts["val"]).numpy().astype(np.float64)
    temperature = metrics.fit_temperature(val_logits, val_labels, config.head)
    val_probs = metrics.probabilities(val_logits, config.head, temperature)
    if several:
        thresholds = multi_label.fit_thresholds(val_probs, val_labels, index.classes)
    else:
        lines = metrics.refer_thresholds(val_probs, val_labels)
        thresholds = dict(zip(index.classes, map(float, lines), strict=True))

    # Count on the test split
    groups = index.table["group"].to_numpy()[table.rows]
    figures = {"val": _figures(val_probs, val_labels, index, thresholds, groups[parts["val"].numpy()])}
    warning = _no_better_than_majority(figures["val"], index)
    if len(parts["test"]):
        test_logits = fit.logits(model, parts["test"]).numpy().astype(np.float64)
        test_probs = metrics.probabilities(test_logits, config.head, temperature)
        test_labels = table.labels[parts["test"]].numpy()
        figures["test"] = _figures(test_probs, test_labels, index, thresholds, groups[parts["test"].numpy()])
        raw, gap = metrics.probabilities(test_logits, config.head), multi_label.mean_ece if several else metrics.ece
        figures["test"]["ece_before_temperature"] = float(np.nan_to_num(gap(raw, test_labels)[0]))

    # Card, background and scales
    if drawn_background:
        background, background_title = drawn_sheets(preprocessing, config.seed), DRAWN_TITLE
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
        multi_label=several,
        thresholds=thresholds,
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
            "settings": config.to_json() | {"init": Path(config.start).name, "learning_rate": rate},
            "init_sha256": init_hash,
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
    if not leads:
        return card
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
    report(f"saved {card.name}: " + ", ".join(f"{part} {_headline(f)}" for part, f in figures.items()))
    log.write("done", name=card.name, out=out, metrics=figures)
    return card


class Prepared(NamedTuple):
    """What a fit needs.

    Attributes:
        dataset: with groups and splits.
        config: settings, with the number of epochs and the Grad-CAM layer.
        table: the images.
        parts: positions in the table of the images of "train", "val" and "test".
        preprocessing: input size, mean and standard deviation of the training images.
        leaks: a sentence where the splits that came with the data leak, else "".
        init_hash: sha256 of the file of weights that training starts from, "" from random ones.
    """

    dataset: DatasetIndex
    config: TrainConfig
    table: ImageTable
    parts: dict[str, Tensor]
    preprocessing: Preprocessing
    leaks: str
    init_hash: str


def prepare(index: DatasetIndex, config: TrainConfig, report: Report, progress: Progress) -> Prepared:
    """Split and read the images, and settle what the settings leave open.

    Raises:
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible.
        CheckpointError: the initial weights cannot be had.
    """
    several = learns_several(index, config)
    new_model(config, len(index.classes))  # a setting that cannot be met is refused before any work
    init_hash = ""
    if weights := initial_weights(config):
        init_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        report(f"starting from {weights.name}, sha256 {init_hash}")
    index, leaks = with_groups_and_splits(index, config.seed, report, progress)
    if several:
        index = replace(index, classes=multi_label.defect_types(index.classes))
    input_size = config.input_size or common_size(index, _sample(index, config.seed).tolist())
    if warning := squeezed(index, input_size):
        report(f"WARNING: {warning}")
    config = replace(config, backbone=with_cam_layer(config.backbone, input_size))
    table = read_images(index, input_size, progress, config.head)
    for problem in table.problems:
        report(f"left out: {problem}")
    parts = {part: table.part(np.flatnonzero(index.table["split"] == part)) for part in ("train", "val", "test")}
    if not len(parts["train"]) or not len(parts["val"]):
        raise DataError(
            f"expected images to train and to validate on, got {len(parts['train'])} and {len(parts['val'])}"
        )
    if config.augmentation.patches:
        table = replace(table, centres=rare_defects(index, table, parts["train"]))
    preprocessing = measure(table, parts["train"], input_size)
    counts = ", ".join(f"{len(rows)} {part}" for part, rows in parts.items())
    report(
        f"{len(table.rows)} images, {len(index.classes)} classes, {counts}; seen at {input_size[0]} x {input_size[1]}, "
        f"mean grey {preprocessing.mean:.3f}, standard deviation {preprocessing.std:.3f}"
    )
    config = config.for_images(len(parts["train"]))
    return Prepared(index, config, table, parts, preprocessing, leaks, init_hash)


def learns_several(index: DatasetIndex, config: TrainConfig) -> bool:
    """Whether several classes an image are to be learnt, see `is_multi_label`; looks at no image.

    Raises:
        DataError: the labels cannot be trained on.
    """
    several = is_multi_label(index, config.head)
    if len(index.classes) < 2:
        raise DataError(f"expected images of at least 2 classes, got {', '.join(index.classes) or 'none'}")
    return several


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
    """The data set with groups of near-duplicates, searched for unless every image has one or they were found before.

    What was found is kept in the user's cache until an image or the program changes.
    """
    if not (index.table["group"] == "").any():
        return index
    kept = cache_folder() / "groups" / f"{steel_core.__version__}-{data_key(index)[:32]}.json"
    with contextlib.suppress(OSError, ValueError, UsageError):  # not made yet, or damaged
        return index.with_groups(json.loads(kept.read_bytes()))
    report("looking for near-duplicates")
    groups = near_duplicate_groups(index, progress=progress)
    with contextlib.suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(kept, json.dumps(groups.tolist()).encode())
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
    log: RunLog,
    examples: Tensor,
) -> tuple[Fit, FitResult, float, Curves]:
    """Fit; where that is no better than naming the majority class, once more with a third of the rate. The better."""
    chance = 0.5 if table.labels.ndim == 2 else 1 / len(torch.unique(table.labels[parts["val"]]))
    rate = config.learning_rate or (TUNING_RATE if config.pretrained else None)
    curves: Curves = []
    tries: list[tuple[float, Fit, FitResult, float]] = []
    for attempt in range(2):
        seed_everything(config.seed + attempt)
        fit = Fit(new_model(config, len(index.classes)), table, preprocessing, config, device)
        if rate is None:
            rate, curves = _found_rate(
                run_folder / "learning-rate.json", partial(find_learning_rate, fit, parts["train"])
            )
            log.write("learning-rate", learning_rate=rate, curves=curves)
            report(f"learning rate found: {rate:.1e}")
        state = run_folder / f"state-{attempt}.pt"
        on_epoch = EpochLog(log, index.classes, config.head, config.epochs, examples.tolist())
        result = run_fit(fit, parts["train"], parts["val"], rate, state, report, progress, on_epoch)
        if result.state:
            best = result.history[result.epoch - 1]
            reached = best["val_auc"] if "val_auc" in best else best["val_macro_recall"]
            tries.append((reached, fit, result, rate))
            if metrics.wilson(reached, len(parts["val"]))[0] > chance:
                break
        if attempt == 0:
            rate /= 3
            report(f"no better than without learning; trying again with learning rate {rate:.1e}")
    if not tries:
        raise DataError("training found no weights with a finite loss, twice; are the images all alike?")
    _, fit, result, rate = max(tries, key=lambda attempt: attempt[0])
    return fit, result, rate, curves


def _found_rate(kept: Path, search: Callable[[], tuple[float, Curves]]) -> tuple[float, Curves]:
    """What the search found, kept for a run that goes on later: on a GPU a second search may find another rate."""
    found = json.loads(kept.read_bytes()) if kept.exists() else search()
    if Team.current().leads:
        write_bytes(kept, json.dumps(found).encode())
    rate, curves = found
    return rate, [[(r, loss) for r, loss in curve] for curve in curves]


def _both(first: Callable[P, None], second: Callable[P, None], leads: bool) -> Callable[P, None]:
    """Calls both; neither in a process that does not lead."""

    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        if leads:
            first(*args, **kwargs)
            second(*args, **kwargs)

    return tell


def _examples(labels: Tensor) -> Tensor:
    """Positions of a few images validated on, as many of each class as there is room for."""
    firsts = labels if labels.ndim == 1 else labels.argmax(dim=1)
    pools = [torch.where(firsts == k)[0].tolist() for k in firsts.unique()]
    turns = [at for turn in zip_longest(*pools) for at in turn if at is not None]
    return torch.tensor(turns[:_EXAMPLES])


def _example_pictures(log: RunLog, index: DatasetIndex, table: ImageTable, positions: Tensor) -> list[dict[str, str]]:
    """The pictures as the network sees them, and what each is."""
    pictures = log.save_pictures(list((table.grids[positions, 0].float() * 255).round().byte().numpy()))
    cells = index.table.iloc[table.rows[positions.numpy()]]
    return [
        {"picture": picture, "file": Path(path).name, "actual": actual.replace("|", ", ")}
        for picture, path, actual in zip(pictures, cells["path"], cells["labels"], strict=False)
    ]


def new_model(config: TrainConfig, classes: int) -> Classifier:
    """A network before training, with the initial weights that the settings ask for.

    Raises:
        UsageError: the backbone is unknown, or there is no such file of weights.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    model = BACKBONES[config.backbone](classes, dropout=config.dropout)
    if weights := initial_weights(config):
        load_features(model, read_state_dict(weights))
    if config.normalised and not model.config.batch_norm:
        insert_batch_norm(model.features)
    return model


def initial_weights(config: TrainConfig) -> Path | None:
    """The file of weights that the settings ask to start from; None for random ones.

    Raises:
        UsageError: the backbone is unknown, or there is no such file.
        CheckpointError: the weights cannot be had.
    """
    if config.start == "random":
        return None
    if config.start == "imagenet":
        return BACKBONES[config.backbone].pretrained()
    if not Path(config.init).is_file():
        raise UsageError(f"init: expected random, imagenet or a file of weights, got {Path(config.init).name!r}")
    return Path(config.init)


def _finished(fit: Fit, result: FitResult) -> Classifier:
    """The plain network with the weights of the best epoch."""
    fit.model.load_state_dict(result.state)
    fold_batch_norm(fit.model.eval())
    return fit.model


def _figures(
    probs: npt.NDArray[np.float64],
    labels: npt.NDArray[Any],
    index: DatasetIndex,
    thresholds: dict[str, float],
    groups: npt.NDArray[Any],
) -> dict[str, Any]:
    """The figures of a part for the card; of one label an image, "refer" is the share that a person must decide."""
    names = [str(group) for group in groups]
    if labels.ndim == 2:
        called = multi_label.named(probs, index.classes, thresholds)
        said = multi_label.outcomes(probs, index.classes, thresholds)
        return multi_label.evaluate(probs, labels, index.classes, called, said, names).to_json()
    refer = decide(probs, index.classes, thresholds) == REFER
    return metrics.evaluate(probs, labels, index.classes, names).to_json() | {"refer": float(refer.mean())}


def _headline(figures: dict[str, Any]) -> str:
    name = "mean_average_precision" if figures.get("multi_label") else "macro_recall"
    return f"{name.replace('_', ' ')} " + ("unknown" if figures[name] is None else f"{figures[name]:.3f}")


def _no_better_than_majority(figures: dict[str, Any], index: DatasetIndex) -> str:
    """A sentence if the interval of what was reached holds what a model that has learnt nothing would reach."""
    if metrics.beats_chance(figures):
        return ""
    name, level = metrics.chance(figures)
    what = "chance" if figures.get("multi_label") else "always naming one class"
    return (
        f"On {figures['n']} validation images this model is no better than {what} "
        f"({name.replace('_', ' ')} {figures[name] or 0.0:.2f} against {level:.2f}): do not rely on it. "
        f"More images of {', '.join(index.classes)}, or a closer look at their labels, would help."
    )


def _training_background(
    index: DatasetIndex, table: ImageTable, train_rows: torch.Tensor, seed: int
) -> tuple[npt.NDArray[np.uint8], str]:
    """Reference images (B, H, W) for SHAP: of class "clear" where there is one, else evenly over the classes."""
    labels = index.table["labels"].iloc[table.rows[train_rows.numpy()]]
    rng = np.random.default_rng(seed)
    clear = (labels == CLEAR).any()
    wanted = [CLEAR] if clear else index.classes
    pools = [rng.permutation(np.flatnonzero([name in cell.split("|") for cell in labels])) for name in wanted]
    count = BACKGROUND_IMAGES
    chosen = [pool[turn] for turn in range(count) for pool in pools if turn < len(pool)][:count]
    images = table.grids[train_rows[torch.from_numpy(np.array(chosen))], 0].float().numpy()
    title = f"{len(chosen)} {'clear ' if clear else ''}images of the training split"
    return (images * 255).round().astype(np.uint8), title


def _run_folder(out: Path, index: DatasetIndex, table: ImageTable, config: TrainConfig, init_hash: str) -> Path:
    """Where an unfinished run keeps its state: one folder for each combination of data, split, settings and weights."""
    splits, settings = index.table["split"].to_list(), config.to_json() | {"init": init_hash or config.start}
    content = json.dumps([settings, _data_hash(table), splits, index.classes], default=str)
    return out.parent / f".{out.name}-run" / hashlib.sha256(content.encode()).hexdigest()[:12]


def _data_hash(table: ImageTable) -> str:
    lines = sorted(f"{digest} {label}" for digest, label in zip(table.hashes, table.labels.tolist(), strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
