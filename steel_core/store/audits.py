"""The history of audits: one file a run, written once and never changed.

A name holds when a run began and a random number: no two sessions write the same file, and a link can hold it.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from steel_core.audit.statistics import combine_verdicts
from steel_core.errors import DataError, UsageError
from steel_core.files import steel_home, write_bytes
from steel_core.records import Record

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


class AuditRun(Record):
    """One run."""

    model_config = ConfigDict(extra="ignore")

    error = DataError

    name: str
    at: str  # UTC time of its end, ISO 8601
    data: str  # the data set's name on the dashboard, to find its pictures again
    seconds: float
    reports: tuple[dict[str, Any], ...] = Field(min_length=1)  # what `AuditReport.to_json` gave for each question

    @field_validator("reports")
    @classmethod
    def _check_reports(cls, reports: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if not all({"audit", "verdict", "findings", "model_hash"} <= set(report) for report in reports):
            raise ValueError("expected the reports of an audit, and they are not whole")
        return reports

    @property
    def verdict(self) -> str:
        """One for the run: a shortcut if any question found one; against one only if all that were asked say so."""
        return combine_verdicts([report["verdict"] for report in self.reports])


class AuditStore:
    """The runs of all sessions, in a folder; `steel_home() / "audits"` if None."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or steel_home() / "audits"

    def add(self, name: str, data: str, seconds: float, reports: Sequence[dict[str, Any]]) -> AuditRun:
        """Keep a run; when this returns, it is on the disk.

        Raises:
            UsageError: there is a run of this name, none was asked, or the folder cannot be written to.
        """
        if not _NAME.fullmatch(name) or not reports:
            raise UsageError(f"audit run: expected a new name and at least one report, got {name!r} and {len(reports)}")
        path = self._path(name)
        if path.exists():
            raise UsageError(f"audit run {name}: it is kept already, and runs are never changed")
        at = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"name": name, "at": at, "data": data, "seconds": seconds, "reports": list(reports)}
        text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
        run = AuditRun.from_json(json.loads(text))  # what was just kept is the same as what is read later
        write_bytes(path, f"{text}\n".encode())
        return run

    def get(self, name: str) -> AuditRun | None:
        """The run of that name, which may come from a link; None if there is none, a DataError if it is damaged."""
        if not _NAME.fullmatch(name) or not self._path(name).is_file():
            return None
        return _read(self._path(name))

    def history(self) -> tuple[list[AuditRun], list[str]]:
        """Every run, the newest first, and a sentence for each file that cannot be read."""
        runs, problems = [], []
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            if not _NAME.fullmatch(path.stem):
                continue
            try:
                runs.append(_read(path))
            except DataError as error:
                problems.append(str(error))
        return runs, problems

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _read(path: Path) -> AuditRun:
    try:
        return AuditRun.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: expected an audit run as JSON, got a file that cannot be read") from error
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
