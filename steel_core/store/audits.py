"""The history of audits: one file a run, written once and never changed.

A run is one or several questions asked of one model on one data set. Its name holds when it began and a number drawn at
random, so that two sessions never write the same file, and a name can be part of a link.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steel_core.audit.statistics import joint
from steel_core.errors import DataError, UsageError
from steel_core.files import steel_home, write_bytes

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class AuditRun:
    """One run.

    Attributes:
        name: of the run, as links hold it.
        at: UTC time of its end, ISO 8601.
        data: the data set's name on the dashboard, to find its pictures again.
        seconds: that it took.
        reports: what `AuditReport.to_json` gave for each question.
    """

    name: str
    at: str
    data: str
    seconds: float
    reports: tuple[dict[str, Any], ...]

    @property
    def verdict(self) -> str:
        """One for the run: a shortcut if any question found one; against one only if all that were asked say so."""
        return joint([report["verdict"] for report in self.reports])

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return asdict(self)


class AuditStore:
    """The runs of all sessions.

    Args:
        folder: where the files lie; `steel_home() / "audits"` if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or steel_home() / "audits"

    def add(self, name: str, data: str, seconds: float, reports: Sequence[dict[str, Any]]) -> AuditRun:
        """Keep a run; when this returns, it is on the disk.

        Args:
            name: what `new_name` gave.
            data: the data set's name on the dashboard.
            seconds: that the run took.
            reports: what `AuditReport.to_json` gave for each question.

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
        # Through JSON and back: what was just kept is the same as what is read later.
        text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
        write_bytes(path, f"{text}\n".encode())
        return _parsed(json.loads(text), path.name)

    def get(self, name: str) -> AuditRun | None:
        """The run of that name, which may come from a link; None if there is none.

        Raises:
            DataError: its file is damaged.
        """
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
        return _parsed(json.loads(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: expected an audit run as JSON, got a file that cannot be read") from error


def _parsed(content: Any, file: str) -> AuditRun:
    try:
        reports = tuple(content["reports"])
        if not reports or not all({"audit", "verdict", "findings", "model_hash"} <= set(one) for one in reports):
            raise DataError(f"{file}: expected the reports of an audit, and they are not whole")
        return AuditRun(content["name"], content["at"], content["data"], float(content["seconds"]), reports)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: expected an audit run with name, time, data and reports") from error
