"""Cure a shortcut: fine-tune with the artefact on all classes alike, then test again. Reads top to bottom.

A model takes an artefact for a sign of a class because in its training images the two come together. So each training
image gets, or loses, the artefact by chance, as often in one class as in another: what says nothing is not learnt.

Legend of shapes: N images, C channels; H, W of a grid.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor, nn

import steel_core
from steel_core import metrics
from steel_core.audit.report import AuditReport, Finding, in_percent
from steel_core.audit.sheets import defect_mask, read_sheets
from steel_core.audit.white_stain import StainSettings, audit_white_stain
from steel_core.data.augment import Augmentation
from steel_core.data.index import DatasetIndex
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluate import in_words_of
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import squeezed
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.checkpoint import Checkpoint, check_destination, load_checkpoint, save_checkpoint
from steel_core.perturb.base import Grey, Mask
from steel_core.perturb.methods.white_stain import TEXTURES, WhiteStain
from steel_core.perturb.stencil import SHAPES, Stencil, bright_spots, cut, draw, inpainted, varied
from steel_core.progress import Progress, no_progress, within
from steel_core.training.config import TrainConfig
from steel_core.training.fit import Fit, Report, has_bfloat16, run_fit
from steel_core.training.images import ImageTable, read_images
from steel_core.training.map_scales import map_scales, some_images
from steel_core.types import CLEAR

_SHARP = 4.0  # an image whose logits differ by more than about 1 hardly weighs in `level`


@dataclass(frozen=True, slots=True)
class CureConfig:
    """Settings of a cure.

    Attributes:
        epochs: passes over the training images.
        rate: highest learning rate of the one-cycle schedule.
        pasted: chance that an image gets a stain, in the class that carries them most often.
        painted: chance that the stains of an image are painted over; an image without one has steel painted over.
        penalty: weight of a second loss: the squared difference between the logits of an image with and without its
            stain. It penalises evidence on the artefact itself, and doubles the time.
        augmentation: how images are varied besides.
        seed: of everything drawn at random.
    """

    epochs: int = 12
    rate: float = 1e-3
    pasted: float = 0.5
    painted: float = 0.3
    penalty: float = 0.0
    augmentation: Augmentation = Augmentation()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (0 < self.pasted <= 1 and 0 <= self.painted <= 1):
            raise UsageError(f"cure: expected chances of 0 to 1, got {self.pasted:g} and {self.painted:g}")
        if self.epochs < 1 or self.rate <= 0 or self.penalty < 0:
            raise UsageError("cure: expected at least 1 epoch, a positive rate and a penalty of 0 or more")


@dataclass(frozen=True)
class Ledger:
    """What the cure changed, on images that served neither training.

    Attributes:
        before: figures of the old checkpoint: see `_figures`.
        after: the same of the new one.
        audits: the two reports of the white-stain test, before and after.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    audits: tuple[AuditReport, AuditReport]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return {
            "before": self.before,
            "after": self.after,
            "audit_before": self.audits[0].to_json(),
            "audit_after": self.audits[1].to_json(),
        }


def cure(
    name_or_path: str | Path,
    index: DatasetIndex,
    out: Path,
    config: CureConfig = CureConfig(),
    settings: StainSettings | None = None,
    *,
    limit: int = 300,
    scale_maps: bool = True,
    title: str = "",
    notes: tuple[str, ...] = (),
    device: str = "auto",
    report: Report = print,
    progress: Progress = no_progress,
) -> Ledger:
    """Audit, fine-tune with the artefact on all classes alike, save, and audit again.

    Args:
        name_or_path: the checkpoint to cure.
        index: data to train and to test on. The parts are those of the checkpoint's card, by the hash of the files;
            where it knows none of them, those of the data set.
        out: folder of the cured checkpoint.
        config: settings of the cure.
        settings: of the test before and after; its defaults if None.
        limit: images of the test.
        scale_maps: whether to measure the scale of each explainer's maps anew; what else the old card says of maps and
            of unfamiliar images is dropped, as it was measured on other weights.
        title: for people; the old one's with ", cured" if empty.
        notes: sentences for the card, after the one that tells what the cure changed; the old one's are dropped.
        device: "auto", "cpu", "cuda" or "mps".
        report: receives lines about the course.
        progress: receives what is being done, how much is done, and of how much.

    Returns:
        Figures before and after.

    Raises:
        DataError: no image to train, to validate or to test on.
        UsageError: `out` holds something else than a checkpoint, or the checkpoint is multi-label.
    """
    # Setup
    settings = settings or StainSettings()
    tune_memory()
    seed_everything(config.seed)
    check_destination(out)
    target = choose_device(device)
    old = load_checkpoint(name_or_path)
    old.card.expect_one_label("cure")
    index = in_words_of(index, old.card.classes)
    if warning := squeezed(index, old.card.input_size):
        report(f"WARNING: {warning}")
    table = read_images(index, old.card.input_size, progress)
    parts = _parts(old, index, table)
    report(", ".join(f"{len(rows)} {part}" for part, rows in parts.items()) + f" images; on {target}")

    # Audit as it is
    predictor = Predictor(old, device)
    known = any(old.card.part_of(digest) for digest in table.hashes)
    sheets = read_sheets(predictor, index, "held-out" if known else "test", limit, settings.seed)
    first = audit_white_stain(predictor, sheets, settings, within(progress, "audit before"))
    suspect = first.detail["towards"]
    report(f"before: {first.verdict}. {_stain(first, suspect).sentence}")

    # Fit
    artefacts = _Artefacts.collect(index, table, parts["train"], old.card.classes.index(suspect), config)
    report(f"{len(artefacts.cuts)} stains cut out of training images of {suspect}; {len(SHAPES)} shapes drawn besides")
    model = BACKBONES[old.card.backbone](len(old.card.classes))
    model.load_state_dict(old.model.state_dict())
    both, val = artefacts.with_stained_copies(table, parts["val"])
    fit = CuringFit(model, both, old.card.preprocessing, _train_config(old, config), target, artefacts, config)
    state = out.parent / f".{out.name}-run" / "state.pt"
    state.unlink(missing_ok=True)
    result = run_fit(fit, parts["train"], val, config.rate, state, report, progress)
    if not result.state:
        raise DataError("the cure found no weights with a finite loss; a lower rate may help")
    fit.model.load_state_dict(result.state)

    # Level, calibrate and set thresholds on the validation split, stained and unstained alike
    logits, labels = fit.logits(fit.model, val).numpy().astype(np.float64), both.labels[val].numpy()
    logits += _shift_head(fit.model, level(logits, labels))
    temperature = metrics.fit_temperature(logits, labels, old.card.head)
    probs = metrics.probabilities(logits, old.card.head, temperature)
    thresholds = metrics.refer_thresholds(probs, labels)

    # Audit again
    card = replace(
        old.card,
        name=out.name,
        title=title or f"{old.card.title}, cured",
        temperature=temperature,
        thresholds=dict(zip(old.card.classes, map(float, thresholds), strict=True)),
        metrics={},
        split=old.card.split if known else _split(table, parts),
        map_scale={},
        regions={},
        quality={},
        familiarity={},
        history=(),
        code_version=steel_core.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cured = Predictor(Checkpoint(card, fit.model, old.background, ""), device)
    second = audit_white_stain(cured, sheets, settings, within(progress, "audit after"))
    report(f"after: {second.verdict}. {_stain(second, suspect).sentence}")
    ledger = Ledger(
        _figures(predictor, table, parts["test"], index, first, suspect),
        _figures(cured, table, parts["test"], index, second, suspect),
        (first, second),
    )

    # Card
    summary = {
        "of": old.card.name,
        "of_hash": old.hash,
        "config": asdict(config),
        "best_epoch": result.epoch,
        "history": result.history,
        "audit": {
            "settings": first.settings,
            "data_hash": first.data_hash,
            "seed": first.seed,
            "before": {"verdict": first.verdict} | ledger.before,
            "after": {"verdict": second.verdict} | ledger.after,
        },
    }
    card = replace(
        card,
        metrics={"test": ledger.after["evaluation"]},
        training=old.card.training | {"cure": summary},
        notes=(_note(old.card.name, ledger), *notes),
    )
    if scale_maps and old.background is not None:
        predictor = Predictor(Checkpoint(card, fit.model, old.background, ""), str(target))
        card = replace(card, map_scale=map_scales(predictor, some_images(table, parts["val"]), progress))
    save_checkpoint(out, card, fit.model.state_dict(), old.background)
    shutil.rmtree(state.parent, ignore_errors=True)
    return ledger


def level(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """What to add to each class's logit (K,) so that errors are rarest, every class counting alike.

    A cure shifts the border between classes: a model that can no longer lean on stains leans to one class. The offsets
    minimise the cross-entropy of sharpened logits, in which only images near the border weigh, as they do in the number
    of errors; a small cost keeps them near 0 where no image asks for more.

    Args:
        logits: (N, K) of validation images.
        labels: (N,) index of the class.
    """
    present, counts = np.unique(labels, return_counts=True)
    weights = np.zeros(logits.shape[1])
    weights[present] = 1 / (counts * len(present))

    def cost(offsets: npt.NDArray[np.float64]) -> float:
        shifted = _SHARP * (logits + offsets)
        lost = logsumexp(shifted, axis=1) - shifted[np.arange(len(labels)), labels]
        return float((weights[labels] * lost).sum() + 1e-3 * (offsets**2).sum())

    found = np.asarray(minimize(cost, np.zeros(logits.shape[1])).x, dtype=np.float64)
    return found - found.mean()


def _shift_head(model: Classifier, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add offsets (K,) to the logits of a network for good; returns them."""
    head = model.head
    assert isinstance(head, nn.Linear | nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.bias += torch.from_numpy(offsets).to(head.bias)
    return offsets


@dataclass(frozen=True, eq=False)
class _Artefacts:
    """Stains to paste and to paint over, for the images of one table.

    Attributes:
        cuts: stains cut out of training images of the class that they stand for.
        defects: (H, W) of each image of the table, where no stain may lie; None where nothing tells.
        painted: (N, 1, H, W) float16, each image with its stains, or else some steel, painted over.
        chance: (K,) chance that an image of a class gets a stain, so that all classes carry them alike.
        config: settings.
    """

    cuts: tuple[Stencil, ...]
    defects: tuple[Mask | None, ...]
    painted: Tensor
    chance: npt.NDArray[np.float64]
    config: CureConfig

    @classmethod
    def collect(
        cls, index: DatasetIndex, table: ImageTable, train: Tensor, suspect: int, config: CureConfig
    ) -> _Artefacts:
        """Look at every image once."""
        size = (int(table.grids.shape[2]), int(table.grids.shape[3]))
        defects = tuple(_centred_defect(index, int(row), size) for row in table.rows)
        painted = table.grids.clone()
        cuts: list[Stencil] = []
        stained = np.zeros(len(table.labels), bool)
        rng = np.random.default_rng([config.seed, 1])
        for i in train.tolist():
            grid, defect = table.grids[i, 0].float().numpy(), defects[i]
            spots = bright_spots(grid)
            if defect is not None:
                spots &= ~defect
            elif int(table.labels[i]) != suspect:
                spots[:] = False  # nothing tells a bright defect from a stain
            stained[i] = 0 < spots.mean() < 0.25
            if stained[i] and int(table.labels[i]) == suspect and len(cuts) < 200:
                cuts.append(cut(grid, _largest_piece(spots)))
            if not stained[i]:
                shape = str(rng.choice(SHAPES))
                spots = WhiteStain(shape).placed(size, rng.uniform(0.01, 0.06), int(rng.integers(2**31)), defect).mask
                spots &= True if defect is None else ~defect
            painted[i, 0] = torch.from_numpy(inpainted(grid, spots).astype(np.float16))
        labels = table.labels.numpy()
        mine = [np.isin(np.arange(len(labels)), train.numpy()) & (labels == k) for k in range(len(index.classes))]
        natural = np.array([stained[rows].mean() if rows.any() else 0.0 for rows in mine]) * (1 - config.painted)
        wanted = float((1 - (1 - natural) * (1 - config.pasted)).max())
        chance = np.clip(1 - (1 - wanted) / np.maximum(1 - natural, 1e-6), 0, 1)
        return cls(tuple(cuts), defects, painted, chance, config)

    def stain(self, grid: Grey, i: int, rng: np.random.Generator) -> Grey:
        """Image `i` with stains, cut out or drawn, beside its defect: far more varied than those that are tested."""
        source = draw(str(rng.choice(SHAPES)), int(rng.integers(2**31)))
        area = float(np.exp(rng.uniform(np.log(0.005), np.log(0.15))))
        if self.cuts and rng.random() < 0.5:
            source = self.cuts[int(rng.integers(len(self.cuts)))]
        natural = source.grey is not None and rng.random() < 0.5
        if natural:  # as it was found: what is left of the stains of one class looks like this
            area = float((source.cover > 0).sum() / grid.size)
        kind = WhiteStain(
            number=1 if natural else int(rng.integers(1, 5)),
            source=source if natural else varied(source, rng),
            brightness=float(rng.uniform(0.6, 1.0)),
            texture=str(rng.choice(TEXTURES)),
        )
        defect = self.defects[i]
        stained = kind.perturb(grid, area, int(rng.integers(2**31)), avoid=defect).image
        # Where there is no room beside the defect, the stain lies below it: a hidden defect would be a wrong label.
        return stained if defect is None else np.where(defect, grid, stained)

    def with_stained_copies(self, table: ImageTable, rows: Tensor) -> tuple[ImageTable, Tensor]:
        """The table with a stained copy of each of some images at its end, and where images and copies lie."""
        rng = np.random.default_rng([self.config.seed, 2])
        copies = [self.stain(table.grids[i, 0].float().numpy(), i, rng) for i in rows.tolist()]
        grids = torch.from_numpy(np.stack(copies)[:, None].astype(np.float16))
        both = replace(
            table, grids=torch.cat([table.grids, grids]), labels=torch.cat([table.labels, table.labels[rows]])
        )
        return both, torch.cat([rows, torch.arange(len(table.labels), len(both.labels))])


@dataclass
class CuringFit(Fit):
    """A fit whose images get and lose stains by chance, in all classes alike."""

    artefacts: _Artefacts
    cure: CureConfig

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Varied, normalised images (N, 3, H, W), some stained, and labels (N,) on the device."""
        with_stain, _, labels = self._pairs(positions)
        return with_stain, labels

    def step(self, optimiser: torch.optim.Optimizer, positions: Tensor, weights: Tensor) -> float:
        """One step of the optimiser, with the penalty on evidence that lies on the stain; returns the loss."""
        if not self.cure.penalty:
            return super().step(optimiser, positions, weights)
        stained, plain, labels = self._pairs(positions)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.half and has_bfloat16(self.device)):
            logits, without = self.model(stained).float(), self.model(plain).float()
        loss = self.loss(logits, labels, weights, self.config.label_smoothing)
        loss = loss + self.cure.penalty * F.mse_loss(logits, without)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    def _pairs(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images with and without the stain that was pasted, varied alike (N, 3, H, W), and labels (N,)."""
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        labels = self.table.labels[positions]
        lost = torch.from_numpy(rng.random(len(positions)) < self.cure.painted)
        plain = torch.where(
            lost[:, None, None, None], self.artefacts.painted[positions], self.table.grids[positions]
        ).float()
        stained = plain.clone()
        for n in np.flatnonzero(rng.random(len(positions)) < self.artefacts.chance[labels.numpy()]):
            stained[n, 0] = torch.from_numpy(self.artefacts.stain(plain[n, 0].numpy(), int(positions[n]), rng))
        state = torch.get_rng_state()
        varied = []
        for grids in (stained, plain) if self.cure.penalty else (stained,):
            torch.set_rng_state(state)
            grey = (grids.to(self.device) - self.preprocessing.mean) / self.preprocessing.std
            three = self.config.augmentation(grey).expand(-1, 3, -1, -1)
            varied.append(three.contiguous(memory_format=torch.channels_last))
        return varied[0], varied[-1], labels.to(self.device)


def _parts(old: Checkpoint, index: DatasetIndex, table: ImageTable) -> dict[str, Tensor]:
    """Positions of the images of each part in the table."""
    seen = np.array([old.card.part_of(digest) for digest in table.hashes])
    if not (seen != "").any():
        seen = index.table["split"].to_numpy(dtype=str)[table.rows]
    parts = {part: torch.from_numpy(np.flatnonzero(seen == part)) for part in ("train", "val", "test")}
    if missing := [part for part, rows in parts.items() if not len(rows)]:
        raise DataError(f"expected images to train, to validate and to test on, got none for {', '.join(missing)}")
    return parts


def _split(table: ImageTable, parts: dict[str, Tensor]) -> dict[str, Any]:
    """What a card says of the images that this cure learnt from, where the old card knew none of them."""
    files = {part: [table.hashes[i][:16] for i in rows.tolist()] for part, rows in parts.items()}
    return {"counts": {part: len(rows) for part, rows in parts.items()}, "files": files}


def _stain(audit: AuditReport, suspect: str) -> Finding:
    """What a pasted stain does towards the suspected class: the same question before and after."""
    return next((found for found in audit.findings if found.name == f"towards {suspect}"), audit.findings[0])


def _train_config(old: Checkpoint, config: CureConfig) -> TrainConfig:
    return TrainConfig(
        backbone=old.card.backbone,
        head=old.card.head,
        init="random",  # the weights to cure are loaded into it
        epochs=config.epochs,
        patience=config.epochs,
        batch_norm=False,
        input_size=old.card.input_size,
        augmentation=config.augmentation,
        seed=config.seed,
    )


def _figures(
    predictor: Predictor, table: ImageTable, test: Tensor, index: DatasetIndex, audit: AuditReport, suspect: str
) -> dict[str, Any]:
    """Flip excess, accuracy, escapes of each class, calibration and evidence inside the stain."""
    logits = predictor.logits([table.grids[i, 0].float().numpy() for i in test.tolist()]).astype(np.float64)
    labels = table.labels[test].numpy()
    probs = metrics.probabilities(logits, predictor.card.head, predictor.card.temperature)
    groups = [f"{row}|{index.table['group'].iloc[row]}".removeprefix(f"{row}|") or str(row) for row in table.rows[test]]
    found = metrics.evaluate(probs, labels, index.classes, groups).to_json()
    effect = _stain(audit, suspect).effect
    escaped: dict[str, Any] = {}
    if CLEAR in predictor.classes:
        to_clear = probs.argmax(axis=1) == predictor.classes.index(CLEAR)
        for k, name in enumerate(predictor.classes):
            if name != CLEAR and (labels == k).any():
                share = metrics.share(to_clear[labels == k], np.array(groups)[labels == k])
                escaped[name] = {"share": share.value, "interval": (share.low, share.high), "n": share.n}
    return {
        "flip_rate": effect.flip_rate if effect else None,
        "control_flip_rate": effect.control_flip_rate if effect else None,
        "excess": effect.excess if effect else None,
        "excess_interval": effect.interval if effect else None,
        "excess_n": effect.n if effect else 0,
        "accuracy": found["accuracy"],
        "accuracy_interval": found["intervals"]["accuracy"],
        "n": found["n"],
        "escapes": escaped,
        "ece": found["ece"],
        "evidence_inside_stain": audit.detail["evidence_inside"],
        "evaluation": found,
    }


def _note(old: str, ledger: Ledger) -> str:
    return (
        f"Cured of the white-stain shortcut of {old}: beyond its strongest control, a stain beside the defect turned "
        f"{in_percent(ledger.before['excess'])} of the sheets before, and {in_percent(ledger.after['excess'])} after."
    )


def _centred_defect(index: DatasetIndex, row: int, size: tuple[int, int]) -> Mask | None:
    """Where the defect is, on the middle of the grid that training images are cut to."""
    image = index.image(row)
    zoom = max(size[0] / image.height, size[1] / image.width)
    whole = (max(round(image.height * zoom), size[0]), max(round(image.width * zoom), size[1]))
    found = defect_mask(index, row, (image.height, image.width), whole)
    if found is None:
        return None
    top, left = ((full - own) // 2 for full, own in zip(found.shape, size, strict=True))
    return found[top : top + size[0], left : left + size[1]]


def _largest_piece(mask: Mask) -> Mask:
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
