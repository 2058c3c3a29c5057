"""Cure a shortcut: fine-tune with the artefact where it is missing, then test again. Reads top to bottom.

Marks are painted over and put back on every class alike: what says nothing is not learnt. The whole network learns. It
is judged by marks that it has not seen, and a cure that fails is called so.
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
from steel_core.audit.report import STATUS, AuditFinding, AuditReport, format_share
from steel_core.audit.settings import CureSettings, StainSettings
from steel_core.audit.sheets import read_sheets
from steel_core.audit.statistics import AGAINST, FOR, LEAST
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
from steel_core.progress import Progress, Say, no_progress, within
from steel_core.records import Record
from steel_core.training.fit import FitResult, run_fit
from steel_core.training.images import ImageTable, read_images
from steel_core.training.map_scales import map_scales, some_images
from steel_core.training.settings import TrainingSettings
from steel_core.types import CLEAR, Float64Array, Int64Array

FALLS, COSTS = 10, 0.01
"""Flips must fall to a tenth, or to what is tolerated, and balanced accuracy by no more than this."""
GAP = 0.1  # so much may well be the difference of two groups of sheets

_SHARP = 4.0  # an image whose logits differ by more than about 1 hardly weighs in `fit_class_offsets`


class CureOutcome(Record):
    """How one checkpoint does on images that served neither training.

    Flips are those to the suspected class by the stain of the family that turns most, on `excess_n` sheets, and by each
    of its controls. An escape is an image of a class that is called clear.
    """

    stain: str  # in words
    flip_rate: float | None
    controls: dict[str, float]
    control_flip_rate: float | None
    excess: float | None
    excess_interval: Interval | None
    excess_n: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    # how much oftener images of the suspected class are named so with marks of their own than without, None without any
    gap: float | None
    n: int
    outcomes: dict[str, dict[str, Any]]
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

    @property
    def failure(self) -> str:
        """Why this is no cure, in a sentence; "" where it is one. What could not be measured is no success."""
        convicted, afterwards = self.audit_before.verdict == FOR, self.audit_after.verdict
        before, after = self.before, self.after
        tolerated = self.audit_after.settings["tolerated"]
        flips = [side.flip_rate or 0.0 for side in (before, after)]
        gaps = [side.gap or 0.0 for side in (before, after)]
        unknown = after.flip_rate is None or (before.gap is not None and after.gap is None)
        reasons = {
            "the audit still finds the shortcut": afterwards == FOR,
            "that the shortcut is gone is not shown: the audit afterwards has not enough data": (
                convicted and afterwards != AGAINST
            ),
            "what stains do to it could not be measured afterwards": unknown,
            f"a stain still turns {format_share(after.flip_rate)} of the sheets; before, one turned "
            f"{format_share(before.flip_rate)}": flips[1] > max(flips[0] / FALLS, tolerated),
            f"sheets with marks of their own are still named rightly {format_share(after.gap)} oftener than others": (
                gaps[1] > max(gaps[0] / FALLS, GAP)
            ),
            f"balanced accuracy fell from {before.balanced_accuracy:.3f} to {after.balanced_accuracy:.3f}": (
                after.balanced_accuracy < before.balanced_accuracy - COSTS
            ),
        }
        return next((why for why, holds in reasons.items() if holds), "")

    @property
    def status(self) -> int:
        """Exit status of the command line: 3 where the cure failed, else that of the audit afterwards."""
        return STATUS[FOR] if self.failure else self.audit_after.status


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
    """Audit, fine-tune with the artefact where it is missing, save, and audit again.

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
    # The marks of the audits are cut from images whose gradients no training saw; they serve to choose the epoch.
    unseen = read_sheets(predictor, index, "val", limit, settings.seed)
    first = audit_white_stain(predictor, sheets, settings, within(progress, "audit before"), unseen)
    suspect = first.detail["towards"]
    report(f"before: {first.verdict}. {_find_stain_finding(first, suspect).sentence}")

    # Fit
    artefacts = Artefacts.collect(index, table, parts["train"], old.card.classes.index(suspect), config, predictor)
    report(artefacts.describe(old.card.classes))
    model = BACKBONES[old.card.backbone](len(old.card.classes))
    model.load_state_dict(old.model.state_dict())
    both, val = artefacts.with_varied_copies(table, parts["val"])
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
        title=title,
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
    second = audit_white_stain(cured, sheets, settings, within(progress, "audit after"), unseen)
    report(f"after: {second.verdict}. {_find_stain_finding(second, suspect).sentence}")
    ledger = CureLedger(
        before=_measure_outcome(predictor, table, parts, index, first, artefacts),
        after=_measure_outcome(cured, table, parts, index, second, artefacts),
        audit_before=first,
        audit_after=second,
    )

    report(f"no cure: {ledger.failure}" if ledger.failure else "cured")

    # Card
    card = card.replace(
        title=title or f"{old.card.title}, {'cure failed' if ledger.failure else 'cured'}",
        metrics={"test": ledger.after.evaluation},
        training=old.card.training.replace(cure=_summarise(old, config, result, ledger)),
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
    split = table.describe_split(parts)
    return card.split.replace(contents=card.split.contents or split["contents"]) if is_known else Split.from_json(split)


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
    predictor: Predictor,
    table: ImageTable,
    parts: dict[str, Tensor],
    index: DatasetIndex,
    audit: AuditReport,
    artefacts: Artefacts,
) -> CureOutcome:
    """Flips by the stain of the family that turns most, as the `audit` counted them; figures of the test images."""
    test, unseen = parts["test"], torch.cat([parts["val"], parts["test"]])
    every = predictor.logits([table.grids[i, 0].float().numpy() for i in unseen.tolist()]).astype(np.float64)
    logits = every[len(parts["val"]) :]
    suspect = predictor.classes.index(audit.detail["towards"])
    mine = table.labels[unseen].numpy() == suspect
    marked, right = artefacts.carries[unseen.numpy()][mine], every[mine].argmax(axis=1) == suspect
    gap = float(right[marked].mean() - right[~marked].mean()) if marked.any() and not marked.all() else None
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
    tested = [row for row in audit.detail["doses"] if row["groups"] >= LEAST // 2] or audit.detail["doses"]
    effect = max(tested, key=lambda row: row["flip_rate"] or 0.0)
    return CureOutcome(
        stain=effect["words"],
        **{name: effect[name] for name in ("flip_rate", "control_flip_rate", "controls", "excess")},
        excess_interval=effect["interval"],
        excess_n=effect["n"],
        **{name: evaluation[name] for name in ("accuracy", "n", "ece")},
        accuracy_interval=evaluation["intervals"]["accuracy"],
        balanced_accuracy=evaluation["macro_recall"],
        gap=gap,
        escapes=escapes,
        outcomes=_find_stain_finding(audit, audit.detail["towards"]).outcomes,
        evidence_inside_stain=audit.detail["evidence_inside"],
        evaluation=evaluation,
    )


def _summarise(old: Checkpoint, config: CureSettings, result: FitResult, ledger: CureLedger) -> dict[str, Any]:
    """What the card keeps of the cure."""
    first, second = ledger.audit_before, ledger.audit_after
    return {
        "of": old.card.name,
        "of_hash": old.hash,
        "config": config.to_json(),
        "failure": ledger.failure,
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


def _write_note(old: str, ledger: CureLedger) -> str:
    before, after = format_share(ledger.before.flip_rate), format_share(ledger.after.flip_rate)
    figures = f"a stain beside the defect turned {before} of the sheets before, and {after} after."
    if ledger.failure:
        return (
            f"An attempt to cure {old} of the white-stain shortcut that failed: {ledger.failure}. In figures: {figures}"
        )
    return f"Cured of the white-stain shortcut of {old}: {figures}"
