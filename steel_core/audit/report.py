"""What every audit ends in: a verdict, the effects it rests on, and everything needed to make it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import steel_core
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW, Effect
from steel_core.inference.predictor import Predictor
from steel_core.render import percent

STATUS = {AGAINST: 0, FOR: 3, TOO_FEW: 4}
"""Exit status of the command line for each verdict."""

CAUTION = "An audit shows what moves this model on these images. It cannot show that there is no other shortcut."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tested.

    Attributes:
        name: what, in a few words ("towards clear").
        verdict: what it says by itself: `FOR`, `AGAINST` or `TOO_FEW`.
        sentence: what was found, for people.
        effect: over all images.
        p: p value of the effect, corrected for the number of findings.
        per_class: the effect on the images of each class.
        legs: what agrees, by name: True (shown), False (ruled out) or None (undecided); all must for a red finding.
        detail: further figures, as `json` can write them.
    """

    name: str
    verdict: str
    sentence: str
    effect: Effect
    p: float
    per_class: dict[str, Effect] = field(default_factory=dict)
    legs: dict[str, bool | None] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "sentence": self.sentence,
            **self.effect.to_json(),
            "p_corrected": self.p,
            "per_class": {label: effect.to_json() for label, effect in self.per_class.items()},
            "legs": self.legs,
            **self.detail,
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What one audit of one checkpoint on one data set found.

    Attributes:
        kind: "white-stain", "edges", "properties" or "discover".
        question: what was asked, in a sentence.
        verdict: `FOR`, `AGAINST` or `TOO_FEW`.
        findings: the one that the verdict rests on first.
        limits: what a reader must know, one sentence each.
        detail: tables of the audit, as `json` can write them.
        settings: everything that, with model, data and seed, gives the same report.
        model: name of the checkpoint.
        model_hash: sha256 of weights and card.
        data: name of the data set.
        data_hash: sha256 of labels and files of the images that were looked at.
        images: how many those are.
        seed: of everything drawn at random.
        code_version: version of steel_core.
        created: UTC time, ISO 8601.
    """

    kind: str
    question: str
    verdict: str
    findings: tuple[Finding, ...]
    limits: tuple[str, ...]
    detail: dict[str, Any]
    settings: dict[str, Any]
    model: str
    model_hash: str
    data: str
    data_hash: str
    images: int
    seed: int
    code_version: str = steel_core.__version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def status(self) -> int:
        """Exit status of the command line: 0 pass, 3 shortcut found, 4 not enough data."""
        return STATUS[self.verdict]

    @property
    def effect(self) -> Effect | None:
        """The effect of the first finding; None if nothing could be tested."""
        return self.findings[0].effect if self.findings else None

    def figures(self) -> dict[str, Any]:
        """What a release pipeline reads: the verdict, and the figures of the first finding."""
        first, effect = (self.findings[0] if self.findings else None), self.effect
        return {
            "verdict": self.verdict,
            "finding": first.name if first else None,
            "flip_rate": effect.flip_rate if effect else None,
            "control_flip_rate": effect.control_flip_rate if effect else None,
            "excess": effect.excess if effect else None,
            "interval": effect.interval if effect else None,
            "n": effect.n if effect else 0,
            "groups": effect.groups if effect else 0,
            "detectable": effect.detectable if effect else None,
            "per_class": {k: e.to_json() for k, e in first.per_class.items()} if first else {},
        }

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write, with `figures` at its top."""
        return {
            "audit": self.kind,
            "question": self.question,
            **self.figures(),
            "findings": [finding.to_json() for finding in self.findings],
            "limits": list(self.limits),
            "detail": self.detail,
            "settings": self.settings,
            "model": self.model,
            "model_hash": self.model_hash,
            "data": self.data,
            "data_hash": self.data_hash,
            "images": self.images,
            "seed": self.seed,
            "code_version": self.code_version,
            "created": self.created,
        }


def finished(
    kind: str,
    question: str,
    verdict: str,
    findings: list[Finding],
    predictor: Predictor,
    sheets: Sheets,
    *,
    settings: dict[str, Any],
    seed: int,
    limits: tuple[str, ...] = (),
    detail: dict[str, Any] | None = None,
) -> AuditReport:
    """The report of an audit, findings in the order given, but those for a shortcut first."""
    if all(group.startswith("row ") for group in sheets.groups):
        limits = (*limits, "Near-duplicates were not looked for: the intervals may be too narrow.")
    return AuditReport(
        kind=kind,
        question=question,
        verdict=verdict,
        findings=tuple(sorted(findings, key=lambda finding: finding.verdict != FOR)),
        limits=(*limits, *sheets.told, CAUTION),
        detail=detail or {},
        settings=settings,
        model=predictor.card.name,
        model_hash=predictor.hash,
        data=sheets.data,
        data_hash=sheets.data_hash,
        images=len(sheets),
        seed=seed,
    )


def strongest_first(findings: list[Finding]) -> list[Finding]:
    """Findings by the lower end of their interval, those that could not be tested last."""
    return sorted(findings, key=lambda f: (f.effect.excess is not None, f.effect.interval[0]), reverse=True)


def told(effect: Effect, what: str, outcome: str) -> str:
    """An effect in a sentence: "A white stain turns to clear 31.0 % of 145 images; ..."."""
    if effect.excess is None:
        return f"{what}: no image could be tested."
    low, high = effect.interval
    return (
        f"{what} {outcome} {in_percent(effect.flip_rate)} of {effect.n} images; its strongest control, "
        f"{effect.control.replace('-', ' ')}, {in_percent(effect.control_flip_rate)}. "
        f"Excess {signed(effect.excess)} (95 % interval {signed(low)} to {signed(high)})."
    )


def in_percent(share: float | None) -> str:
    """A share that may be unknown: "1.5 %"."""
    return "unknown" if share is None else percent(share)


def signed(share: float) -> str:
    """A difference of shares, in percent: "+1.5 %"."""
    return f"{100 * share:+.1f} %"
