"""Cure a shortcut: fine-tune with the artefact on all classes alike, then test again. Reads top to bottom.

Each training image gets, or loses, the artefact by chance, alike in all classes: what says nothing is not learnt.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor, nn

import steel_core
from steel_core import metrics
from steel_core.audit.artefacts import Artefacts, CuringFit
from steel_core.audit.report import AuditFinding, AuditReport, format_share
from steel_core.audit.settings import CureSettings, StainSettings
from steel_core.audit.sheets import read_sheets
from steel_core.audit.white_stain import audit_white_stain
from steel_core.data.index import DatasetIndex
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError
from steel_core.evaluation.evaluation import map_labels
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import squeeze_warning
from steel_core.metrics.intervals import Interval
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.card import Card, Split
from steel_core.models.checkpoint import Checkpoint, check_destination, load_checkpoint, save_checkpoint
from steel_core.perturb.stain_options import SHAPES
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.records import Record
from steel_core.training.fit import run_fit
from steel_core.training.images import ImageTable, read_images
from steel_core.training.map_scales import map_scales, some_images
from steel_core.training.settings import TrainingSettings
from steel_core.types import CLEAR, Float64Array, Int64Array

_SHARP = 4.0  # an image whose logits differ by more than about 1 hardly weighs in `fit_class_offsets`


class CureOutcome(Record):
    """How one checkpoint does on images that served neither training.

    Flips are those to the suspected class, on `excess_n` sheets. An escape is an image of a class that is called clear.
    """

    flip_rate: float | None
    control_flip_rate: float | None
    excess: float | None
    excess_interval: Interval | None
    excess_n: int
    accuracy: float
    accuracy_interval: Interval
    n: int
    escapes: dict[str, dict[str, Any]]
    ece: float
    evidence_inside_stain: dict[str, Any]
    evaluation: dict[str, Any]


class CureLedger(Record):
    """What the cure changed: the old checkpoint, the new one, and the white-stain test of each."""

    before: CureOutcome
    after: CureOutcome
    audit_before: AuditReport
    audit_after: AuditReport


def cure(
    name_or_path: str | Path,
    index: DatasetIndex,
    out: Path,
    config: CureSettings = CureSettings(),
    settings: StainSettings | None = None,
    *,
    limit: int = 300,
    scale_maps: bool = True,
    title: str = "",
    notes: tuple[str, ...] = (),
    device: str = "auto",
    report: Say = print,
    progress: Progress = no_progress,
) -> CureLedger:
    """Audit, fine-tune with the artefact on all classes alike, save, and audit again.

    The parts are those of the checkpoint's card, by the hash of the files; where it knows none of them, those of the
    data set. `limit` is the number of images in a test. `scale_maps` measures the scale of each explainer's maps anew;
    what else the old card says of maps and of unfamiliar images is dropped, as it was measured on other weights.
    `notes` replace the old ones, after the sentence that tells what the cure changed; an empty `title` is the old one
    with ", cured".

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
    index = map_labels(index, old.card.classes)
    if warning := squeeze_warning(index, old.card.input_size):
        report(f"WARNING: {warning}")
    table = read_images(index, old.card.input_size, progress)
    parts = _divide_table(old, index, table)
    report(", ".join(f"{len(rows)} {part}" for part, rows in parts.items()) + f" images; on {target}")

    # Audit as it is
    predictor = Predictor(old, device)
    is_known = any(old.card.part_of_file(digest) for digest in table.hashes)
    sheets = read_sheets(predictor, index, "held-out" if is_known else "test", limit, settings.seed)
    first = audit_white_stain(predictor, sheets, settings, within(progress, "audit before"))
    suspect = first.detail["towards"]
    report(f"before: {first.verdict}. {_find_stain_finding(first, suspect).sentence}")

    # Fit
    artefacts = Artefacts.collect(index, table, parts["train"], old.card.classes.index(suspect), config)
    report(f"{len(artefacts.cuts)} stains cut out of training images of {suspect}; {len(SHAPES)} shapes drawn besides")
    model = BACKBONES[old.card.backbone](len(old.card.classes))
    model.load_state_dict(old.model.state_dict())
    both, val = artefacts.with_stained_copies(table, parts["val"])
    fit = CuringFit(model, both, old.card.preprocessing, _training_settings(old, config), target, artefacts, config)
    state = out.parent / f".{out.name}-run" / "state.pt"
    state.unlink(missing_ok=True)
    result = run_fit(fit, parts["train"], val, config.rate, state, report, progress)
    if not result.state:
        raise DataError("the cure found no weights with a finite loss; a lower rate may help")
    fit.model.load_state_dict(result.state)

    # Level, calibrate and set thresholds on the validation split, stained and unstained alike
    logits, labels = fit.logits(fit.model, val).numpy().astype(np.float64), both.labels[val].numpy()
    logits += _shift_head(fit.model, fit_class_offsets(logits, labels))
    temperature = metrics.fit_temperature(logits, labels, old.card.head)
    probs = metrics.logits_to_probabilities(logits, old.card.head, temperature)
    thresholds = metrics.fit_refer_thresholds(probs, labels)

    # Audit again
    card = old.card.replace(
        name=out.name,
        title=title or f"{old.card.title}, cured",
        temperature=temperature,
        thresholds=dict(zip(old.card.classes, map(float, thresholds), strict=True)),
        metrics={},
        split=_describe_split(old.card, table, parts, is_known),
        map_scale={},
        regions={},
        quality={},
        familiarity=None,
        history=(),
        code_version=steel_core.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cured = Predictor(Checkpoint(card, fit.model, old.background, ""), device)
    second = audit_white_stain(cured, sheets, settings, within(progress, "audit after"))
    report(f"after: {second.verdict}. {_find_stain_finding(second, suspect).sentence}")
    ledger = CureLedger(
        before=_measure_outcome(predictor, table, parts["test"], index, first, suspect),
        after=_measure_outcome(cured, table, parts["test"], index, second, suspect),
        audit_before=first,
        audit_after=second,
    )

    # Card
    summary = {
        "of": old.card.name,
        "of_hash": old.hash,
        "config": config.to_json(),
        "best_epoch": result.epoch,
        "history": result.history,
        "audit": {
            "settings": first.settings,
            "data_hash": first.data_hash,
            "seed": first.seed,
            "before": {"verdict": first.verdict} | ledger.before.to_json(),
            "after": {"verdict": second.verdict} | ledger.after.to_json(),
        },
    }
    card = card.replace(
        metrics={"test": ledger.after.evaluation},
        training=old.card.training.replace(cure=summary),
        notes=(_write_note(old.card.name, ledger), *notes),
    )
    if scale_maps and old.background is not None:
        card = card.replace(map_scale=map_scales(cured, some_images(table, parts["val"]), progress))
    save_checkpoint(out, card, fit.model.state_dict(), old.background)
    shutil.rmtree(state.parent, ignore_errors=True)
    return ledger


def fit_class_offsets(logits: Float64Array, labels: Int64Array) -> Float64Array:
    """What to add to each class's logit (K,) so that errors are rarest, every class counting alike.

    A cure shifts the border between classes: a model that can no longer lean on stains leans to one class. The offsets
    minimise the cross-entropy of sharpened logits (N, K) of validation images, in which only images near the border
    weigh, as they do in the number of errors; a small cost keeps them near 0 where no image asks for more.
    """
    present, counts = np.unique(labels, return_counts=True)
    weights = np.zeros(logits.shape[1])
    weights[present] = 1 / (counts * len(present))

    def cost(offsets: Float64Array) -> float:
        shifted = _SHARP * (logits + offsets)
        lost = logsumexp(shifted, axis=1) - shifted[np.arange(len(labels)), labels]
        return float((weights[labels] * lost).sum() + 1e-3 * (offsets**2).sum())

    offsets = np.asarray(minimize(cost, np.zeros(logits.shape[1])).x, dtype=np.float64)
    return offsets - offsets.mean()


def _shift_head(model: Classifier, offsets: Float64Array) -> Float64Array:
    """Add offsets (K,) to the logits of a network for good; returns them."""
    head = model.head
    assert isinstance(head, nn.Linear | nn.Conv2d) and head.bias is not None
    with torch.no_grad():
        head.bias += torch.from_numpy(offsets).to(head.bias)
    return offsets


def _divide_table(old: Checkpoint, index: DatasetIndex, table: ImageTable) -> dict[str, Tensor]:
    """Positions of the images of each part in the table."""
    seen = np.array([old.card.part_of_file(digest) for digest in table.hashes])
    if (seen != "").any():  # then a copy of an image learnt from is not tested on
        seen = np.where(seen == "", [old.card.part_of_content(code) for code in table.contents], seen)
    else:
        seen = index.table["split"].to_numpy(dtype=str)[table.rows]
    parts = {part: torch.from_numpy(np.flatnonzero(seen == part)) for part in ("train", "val", "test")}
    if missing := [part for part, rows in parts.items() if not len(rows)]:
        raise DataError(f"expected images to train, to validate and to test on, got none for {', '.join(missing)}")
    return parts


def _describe_split(card: Card, table: ImageTable, parts: dict[str, Tensor], is_known: bool) -> Split:
    """The old card's split where it knew the files, with the codes of what they show where it kept none."""
    found = table.describe_split(parts)
    return card.split.replace(contents=card.split.contents or found["contents"]) if is_known else Split.from_json(found)


def _find_stain_finding(audit: AuditReport, suspect: str) -> AuditFinding:
    return next((finding for finding in audit.findings if finding.name == f"towards {suspect}"), audit.findings[0])


def _training_settings(old: Checkpoint, config: CureSettings) -> TrainingSettings:
    return TrainingSettings(
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


def _measure_outcome(
    predictor: Predictor, table: ImageTable, test: Tensor, index: DatasetIndex, audit: AuditReport, suspect: str
) -> CureOutcome:
    logits = predictor.logits([table.grids[i, 0].float().numpy() for i in test.tolist()]).astype(np.float64)
    labels = table.labels[test].numpy()
    probs = metrics.logits_to_probabilities(logits, predictor.card.head, predictor.card.temperature)
    groups = np.array([index.table["group"].iloc[row] or str(row) for row in table.rows[test]])
    evaluation = metrics.evaluate(probs, labels, index.classes, list(groups)).to_json()
    escapes: dict[str, Any] = {}
    if CLEAR in predictor.classes:
        to_clear = probs.argmax(axis=1) == predictor.classes.index(CLEAR)
        for k, name in enumerate(predictor.classes):
            if name != CLEAR and (labels == k).any():
                share = metrics.estimate_share(to_clear[labels == k], groups[labels == k])
                escapes[name] = {"share": share.value, "interval": (share.low, share.high), "n": share.n}
    effect = _find_stain_finding(audit, suspect)
    return CureOutcome(
        **{name: getattr(effect, name) for name in ("flip_rate", "control_flip_rate", "excess")},
        excess_interval=effect.interval,
        excess_n=effect.n,
        **{name: evaluation[name] for name in ("accuracy", "n", "ece")},
        accuracy_interval=evaluation["intervals"]["accuracy"],
        escapes=escapes,
        evidence_inside_stain=audit.detail["evidence_inside"],
        evaluation=evaluation,
    )


def _write_note(old: str, ledger: CureLedger) -> str:
    return (
        f"Cured of the white-stain shortcut of {old}: beyond its strongest control, a stain beside the defect turned "
        f"{format_share(ledger.before.excess)} of the sheets before, and {format_share(ledger.after.excess)} after."
    )
