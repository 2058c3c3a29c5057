"""Audit a checkpoint on a data set: read the images once, ask one question or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steel_core.audit.discover import DiscoverSettings, audit_discover
from steel_core.audit.edges import EdgeSettings, audit_edges
from steel_core.audit.properties import PropertySettings, audit_properties
from steel_core.audit.report import AuditReport
from steel_core.audit.sheets import Sheets, read_sheets
from steel_core.audit.white_stain import StainSettings, audit_white_stain
from steel_core.data.index import DatasetIndex
from steel_core.errors import UsageError
from steel_core.evaluation.evaluate import PARTS, match_classes
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress, within

AUDITS = ("white-stain", "edges", "properties", "discover")
"""The questions that can be asked, by name."""


def audit(
    predictor: Predictor,
    index: DatasetIndex,
    kinds: tuple[str, ...] = AUDITS,
    *,
    part: str = "held-out",
    limit: int = 300,
    tolerated: float = 0.05,
    seed: int = 0,
    stain: StainSettings | None = None,
    progress: Progress = no_progress,
) -> list[AuditReport]:
    """Ask each question of the same images.

    Args:
        predictor: the checkpoint.
        index: the data set. A binary checkpoint (clear, defect) sees its defect types as one class.
        kinds: names out of `AUDITS`.
        part: which images, as `recipes.evaluate` takes it.
        limit: number of images at the most, drawn evenly from the classes.
        tolerated: excess flip rate that is put up with.
        seed: of everything drawn at random.
        stain: the white-stain test's settings, where they shall differ from its defaults in more than the above.
        progress: receives what is being done, how much is done, and of how much. What it raises ends the audit.

    Returns:
        One report for each kind, in their order.

    Raises:
        UsageError: a kind or part is unknown, a number out of its range, or the checkpoint is multi-label.
        DataError: the data set's labels are unknown to the checkpoint, or no image is left.
    """
    if unknown := [kind for kind in kinds if kind not in AUDITS]:
        raise UsageError(f"audit: expected names out of {', '.join(AUDITS)}, got {', '.join(unknown)}")
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if limit < 1 or not 0 <= tolerated < 1:
        raise UsageError(
            f"audit: expected at least 1 image and a tolerated excess of 0 to 1, got {limit}, {tolerated:g}"
        )
    index = auditable(predictor, index)
    sheets = read_sheets(predictor, index, part, limit, seed, progress)
    asked: dict[str, Callable[[Sheets, Any], AuditReport]] = {
        "white-stain": lambda on, tell: audit_white_stain(
            predictor, on, stain or StainSettings(tolerated=tolerated, seed=seed), tell
        ),
        "edges": lambda on, tell: audit_edges(predictor, on, EdgeSettings(tolerated=tolerated, seed=seed), tell),
        "properties": lambda on, tell: audit_properties(
            predictor, on, index, PropertySettings(tolerated=tolerated, seed=seed), tell
        ),
        "discover": lambda on, tell: audit_discover(
            predictor, on, DiscoverSettings(tolerated=tolerated, seed=seed), tell
        ),
    }
    return [asked[kind](sheets, within(progress, "audit")) for kind in kinds]


def auditable(predictor: Predictor, index: DatasetIndex) -> DatasetIndex:
    """The data set in the words of a checkpoint that it can be audited with.

    Raises:
        UsageError: the checkpoint is multi-label.
        DataError: the data set's labels are unknown to the checkpoint.
    """
    predictor.card.expect_one_label("audit")
    return match_classes(index, predictor.classes)
