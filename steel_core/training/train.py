"""Train a checkpoint: read, split, measure, find a learning rate, fit, calibrate, test, save. Reads top to bottom."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

import steel_core
from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError
from steel_core.files import write_bytes
from steel_core.inference.backgrounds import DRAWN_TITLE, draw_background
from steel_core.jobs.run_log import EpochLog, RunLog
from steel_core.metrics import multi_label
from steel_core.metrics.decisions import decide_outcomes
from steel_core.models.base import BACKBONES
from steel_core.models.batch_norm import fold_batch_norm
from steel_core.models.card import Card
from steel_core.models.checkpoint import check_destination, save_checkpoint
from steel_core.progress import Progress, Say, Stages, no_progress
from steel_core.records import to_toml
from steel_core.training.distributed import ProcessGroup
from steel_core.training.doubts import describe_gap, record_clues, warn_of_clues
from steel_core.training.finish import finish_checkpoint
from steel_core.training.fit import Curves, Fit, FitResult, find_learning_rate, run_fit
from steel_core.training.images import ImageTable
from steel_core.training.map_scales import some_images
from steel_core.training.new_model import new_model
from steel_core.training.prepare import Prepared, prepare
from steel_core.training.settings import TUNING_RATE, TrainingSettings
from steel_core.types import CLEAR, REFER, AnyArray, Float64Array, UInt8Array

RUN_FILE = "run.toml"
"""The settings as they were asked for, beside the checkpoint; the command line takes the file."""

BACKGROUND_IMAGES = 20
_EXAMPLES = 12

P = ParamSpec("P")


def train(  # noqa: PLR0915 - a recipe reads from top to bottom
    index: DatasetIndex,
    out: Path,
    config: TrainingSettings = TrainingSettings(),
    *,
    name: str = "",
    title: str = "",
    notes: tuple[str, ...] = (),
    drawn_background: bool = False,
    finish: bool = True,
    device: str = "auto",
    report: Say = print,
    progress: Progress = no_progress,
    log: RunLog | None = None,
) -> Card:
    """Train on the train split, choose on the validation split, count on the test split, and save a checkpoint.

    An interrupted run goes on where it stopped when it is called again with the same data, settings and `out`. Within
    `join_process_group` several processes train one model; the first one writes and reports. Groups and splits are made
    where the data set has none. `name` is that of `out` if empty.

    With `drawn_background` SHAP compares with sheets drawn by the program instead of training images, for a checkpoint
    that is passed on while the images may not be. Without `finish` neither the scale of each explainer's maps is
    measured nor the gate for unfamiliar images, nor are the data asked what predicts the label, for a model that only
    counts. By `log` others follow the course, and ask it to stop.

    Raises:
        RunStopped: the log held a request to stop.
        DataError: the data cannot be trained on.
        UsageError: a setting is unknown or impossible, or `out` holds something else than a checkpoint.
        CheckpointError: the initial weights cannot be had.
    """
    # Setup
    leads, asked = ProcessGroup.current().is_rank_zero, config
    log = log if log and leads else RunLog()
    report, progress = _tee(report, log.message, leads), _tee(progress, log.progress, leads)
    tune_memory()
    stages = Stages(report)
    seed_everything(config.seed)
    target = choose_device(device)
    check_destination(out)
    with stages("preparing the images"):
        prepared = prepare(index, config, report, progress)
    with stages("asking the data what predicts the label"):
        # Of the index as it came: one mark on many sheets makes them near-duplicates, and so one piece of steel.
        splits = prepared.dataset.table["split"].to_numpy(str)
        clues = warn_of_clues(index, splits, report, progress) if leads and finish else []
    index, config, table, parts, preprocessing, leaks, init_hash = prepared
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
    run_folder = _run_folder(out, prepared)
    with stages("training"):
        fit, result, rate, curves = _fit_or_retry(prepared, target, run_folder, examples, report, progress, log)
    model = fit.model
    model.load_state_dict(result.state)
    fold_batch_norm(model.eval())
    with stages("predicting"):
        logits = {part: fit.logits(model, parts[part], progress).numpy().astype(np.float64)
                  for part in ("val", "test") if len(parts[part])}  # fmt: skip

    # Calibrate and set thresholds on the validation split
    val_logits, val_labels = logits["val"], table.labels[parts["val"]].numpy()
    temperature = metrics.fit_temperature(val_logits, val_labels, config.head)
    val_probs = metrics.logits_to_probabilities(val_logits, config.head, temperature)
    if several:
        thresholds = multi_label.fit_thresholds(val_probs, val_labels, index.classes)
    else:
        lines = metrics.fit_refer_thresholds(val_probs, val_labels)
        thresholds = dict(zip(index.classes, map(float, lines), strict=True))

    # Count on the test split
    groups = index.table["group"].to_numpy()[table.rows]
    reports = {"val": _count(val_probs, val_labels, index, thresholds, groups[parts["val"].numpy()])}
    warning = _no_better_than_majority(reports["val"], index)
    if (test_logits := logits.get("test")) is not None:
        test_probs = metrics.logits_to_probabilities(test_logits, config.head, temperature)
        test_labels = table.labels[parts["test"]].numpy()
        reports["test"] = _count(test_probs, test_labels, index, thresholds, groups[parts["test"].numpy()])
        raw = metrics.logits_to_probabilities(test_logits, config.head)
        gap = multi_label.mean_ece if several else metrics.ece
        reports["test"]["ece_before_temperature"] = float(np.nan_to_num(gap(raw, test_labels)[0]))

    fall = describe_gap(reports, clues)

    # Card, background, scales and gate
    if drawn_background:
        background, background_title = draw_background(preprocessing, config.seed), DRAWN_TITLE
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
        split={"seed": config.seed, **table.describe_split(parts)},
        metrics=reports,
        training={
            "settings": config.to_json() | {"init": Path(config.start).name, "learning_rate": rate},
            "init_sha256": init_hash,
            "learning_rate_search": [[(round(r, 6), round(loss, 4)) for r, loss in curve] for curve in curves],
            "best_epoch": result.epoch,
            "clues": record_clues(clues),
            "history": result.history,
            "torch": torch.__version__,
            "device": target.type,
        },
        background=background_title,
        notes=tuple(filter(None, (*notes, leaks, warning, fall))),
        code_version=steel_core.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if not leads:
        return card
    if finish:
        samples = some_images(table, parts["val"])
        card = finish_checkpoint(
            out, card, model, background, index, samples, stages=stages, device=target, report=report, progress=progress
        )
    else:
        save_checkpoint(out, card, model.state_dict(), background)
    weights = Path(asked.init)  # a checkpoint is passed on: it names the file of weights, not where it lay
    shown = asked.replace(init=weights.name) if weights.name != asked.init else asked
    write_bytes(out / RUN_FILE, to_toml(shown).encode())

    # Clean up
    shutil.rmtree(run_folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other settings have an unfinished run there
        run_folder.parent.rmdir()
    for sentence in filter(None, (warning, fall)):
        report(f"WARNING: {sentence}")
    report(f"saved {card.name}: " + ", ".join(f"{part} {_headline(f)}" for part, f in reports.items()))
    report(stages.summary)
    log.write("done", name=card.name, out=out, metrics=reports, seconds=stages.seconds)
    return card


def _fit_or_retry(
    prepared: Prepared,
    device: torch.device,
    run_folder: Path,
    examples: Tensor,
    report: Say,
    progress: Progress,
    log: RunLog,
) -> tuple[Fit, FitResult, float, Curves]:
    """Fit; where that is no better than naming the majority class, once more with a third of the rate. The better."""
    index, config, table, parts, preprocessing, *_ = prepared
    chance = 0.5 if table.labels.ndim == 2 else 1 / len(torch.unique(table.labels[parts["val"]]))
    rate = config.learning_rate or (TUNING_RATE if config.pretrained else None)
    curves: Curves = []
    tries: list[tuple[float, Fit, FitResult, float]] = []
    for attempt in range(2):
        seed_everything(config.seed + attempt)
        fit = Fit(new_model(config, len(index.classes)), table, preprocessing, config, device)
        if rate is None:
            rate, curves = _find_rate_once(run_folder / "learning-rate.json", fit, parts["train"])
            log.write("learning-rate", learning_rate=rate, curves=curves)
            report(f"learning rate found: {rate:.1e}")
        state = run_folder / f"state-{attempt}.pt"
        on_epoch = EpochLog(log, index.classes, config.head, config.epochs, examples.tolist())
        result = run_fit(fit, parts["train"], parts["val"], rate, state, report, progress, on_epoch)
        if result.state:
            best = result.history[result.epoch - 1]
            reached = best["val_auc"] if "val_auc" in best else best["val_macro_recall"]
            tries.append((reached, fit, result, rate))
            if metrics.wilson_interval(reached, len(parts["val"]))[0] > chance:
                break
        if attempt == 0:
            rate /= 3
            report(f"no better than without learning; trying again with learning rate {rate:.1e}")
    if not tries:
        raise DataError("training found no weights with a finite loss, twice; are the images all alike?")
    _, fit, result, rate = max(tries, key=lambda attempt: attempt[0])
    return fit, result, rate, curves


def _find_rate_once(kept: Path, fit: Fit, rows: Tensor) -> tuple[float, Curves]:
    """The rate is kept for a run that goes on later: on a GPU a second search may find another one."""
    rate, curves = json.loads(kept.read_bytes()) if kept.exists() else find_learning_rate(fit, rows)
    if ProcessGroup.current().is_rank_zero:
        write_bytes(kept, json.dumps([rate, curves]).encode())
    return rate, [[(r, loss) for r, loss in curve] for curve in curves]


def _tee(first: Callable[P, None], second: Callable[P, None], leads: bool) -> Callable[P, None]:
    """Calls both; neither in a process that does not lead."""

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if leads:
            first(*args, **kwargs)
            second(*args, **kwargs)

    return call


def _examples(labels: Tensor) -> Tensor:
    """Positions of a few images validated on, as many of each class as there is room for."""
    firsts = labels if labels.ndim == 1 else labels.argmax(dim=1)
    pools = [torch.where(firsts == k)[0].tolist() for k in firsts.unique()]
    turns = [at for turn in zip_longest(*pools) for at in turn if at is not None]
    return torch.tensor(turns[:_EXAMPLES])


def _example_pictures(log: RunLog, index: DatasetIndex, table: ImageTable, positions: Tensor) -> list[dict[str, str]]:
    pictures = log.save_pictures(list((table.grids[positions, 0].float() * 255).round().byte().numpy()))
    cells = index.table.iloc[table.rows[positions.numpy()]]
    return [
        {"picture": picture, "file": Path(path).name, "actual": actual.replace("|", ", ")}
        for picture, path, actual in zip(pictures, cells["path"], cells["labels"], strict=False)
    ]


def _count(
    probs: Float64Array, labels: AnyArray, index: DatasetIndex, thresholds: dict[str, float], groups: AnyArray
) -> dict[str, Any]:
    """The report of a part for the card; of one label an image, "refer" is the share that a person must decide."""
    names = [str(group) for group in groups]
    if labels.ndim == 2:
        called = multi_label.named_types(probs, index.classes, thresholds)
        outcomes = multi_label.decide_outcomes(probs, index.classes, thresholds)
        return multi_label.evaluate(probs, labels, index.classes, called, outcomes, names).to_json()
    refer = decide_outcomes(probs, index.classes, thresholds) == REFER
    return metrics.evaluate(probs, labels, index.classes, names).to_json() | {"refer": float(refer.mean())}


def _headline(report: dict[str, Any]) -> str:
    name = "mean_average_precision" if report.get("multi_label") else "macro_recall"
    return f"{name.replace('_', ' ')} " + ("unknown" if report[name] is None else f"{report[name]:.3f}")


def _no_better_than_majority(report: dict[str, Any], index: DatasetIndex) -> str:
    """A sentence if the interval of what was reached holds what a model that has learnt nothing would reach."""
    if metrics.beats_chance(report):
        return ""
    name, level = metrics.chance_level(report)
    what = "chance" if report.get("multi_label") else "always naming one class"
    return (
        f"On {report['n']} validation images this model is no better than {what} "
        f"({name.replace('_', ' ')} {report[name] or 0.0:.2f} against {level:.2f}): do not rely on it. "
        f"More images of {', '.join(index.classes)}, or a closer look at their labels, would help."
    )


def _training_background(index: DatasetIndex, table: ImageTable, rows: Tensor, seed: int) -> tuple[UInt8Array, str]:
    """Reference images (B, H, W) for SHAP: of class "clear" where there is one, else evenly over the classes."""
    labels = index.table["labels"].iloc[table.rows[rows.numpy()]]
    rng = np.random.default_rng(seed)
    clear = (labels == CLEAR).any()
    wanted = [CLEAR] if clear else index.classes
    pools = [rng.permutation(np.flatnonzero([name in cell.split("|") for cell in labels])) for name in wanted]
    turns = [pool[turn] for turn in range(BACKGROUND_IMAGES) for pool in pools if turn < len(pool)]
    chosen = turns[:BACKGROUND_IMAGES]
    images = table.grids[rows[torch.from_numpy(np.array(chosen))], 0].float().numpy()
    title = f"{len(chosen)} {'clear ' if clear else ''}images of the training split"
    return (images * 255).round().astype(np.uint8), title


def _run_folder(out: Path, prepared: Prepared) -> Path:
    """Where an unfinished run keeps its state: one folder for each combination of data, split, settings and weights."""
    index, config = prepared.dataset, prepared.config
    splits, settings = index.table["split"].to_list(), config.to_json() | {"init": prepared.init_hash or config.start}
    content = json.dumps([settings, _data_hash(prepared.table), splits, index.classes], default=str)
    return out.parent / f".{out.name}-run" / hashlib.sha256(content.encode()).hexdigest()[:12]


def _data_hash(table: ImageTable) -> str:
    lines = sorted(f"{digest} {label}" for digest, label in zip(table.hashes, table.labels.tolist(), strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
