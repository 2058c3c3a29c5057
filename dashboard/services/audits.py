"""The shortcut audits of whole data sets: made by a worker, kept, and read again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.services import datasets, files, jobs, models
from dashboard.services.cache import cached_data
from steel_core.audit.run import audit, prepare_index
from steel_core.audit.settings import AUDITS, AuditSettings
from steel_core.audit.stains import read_stencil
from steel_core.errors import SteelError
from steel_core.files import new_run_name
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress
from steel_core.reports import audit_report, audit_sentences
from steel_core.reports.audit_report import Pair, make_pairs, render_audit_html
from steel_core.store.audits import AuditRun, AuditStore

__all__ = ["AUDITS", "AuditRun", "AuditSettings", "Pair", "audit_report", "audit_sentences", "read_stencil"]

SEVERITIES = (audit_sentences.SHORTCUT, audit_sentences.SUSPICIOUS, audit_sentences.QUIET)

AUDIT: jobs.Kind[AuditRun] = jobs.Kind("audit", queue="audit")

_SECONDS_AN_AUDITED_IMAGE = {"white-stain": 0.7, "edges": 0.15, "properties": 0.3, "discover": 0.3}  # until timed here


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """What an audit that goes on was asked: names of the run, the model and the data set, and the questions."""

    name: str
    model: str
    data: str
    kinds: tuple[str, ...]


def start(model: Predictor, data: str, settings: AuditSettings) -> str:
    """Let a worker audit a model on a data set; the name of the run, which the link to it holds."""
    name, index = new_run_name(), datasets.dataset(data)

    def work(progress: Progress) -> AuditRun:
        began = time.monotonic()
        reports = audit(model, index, settings, progress=progress)
        seconds = round(time.monotonic() - began, 1)
        return AuditStore().add(name, data, seconds, [report.to_json() for report in reports])

    jobs.board().start(AUDIT, name, work, about=AuditRequest(name, model.card.name, data, settings.kinds))
    return name


def at_work() -> list[AuditRequest]:
    return [job.about for job in jobs.board().running(AUDIT)]


def why_not(model: Predictor, data: str) -> str:
    """Why a model cannot be audited on a data set, in a sentence; "" where it can."""
    try:
        prepare_index(model, datasets.dataset(data))
    except SteelError as error:
        return str(error)
    return ""


def _store_now() -> tuple[str, int]:
    folder = AuditStore().folder
    return str(folder), files.stamp(folder)


@cached_data(_store_now, max_entries=2)
def history() -> tuple[list[AuditRun], list[str]]:
    """Every finished run, the newest first, and a sentence for each file that cannot be read."""
    return AuditStore().history()


def seconds_to_audit(kinds: Sequence[str], data: str, limit: int) -> float:
    """How long an audit will take, judged by the last one of the same questions, else by what was measured once."""
    images = min(limit, len(datasets.dataset(data)))
    for run in history()[0][:20]:
        if sorted(one["audit"] for one in run.reports) == sorted(kinds) and run.reports[0].get("images"):
            return images * run.seconds / run.reports[0]["images"]
    return images * sum(_SECONDS_AN_AUDITED_IMAGE[kind] for kind in kinds)


def audited_model(run: AuditRun) -> Predictor | None:
    """The very model of a run; None where it is not here any more, or is another by now."""
    report = run.reports[0]
    if report["model"] not in models.available():
        return None
    model = models.predictor(report["model"])
    return model if model.hash == report["model_hash"] else None


@cached_data(
    lambda run, report: (run.name, report["audit"]), max_entries=16, spinner="Making the pairs of pictures again"
)
def pairs(run: AuditRun, report: dict[str, Any]) -> list[Pair]:
    """The images that the stain moved the most, with and without it; none where model or data are not here."""
    model = audited_model(run)
    if model is None or run.data not in datasets.available():
        return []
    return make_pairs(model, datasets.dataset(run.data), report, 4)


def page(run: AuditRun) -> bytes:
    index = datasets.dataset(run.data) if run.data in datasets.available() else None
    return render_audit_html(run.reports, audited_model(run), index).encode()
