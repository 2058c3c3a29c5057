"""The parts that training recipes share: losses, the search for a learning rate, one fit, its state."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from steel_core.data.augment import augment_images
from steel_core.data.transforms import Preprocessing
from steel_core.device import seed_everything
from steel_core.jobs.run_log import RunStopped
from steel_core.metrics import confusion_counts, macro_recall, multi_label
from steel_core.models.base import Classifier
from steel_core.progress import Progress, Say, no_progress
from steel_core.training.distributed import ProcessGroup
from steel_core.training.images import ImageTable
from steel_core.training.settings import TrainingSettings
from steel_core.types import Float64Array

Curves = list[list[tuple[float, float]]]
"""Learning rate and loss of each step, of each run of the search."""

OnEpoch = Callable[[list[dict[str, float]], int, Float64Array], bool]
"""After each epoch: rows so far, the epoch kept so far, logits (V, K) of the validation images; whether to stop."""

LOSSES = {"cross-entropy": 0.0, "focal": 2.0}
"""Exponent of the focal loss (Lin et al., ICCV 2017, arXiv:1708.02002), where 2 was best; 0 is cross-entropy."""

_LOWEST_TRIED, _HIGHEST_TRIED, _TRIED_STEPS = 3e-4, 3e-2, 36  # of the search for a learning rate
_HIGHEST_RATE = 4e-3  # AdamW gains nothing above it on these networks
_HEAD_FACTOR = 4.0  # a new head on trained features learns faster than they do


def skill(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """How well logits (N, K) tell the classes apart: "macro_recall", or the mean "auc" for targets (N, K)."""
    if labels.ndim == 2:
        area = multi_label.mean_auc(logits.double().numpy(), labels.double().numpy())[0]
        return {"auc": float(np.nan_to_num(area, nan=0.5))}
    counts = confusion_counts(labels.numpy(), logits.argmax(dim=1).numpy(), logits.shape[1])
    return {"macro_recall": float(macro_recall(counts)[0])}


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (K,) inverse to the frequency of each class, 1 on average over the images.

    With several labels an image all are 1: the probability of each class stands alone, and a weight would bend it.
    """
    if labels.ndim == 2:
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (counts.clamp(min=1) * (counts > 0).sum()), torch.zeros(()))


def image_losses(
    logits: Tensor, targets: Tensor, weights: Tensor, *, loss: str, head: str, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Weighted loss (N,) of each image, and its weight (N,): the mean loss is the ratio of their sums.

    Logits are (N, K); targets class numbers (N,), or (N, K) floats from 0 to 1, several of which may be 1. A weight is
    the mean of those (K,) of the image's classes, or 1 for an image of no class. With head "softmax" targets are shares
    of one whole, with "sigmoid" each class stands by itself. Smoothing is the share of the target spread over all
    classes (softmax), or moved towards one half (sigmoid); Szegedy et al., CVPR 2016.
    """
    classes, gamma = logits.shape[1], LOSSES[loss]
    hot = F.one_hot(targets, classes).to(logits.dtype) if targets.ndim == 1 else targets.to(logits.dtype)
    count = hot.sum(dim=1)
    weight = ((hot @ weights) / count.clamp(min=1e-6)).where(count > 0, 1.0)
    if head == "sigmoid":
        soft = hot * (1 - smoothing) + smoothing / 2
        each = sigmoid_focal_loss(logits, soft, alpha=-1, gamma=gamma).sum(dim=1)  # alpha below 0: no class weights
    else:
        soft = hot / count.clamp(min=1e-6)[:, None] * (1 - smoothing) + smoothing / classes
        log_probs = logits.log_softmax(dim=1)
        each = -(soft * (1 - log_probs.exp()) ** gamma * log_probs).sum(dim=1)
    return each * weight, weight


@dataclass
class Fit:
    """One model in training: everything an epoch changes, and what it needs to go on after an interruption."""

    model: Classifier
    table: ImageTable
    preprocessing: Preprocessing
    config: TrainingSettings
    device: torch.device

    def __post_init__(self) -> None:
        self.group = ProcessGroup.current()
        self.model.to(self.device).to(memory_format=torch.channels_last)

    def class_weights(self, rows: Tensor) -> Tensor:
        """Weights (K,) of the classes, from the images at those positions; all 1 unless `balanced`."""
        weights = class_weights(self.table.labels[rows], self.logits(self.model, rows[:1]).shape[1])
        return (weights if self.config.balanced else torch.ones_like(weights)).to(self.device)

    def image_losses(self, logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        config = self.config
        return image_losses(logits, labels, weights, loss=config.loss, head=config.head, smoothing=smoothing)

    def loss(self, logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
        """Mean loss of logits (N, K), classes weighed by `weights` (K,)."""
        each, weight = self.image_losses(logits, labels, weights, smoothing)
        return each.sum() / weight.sum()

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Varied, normalised images (N, 3, H, W) and labels (N,) on the device."""
        grey = (self.table.grids[positions].to(self.device).float() - self.preprocessing.mean) / self.preprocessing.std
        centres = None if self.table.centres is None else self.table.centres[positions]
        varied = augment_images(grey, self.config.augmentation, centres)
        three = varied.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return three, self.table.labels[positions].to(self.device)

    def logits(self, model: Classifier, positions: Tensor, progress: Progress = no_progress) -> Tensor:
        """Logits (N, K) of unvaried images, in evaluation mode, in full precision, on the CPU; shared by the group."""
        model.eval()
        shared = len(positions) >= self.group.size > 1
        mine = positions[self.group.rank :: self.group.size] if shared else positions
        with torch.inference_mode():
            size = 8 if self.device.type == "cpu" else 256
            outputs = []
            for done, rows in enumerate(batches := mine.split(size), 1):
                grids = self.table.grids[rows].to(self.device).float()
                outputs.append(model(self.preprocessing.normalise(grids)).float())
                progress("predicting", done, len(batches))
            logits = torch.cat(outputs)
        if not shared:
            return logits.cpu()
        whole = logits.new_zeros(len(positions), logits.shape[1])
        whole[self.group.rank :: self.group.size] = logits
        return self.group.total(whole).cpu()

    def step(self, optimiser: torch.optim.Optimizer, positions: Tensor, weights: Tensor) -> float:
        """One step of the optimiser on images that the group shares; returns the loss before it."""
        mine = positions[self.group.rank :: self.group.size]
        images, labels = self.batch(mine if len(mine) else positions[:1])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.half and has_bfloat16(self.device)):
            logits = self.model(images)
        each, weight = self.image_losses(logits.float(), labels, weights, self.config.label_smoothing)
        counts = float(len(mine) > 0)  # a batch of fewer images than processes leaves some with one that does not count
        loss = each.sum() * counts / self.group.total(weight.sum().detach() * counts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.group.add_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimiser.step()
        return float(self.group.total(loss.detach()))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (CUDA from Ampere on; CPUs with AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def optimiser_for(model: Classifier, rate: float, config: TrainingSettings) -> torch.optim.AdamW:
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


def find_learning_rate(fit: Fit, rows: Tensor) -> tuple[float, Curves]:
    """The highest learning rate for one-cycle training, and the curves (rate, loss) of the runs that found it.

    Each run takes a copy of the model and a rate that grows geometrically; it ends where the loss is a quarter above
    the median of the run so far. The answer is a third of that rate, as a geometric mean of two runs, since a single
    one errs by a factor of three; at most `_HIGHEST_RATE`.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.
    """
    curves: Curves = []
    weights = fit.class_weights(rows)
    for run in range(2):
        seed_everything(fit.config.seed + run)
        trial = Fit(copy.deepcopy(fit.model).train(), fit.table, fit.preprocessing, fit.config, fit.device)
        optimiser = optimiser_for(trial.model, _LOWEST_TRIED, fit.config)
        curve: list[tuple[float, float]] = []
        for step, positions in zip(range(_TRIED_STEPS), _endless(rows, fit.config.batch_size, run), strict=False):
            rate = _LOWEST_TRIED * (_HIGHEST_TRIED / _LOWEST_TRIED) ** (step / (_TRIED_STEPS - 1))
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
    """What a fit leaves: averaged weights of the best epoch, its number from 1, and its history.

    Rows of the history: epoch, train_loss, val_loss, learning_rate, and val_macro_recall or val_auc, see `skill`.
    """

    state: dict[str, Tensor]
    epoch: int
    history: list[dict[str, float]]


def run_fit(
    fit: Fit,
    train: Tensor,
    val: Tensor,
    rate: float,
    state_file: Path,
    report: Say,
    progress: Progress,
    on_epoch: OnEpoch = lambda *_: False,
) -> FitResult:
    """Train with one-cycle (Smith and Topin, arXiv:1708.07120), average weights, validate, keep the best, stop early.

    The state after each epoch is written to `state_file`, and a run that finds one goes on where it stopped: random
    numbers are seeded by epoch, so the result is the same as without the interruption.
    """
    config, group, weights = fit.config, fit.group, fit.class_weights(train)
    optimiser = optimiser_for(fit.model, rate, config)
    steps = math.ceil(len(train) / config.batch_size)
    total = steps * config.epochs
    rising = 0.25 if total > 8 else 0.3  # a rise of exactly one step divides by zero in torch
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=total, pct_start=rising, cycle_momentum=False
    )
    averaged, window = copy.deepcopy(fit.model), min(config.average, max(total // 5, 1))
    stateful: dict[str, Any] = {"model": fit.model, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    result = FitResult({}, 0, [])
    if state_file.exists():
        kept = torch.load(state_file, map_location=fit.device, weights_only=True)
        for name, part in stateful.items():
            part.load_state_dict(kept[name])
        result = FitResult(kept["best"], kept["best_epoch"], kept["history"])
        report(f"resumed after epoch {len(result.history)}")

    for epoch in range(len(result.history) + 1, config.epochs + 1):
        if epoch - 1 > config.epochs // 2 and epoch - 1 - result.epoch >= config.patience:
            report(f"no better for {config.patience} epochs: stopped early")
            break
        seed_everything(config.seed * 10_000 + epoch)
        learns = epoch > config.freeze_epochs  # else the features keep weights and statistics
        fit.model.train().features.train(learns).requires_grad_(learns)
        summed = 0.0
        batches = train[torch.randperm(len(train))].split(config.batch_size)
        if not group.is_rank_zero:  # the same order of the images everywhere, but each varies them in its own way
            seed_everything(config.seed * 10_000 + epoch + group.rank * 1_000_003)
        for number, positions in enumerate(batches, start=(epoch - 1) * steps):
            progress("training", number, total)
            summed += fit.step(optimiser, positions, weights) * len(positions)
            schedule.step()
            _follow(averaged, fit.model, 1 / min(window, schedule.last_epoch + 1))

        group.average_buffers(fit.model, averaged)
        logits, labels = fit.logits(averaged, val), fit.table.labels[val]
        row = {
            "epoch": epoch,
            "train_loss": summed / len(train),
            "val_loss": float(fit.loss(logits, labels, weights.cpu(), 0.0)),
            **{f"val_{name}": value for name, value in skill(logits, labels).items()},
            "learning_rate": float(schedule.get_last_lr()[0]),
        }
        if not math.isfinite(row["train_loss"]):
            report(f"epoch {epoch}: the loss is no longer a number; stopped")
            break
        if all(row["val_loss"] < previous["val_loss"] for previous in result.history):
            result.epoch = epoch
            result.state = {k: v.detach().cpu().clone() for k, v in averaged.state_dict().items()}
        result.history.append(row)
        shown = [f"{name.replace('_', ' ')} {row[name]:.3f}" for name in row if name.startswith(("train", "val"))]
        report("  ".join([f"epoch {epoch}/{config.epochs}", *shown]))
        if group.is_rank_zero:
            _write_state(state_file, stateful, result)
        stop = on_epoch(result.history, result.epoch, logits.double().numpy())
        if group.broadcast(stop, fit.device) and epoch < config.epochs:
            raise RunStopped(f"stopped as asked, after epoch {epoch} of {config.epochs}; the same call goes on there")
    progress("training", total, total)
    return result


def _follow(averaged: nn.Module, model: nn.Module, share: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(averaged.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, share)
        for kept, current in zip(averaged.buffers(), model.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(current, share)


def _write_state(path: Path, stateful: dict[str, Any], result: FitResult) -> None:
    content = {name: part.state_dict() for name, part in stateful.items()}
    content |= {"best": result.state, "best_epoch": result.epoch, "history": result.history}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    torch.save(content, scratch)
    scratch.replace(path)


def _endless(rows: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Batches without end, the same in all processes of a group."""
    order = torch.Generator().manual_seed(seed)
    while True:
        yield from rows[torch.randperm(len(rows), generator=order)].split(size)
