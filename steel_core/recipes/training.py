"""The parts that training recipes share: images held in memory, the search for a learning rate, one fit, its state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steel_core.data.augment import Augmentation
from steel_core.data.index import DatasetIndex
from steel_core.data.transforms import Preprocessing, grey_statistics
from steel_core.device import seed_everything
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.metrics import confusion, macro_recall
from steel_core.models.base import Classifier

Report = Callable[[str], None]
"""Receives one line about the course."""

Curves = list[list[tuple[float, float]]]
"""Learning rate and loss of each step, of each run of the search."""

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much is done, and of how much."""


_EPOCHS, _STEPS = 25, 800
_TUNING_EPOCHS, _TUNING_STEPS = 10, 320  # from trained weights
_HIGHEST_RATE = 4e-3  # AdamW gains nothing above it on these networks
TUNING_RATE = 1e-3  # trained weights are kept by a rate that is low, not by one that is as high as the loss allows
_HEAD_FACTOR = 4.0  # a new head on trained features learns faster than they do


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one training run.

    Attributes:
        backbone: name in the registry of backbones.
        head: "softmax" (one class an image) or "sigmoid" (a probability for each class alone).
        epochs: passes over the training images at the most; if 0, 25, or more where the images are few, so that there
            are at least 800 steps; from trained weights 10, and at least 320 steps.
        patience: epochs without a better validation loss before it stops; counted after the first half.
        batch_size: images a step.
        learning_rate: highest rate of the one-cycle schedule; if None, searched for, or 1e-3 from trained weights.
            There the new head learns at four times the rate.
        weight_decay: of AdamW.
        dropout: before the head.
        label_smoothing: share of the target spread over all classes.
        average: weights are averaged over about this many steps; the average is validated and kept.
        init: "random", "imagenet", or a file with weights of the same architecture.
        batch_norm: normalise while training from random weights, and fold it into the weights afterwards.
        input_size: height and width; the median of a sample of training images, at most 256 on the shorter side, if
            None.
        augmentation: how images are varied.
        half: compute in bfloat16 where the hardware has it; weights stay float32.
        seed: of everything drawn at random.
    """

    backbone: str = "squeezenet-reduced"
    head: str = "softmax"
    epochs: int = 0
    patience: int = 10
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.02
    dropout: float = 0.2
    label_smoothing: float = 0.05
    average: int = 60
    init: str = "random"
    batch_norm: bool = True
    input_size: tuple[int, int] | None = None
    augmentation: Augmentation = Augmentation()
    half: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.head not in ("softmax", "sigmoid"):
            raise UsageError(f"head: expected softmax or sigmoid, got {self.head!r}")
        if self.epochs < 0 or self.batch_size < 1:
            raise UsageError(f"expected 0 or more epochs and 1 image a batch, got {self.epochs} and {self.batch_size}")
        if self.seed < 0:
            raise UsageError(f"seed: expected 0 or more, got {self.seed}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError(f"learning rate: expected a positive number, got {self.learning_rate}")

    def for_images(self, n: int) -> TrainConfig:
        """The same settings with the number of epochs that suits `n` training images, unless it was given."""
        epochs, steps = (_TUNING_EPOCHS, _TUNING_STEPS) if self.pretrained else (_EPOCHS, _STEPS)
        of = math.ceil(n / self.batch_size)
        return self if self.epochs else replace(self, epochs=max(epochs, math.ceil(steps / of)))

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that were trained before."""
        return self.init != "random"

    @property
    def normalised(self) -> bool:
        """Whether batch normalisation is put into the network; into trained weights it would not fit."""
        return self.batch_norm and not self.pretrained

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return asdict(self)


@dataclass(frozen=True)
class ImageTable:
    """The readable, labelled images of a data set on the grid a network sees.

    Attributes:
        grids: (N, 1, H, W) float16 grey in 0 to 1.
        labels: (N,) index of the class.
        rows: (N,) row of the data set's table.
        hashes: sha256 of each image's bytes.
        problems: one sentence for each image that could not be read.
    """

    grids: Tensor
    labels: Tensor
    rows: npt.NDArray[np.int64]
    hashes: tuple[str, ...]
    problems: tuple[str, ...]

    def part(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Positions (M,) in this table of the data set's rows that are in it."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.rows, rows)))


def read_images(index: DatasetIndex, input_size: tuple[int, int], progress: Callable[[int, int], None]) -> ImageTable:
    """Decode a data set once. An image that cannot be read is reported and left out.

    Raises:
        DataError: an image has no label or several, or none could be read.
    """
    several = int((index.table["labels"].str.contains("|", regex=False) | (index.table["labels"] == "")).sum())
    if several:
        raise DataError(f"expected one label for each image; {several} of {len(index)} have none or several")
    shape = Preprocessing(input_size, 0.0, 1.0)
    numbers = {name: k for k, name in enumerate(index.classes)}
    grids = torch.empty((len(index), 1, *input_size), dtype=torch.float16)
    labels: list[int] = []
    rows: list[int] = []
    hashes: list[str] = []
    problems: list[str] = []
    for i in range(len(index)):
        progress(i, len(index))
        try:
            image = index.image(i)
        except ImageError as error:
            problems.append(str(error))
            continue
        grid, _ = shape.to_grid(image)
        grids[len(rows), 0] = torch.from_numpy(_centre(grid, input_size).astype(np.float16))
        labels.append(numbers[index[i].label])
        rows.append(i)
        hashes.append(image.sha256)
    progress(len(index), len(index))
    if not rows:
        raise DataError(f"none of the {len(index)} images could be read; the first: {(problems or ['no image'])[0]}")
    return ImageTable(grids[: len(rows)], torch.tensor(labels), np.array(rows), tuple(hashes), tuple(problems))


def common_size(index: DatasetIndex, rows: Sequence[int], largest: int = 256) -> tuple[int, int]:
    """Median height and width of some images, scaled down so that the shorter side is at most `largest` pixels."""
    sizes = []
    for i in rows:
        try:
            image = index.image(int(i))
        except ImageError:
            continue
        sizes.append((image.height, image.width))
    if not sizes:
        raise DataError(f"none of the first {len(rows)} images could be read")
    height, width = np.median(np.array(sizes), axis=0)
    zoom = min(1.0, largest / min(height, width))
    return round(height * zoom), round(width * zoom)


def measure(table: ImageTable, rows: Tensor, input_size: tuple[int, int]) -> Preprocessing:
    """Input size, mean and standard deviation of the images at those positions."""
    mean, std = grey_statistics(table.grids[i].float().numpy() for i in rows.tolist())
    return Preprocessing(input_size, mean, std)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (K,) inverse to the frequency of each class, 1 on average over the images."""
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (counts.clamp(min=1) * (counts > 0).sum()), torch.zeros(()))


@dataclass
class Fit:
    """One model in training: everything an epoch changes, and what it needs to go on after an interruption."""

    model: Classifier
    table: ImageTable
    preprocessing: Preprocessing
    config: TrainConfig
    device: torch.device

    def __post_init__(self) -> None:
        """Move the model to the device."""
        self.model.to(self.device).to(memory_format=torch.channels_last)

    def loss(self, logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
        """Mean loss of logits (N, K), classes weighed by `weights` (K,)."""
        if self.config.head == "softmax":
            return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
        hot = F.one_hot(labels, logits.shape[1]).float()
        soft = hot * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(dim=1)
        return (each * weights[labels]).sum() / weights[labels].sum()

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Varied, normalised images (N, 3, H, W) and labels (N,) on the device."""
        grey = (self.table.grids[positions].to(self.device).float() - self.preprocessing.mean) / self.preprocessing.std
        varied = self.config.augmentation(grey)
        three = varied.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return three, self.table.labels[positions].to(self.device)

    def logits(self, model: Classifier, positions: Tensor) -> Tensor:
        """Logits (N, K) of unvaried images, in evaluation mode, in full precision, on the CPU."""
        model.eval()
        with torch.inference_mode():
            return torch.cat(
                [
                    model(self.preprocessing.normalise(self.table.grids[rows].to(self.device).float())).float().cpu()
                    for rows in positions.split(8 if self.device.type == "cpu" else 256)
                ]
            )

    def step(self, optimiser: torch.optim.Optimizer, positions: Tensor, weights: Tensor) -> float:
        """One step of the optimiser; returns the loss before it."""
        images, labels = self.batch(positions)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.half and has_bfloat16(self.device)):
            logits = self.model(images)
        loss = self.loss(logits.float(), labels, weights, self.config.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (CUDA from Ampere on; CPUs with AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def optimiser_for(model: Classifier, rate: float, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) with weight decay on weights and none on biases.

    From trained weights the head learns faster than the features (discriminative rates: Howard and Ruder, ACL 2018).
    """
    features_own = {id(p) for p in model.features.parameters()}
    groups: list[dict[str, Any]] = []
    for features in (True, False):
        factor = _HEAD_FACTOR if config.pretrained and not features else 1.0
        mine = [p for p in model.parameters() if (id(p) in features_own) == features]
        groups += [
            {"params": [p for p in mine if p.ndim > 1], "lr": rate * factor, "weight_decay": config.weight_decay},
            {"params": [p for p in mine if p.ndim <= 1], "lr": rate * factor, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(groups)


def find_learning_rate(
    fit: Fit, rows: Tensor, weights: Tensor, lowest: float = 3e-4, highest: float = 3e-2, steps: int = 36
) -> tuple[float, Curves]:
    """The highest learning rate for one-cycle training, from runs in which it grows until the loss breaks away.

    Each run takes a copy of the model and a rate that grows geometrically; it ends where the loss is a quarter above
    the median of the run so far. The answer is a third of that rate, as a geometric mean of two runs, since a single
    one errs by a factor of three; at most `_HIGHEST_RATE`.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.

    Returns:
        The rate, and the runs' curves as pairs of rate and loss.
    """
    curves: Curves = []
    for run in range(2):
        seed_everything(fit.config.seed + run)
        trial = Fit(copy.deepcopy(fit.model).train(), fit.table, fit.preprocessing, fit.config, fit.device)
        optimiser = optimiser_for(trial.model, lowest, fit.config)
        curve: list[tuple[float, float]] = []
        for step, positions in zip(range(steps), _endless(rows, fit.config.batch_size), strict=False):
            rate = lowest * (highest / lowest) ** (step / (steps - 1))
            for group in optimiser.param_groups:
                group["lr"] = rate
            curve.append((rate, trial.step(optimiser, positions, weights)))
            losses = [loss for _, loss in curve]
            if not losses[-1] < 1.25 * float(np.median(losses)):  # not a number counts as breaking away
                break
        curves.append(curve)
    breaks = [math.log(curve[-1][0]) for curve in curves]
    return min(math.exp(sum(breaks) / len(breaks)) / 3, _HIGHEST_RATE), curves


@dataclass
class FitResult:
    """What a fit leaves.

    Attributes:
        state: weights of the best epoch, averaged.
        epoch: that epoch, from 1.
        history: one row an epoch: epoch, train_loss, val_loss, val_macro_recall, learning_rate.
    """

    state: dict[str, Tensor]
    epoch: int
    history: list[dict[str, float]]


def run_fit(
    fit: Fit, train: Tensor, val: Tensor, rate: float, state_file: Path, report: Report, progress: Progress
) -> FitResult:
    """Train with one-cycle, average the weights, validate each epoch, keep the best, stop early.

    The state after each epoch is written to `state_file`, and a run that finds one goes on where it stopped: random
    numbers are seeded by epoch, so the result is the same as without the interruption.

    Source: one-cycle: Smith and Topin, arXiv:1708.07120.
    """
    config, classes = fit.config, fit.logits(fit.model, train[:1]).shape[1]
    weights = class_weights(fit.table.labels[train], classes).to(fit.device)
    optimiser = optimiser_for(fit.model, rate, config)
    steps = math.ceil(len(train) / config.batch_size)
    total = steps * config.epochs
    rising = 0.25 if total > 8 else 0.3  # a rise of exactly one step divides by zero in torch
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=total, pct_start=rising, cycle_momentum=False
    )
    averaged = copy.deepcopy(fit.model)
    result = FitResult({}, 0, [])
    if state_file.exists():
        kept = torch.load(state_file, map_location=fit.device, weights_only=True)
        fit.model.load_state_dict(kept["model"])
        averaged.load_state_dict(kept["averaged"])
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        result = FitResult(kept["best"], kept["best_epoch"], kept["history"])
        report(f"resumed after epoch {len(result.history)}")

    for epoch in range(len(result.history) + 1, config.epochs + 1):
        if epoch - 1 > config.epochs // 2 and epoch - 1 - result.epoch >= config.patience:
            report(f"no better for {config.patience} epochs: stopped early")
            break
        seed_everything(config.seed * 10_000 + epoch)
        fit.model.train()
        summed = 0.0
        batches = train[torch.randperm(len(train))].split(config.batch_size)
        for number, positions in enumerate(batches, start=(epoch - 1) * steps):
            progress("training", number, total)
            summed += fit.step(optimiser, positions, weights) * len(positions)
            schedule.step()
            _follow(averaged, fit.model, 1 / min(config.average, schedule.last_epoch + 1))

        logits, labels = fit.logits(averaged, val), fit.table.labels[val]
        val_loss = float(fit.loss(logits, labels, weights.cpu(), 0.0))
        counts = confusion(labels.numpy(), logits.argmax(dim=1).numpy(), classes)
        row = {
            "epoch": epoch,
            "train_loss": summed / len(train),
            "val_loss": val_loss,
            "val_macro_recall": float(macro_recall(counts)[0]),
            "learning_rate": float(schedule.get_last_lr()[0]),
        }
        if not math.isfinite(row["train_loss"]):
            report(f"epoch {epoch}: the loss is no longer a number; stopped")
            break
        if all(val_loss < previous["val_loss"] for previous in result.history):
            result.epoch = epoch
            result.state = {k: v.detach().cpu().clone() for k, v in averaged.state_dict().items()}
        result.history.append(row)
        report(
            f"epoch {epoch}/{config.epochs}  train loss {row['train_loss']:.3f}  val loss {val_loss:.3f}  "
            f"val macro recall {row['val_macro_recall']:.3f}"
        )
        _write_state(state_file, fit.model, averaged, optimiser, schedule, result)
    progress("training", total, total)
    return result


def _follow(averaged: nn.Module, model: nn.Module, share: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(averaged.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, share)
        for kept, current in zip(averaged.buffers(), model.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(current, share)


def _write_state(
    path: Path,
    model: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    result: FitResult,
) -> None:
    content = {
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "best": result.state,
        "best_epoch": result.epoch,
        "history": result.history,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    torch.save(content, scratch)
    scratch.replace(path)


def _endless(rows: Tensor, size: int) -> Iterator[Tensor]:
    while True:
        yield from rows[torch.randperm(len(rows))].split(size)


def _centre(grid: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The middle of a grid that covers `size`; training batches need one shape."""
    top, left = (grid.shape[0] - size[0]) // 2, (grid.shape[1] - size[1]) // 2
    return grid[top : top + size[0], left : left + size[1]]
