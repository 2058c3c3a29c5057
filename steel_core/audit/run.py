"""Audit a checkpoint on a data set: read the images once, ask one question or all of them."""

from collections.abc import Callable

from steel_core.audit.discover import audit_discover
from steel_core.audit.edges import audit_edges
from steel_core.audit.properties import audit_properties
from steel_core.audit.report import AuditReport
from steel_core.audit.settings import AuditSettings, DiscoverSettings, EdgeSettings, PropertySettings, StainSettings
from steel_core.audit.sheets import read_learnt, read_sheets
from steel_core.audit.white_stain import audit_white_stain
from steel_core.data.index import DatasetIndex
from steel_core.evaluation.evaluation import match_classes
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress, within


def audit(
    predictor: Predictor,
    index: DatasetIndex,
    settings: AuditSettings = AuditSettings(),
    progress: Progress = no_progress,
) -> list[AuditReport]:
    """Ask each question of the same images: one report for each kind, in their order.

    A binary checkpoint (clear, defect) sees defect types as one class. What `progress` raises ends the audit.

    Raises:
        UsageError: the checkpoint is multi-label.
        DataError: the data set's labels are unknown to the checkpoint, or no image is left.
    """
    index = prepare_index(predictor, index)
    sheets = read_sheets(predictor, index, settings.part, settings.limit, settings.seed, progress)
    learnt = read_learnt(predictor, index, settings.limit, settings.seed, progress)
    shared = {"tolerated": settings.tolerated, "seed": settings.seed}
    stain, tell = settings.stain or StainSettings(**shared), within(progress, "audit")
    asked: dict[str, Callable[[], AuditReport]] = {
        "white-stain": lambda: audit_white_stain(predictor, sheets, stain, tell, learnt),
        "edges": lambda: audit_edges(predictor, sheets, EdgeSettings(**shared), tell),
        "properties": lambda: audit_properties(predictor, sheets, index, PropertySettings(**shared), tell, learnt),
        "discover": lambda: audit_discover(predictor, sheets, DiscoverSettings(**shared), tell),
    }
    return [asked[kind]() for kind in settings.kinds]


def prepare_index(predictor: Predictor, index: DatasetIndex) -> DatasetIndex:
    """The data set in the words of a checkpoint; raises what `audit` does where the two do not go together."""
    predictor.card.expect_one_label("audit")
    return match_classes(index, predictor.classes)
