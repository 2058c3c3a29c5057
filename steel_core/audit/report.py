"""What every audit ends in: a verdict, the effects it rests on, and everything needed to make it again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

import steel_core
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import AGAINST, FOR, NOTHING, TOO_FEW, Effect
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import Interval
from steel_core.records import Record
from steel_core.render import percent

STATUS = {AGAINST: 0, FOR: 3, TOO_FEW: 4, NOTHING: 4}  # exit status of the command line for each verdict

QUESTIONS: dict[str, str] = {
    "white-stain": "Does a harmless white stain turn the verdict of this model?",
    "edges": "Does the border of the picture decide, rather than the steel?",
    "properties": "Does a property of the picture, rather than the steel, go with the label and move the model?",
    "discover": "Is there evidence beside the defects that goes with a label and moves the model by itself?",
}
CAUTION = "An audit shows what moves this model on these images. It cannot show that there is no other shortcut."


class AuditFinding(Effect):
    """One thing that was tested: its effect over all images, and more fields that tell of its kind of audit."""

    model_config = ConfigDict(extra="allow")

    name: str  # what, in a few words ("towards clear")
    verdict: str  # what it says by itself: `FOR`, `AGAINST` or `TOO_FEW`
    sentence: str
    p_corrected: float  # p value of the effect, corrected for the number of findings
    per_class: dict[str, Effect] = Field(default_factory=dict)
    # what agrees, by name: True (shown), False (ruled out) or None (undecided); all must for a red finding
    legs: dict[str, bool | None] = Field(default_factory=dict)
    # shares of the defective sheets passed, referred and named wrong, by what was done to them
    outcomes: dict[str, dict[str, Any]] = Field(default_factory=dict)


class AuditSummary(Record):
    """What a release pipeline reads: the verdict, and name and estimates of the finding that it rests on, if any."""

    verdict: str
    finding: str | None = None
    flip_rate: float | None = None
    control_flip_rate: float | None = None
    excess: float | None = None
    interval: Interval | None = None
    n: int = 0
    groups: int = 0
    detectable: float | None = None
    per_class: dict[str, Effect] = Field(default_factory=dict)


class AuditReport(AuditSummary):
    """What one audit of one checkpoint on one data set ended in."""

    published: ClassVar[str] = "audit-report"

    audit: str
    question: str
    findings: tuple[AuditFinding, ...]  # the one that the verdict rests on first
    limits: tuple[str, ...]  # what a reader must know, one sentence each
    detail: dict[str, Any]  # tables of the audit, as `json` can write them
    settings: dict[str, Any]  # everything that, with model, data and seed, gives the same report
    model: str
    model_hash: str  # sha256 of weights and card
    data: str
    data_hash: str  # sha256 of labels and files of the images that were looked at
    images: int
    seed: int
    code_version: str = steel_core.__version__
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))  # UTC time, ISO 8601

    @property
    def status(self) -> int:
        """Exit status of the command line: 0 pass, 3 shortcut found, 4 not enough data or nothing to test."""
        return STATUS[self.verdict]

    def summary(self) -> dict[str, Any]:
        """The fields of `AuditSummary`, as `json` can write them."""
        return self.model_dump(mode="json", include=set(AuditSummary.model_fields))


def build_report(
    kind: str,
    verdict: str,
    findings: list[AuditFinding],
    predictor: Predictor,
    sheets: Sheets,
    settings: Any,
    *,
    limits: Sequence[str] = (),
    detail: dict[str, Any] | None = None,
) -> AuditReport:
    """The report of an audit with these settings, findings in the order given, but those for a shortcut first."""
    if all(group.startswith("row ") for group in sheets.groups):
        limits = [*limits, "Near-duplicates were not looked for: the intervals may be too narrow."]
    findings = sorted(findings, key=lambda finding: finding.verdict != FOR)
    shared = set(AuditSummary.model_fields) & set(AuditFinding.model_fields) - {"verdict"}
    first = {"finding": findings[0].name} | {name: getattr(findings[0], name) for name in shared} if findings else {}
    return AuditReport(
        audit=kind,
        question=QUESTIONS[kind],
        verdict=verdict,
        **first,
        findings=findings,
        limits=(*limits, *sheets.remarks, CAUTION),
        detail=detail or {},
        settings=settings.to_json(),
        model=predictor.card.name,
        model_hash=predictor.hash,
        data=sheets.data,
        data_hash=sheets.data_hash,
        images=len(sheets),
        seed=settings.seed,
    )


def sort_strongest_first(findings: list[AuditFinding]) -> list[AuditFinding]:
    """Findings by the lower end of their interval, those that could not be tested last."""
    return sorted(findings, key=lambda finding: (finding.excess is not None, finding.interval[0]), reverse=True)


def describe_effect(effect: Effect, what: str, outcome: str) -> str:
    """An effect in a sentence: "A white stain turns to clear 31.0 % of 145 images; ..."."""
    if effect.excess is None:
        return f"{what}: no image could be tested."
    low, high = effect.interval
    return (
        f"{what} {outcome} {format_share(effect.flip_rate)} of {effect.n} images; its strongest control, "
        f"{effect.control.replace('-', ' ')}, {format_share(effect.control_flip_rate)}. "
        f"Excess {format_difference(effect.excess)} (95 % interval {format_difference(low)} to "
        f"{format_difference(high)})."
    )


def format_share(share: float | None) -> str:
    """A share that may be unknown: "1.5 %"."""
    return "unknown" if share is None else percent(share)


def format_difference(share: float) -> str:
    """A difference of shares, in percent: "+1.5 %"."""
    return f"{100 * share:+.1f} %"
