"""Triage of images that a model got wrong: is the model wrong, is the label, or can nobody tell?

Entries are only ever added; the last one of an image counts. SQLite lets several sessions write, and survives a crash.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
from pydantic import Field, field_validator

from steel_core.data.readers.manifest import escape_formula
from steel_core.errors import DataError, UsageError
from steel_core.files import steel_home
from steel_core.records import Record

Finding = Literal["model wrong", "label wrong", "ambiguous", "open"]
"""What a person may find; "open" takes an earlier finding back."""

FINDINGS: tuple[Finding, ...] = get_args(Finding)

_BUSY = 10.0  # seconds


class Triage(Record):
    """One finding about one image; its fields are the columns of the table."""

    image_sha256: str = Field(description="Hash of the image's bytes.")
    file: str = Field(description="Its name, for people.")
    checkpoint: str = Field(description="Hash of the checkpoint that was looked at.")
    label: str = Field(description="The label that the image has.")
    pred: str = Field(description="What the model says.")
    finding: Finding = Field(description="What the person thinks is wrong.")
    should_be: str = Field("", description="The label it should have, where the label is wrong and the person knows.")
    who: str = Field(description="The person.")
    comment: str = Field("", description="In that person's words.")
    at: str = Field("", description="UTC time, ISO 8601; filled in when it is added.")

    @field_validator("who")
    @classmethod
    def _check_person(cls, who: str) -> str:
        if not who.strip():
            raise ValueError("a finding needs the name of the person who made it")
        return who


_COLUMNS = tuple(Triage.model_fields)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS triage (
    id INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(f"{name} TEXT NOT NULL" for name in _COLUMNS)}
);
CREATE INDEX IF NOT EXISTS triage_image ON triage (image_sha256, id);
CREATE TRIGGER IF NOT EXISTS triage_keeps BEFORE UPDATE ON triage BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS triage_stays BEFORE DELETE ON triage BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""


class TriageStore:
    """The findings of all people about all images, in a folder; `steel_home()` if None.

    A file that is damaged raises a DataError, one that cannot be read or written now a UsageError.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or steel_home()) / "triage.sqlite"

    def add(self, finding: Triage) -> Triage:
        """Keep a finding and return it with its time; when this returns, it is on the disk."""
        finding = finding.replace(at=datetime.now(UTC).isoformat(timespec="milliseconds"))
        with self._open() as base:
            marks = ", ".join("?" * len(_COLUMNS))
            base.execute(
                f"INSERT INTO triage ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608 - names of our own
                list(dict(finding).values()),
            )
        return finding

    def history(self, image_sha256: str | None = None) -> list[Triage]:
        """Every finding, oldest first; those about one image if its hash is given."""
        if not self.path.exists():
            return []
        query = f"SELECT {', '.join(_COLUMNS)} FROM triage"  # noqa: S608 - names of our own
        with self._open() as base:
            where, values = (" WHERE image_sha256 = ?", (image_sha256,)) if image_sha256 else ("", ())
            rows = base.execute(f"{query}{where} ORDER BY id", values).fetchall()
        # Rows were checked when they were added; one by another hand must not hide the others.
        return [Triage.model_construct(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    def latest(self) -> dict[str, Triage]:
        """The finding that counts for each image, by its hash; images whose finding was taken back are not in it."""
        last = {finding.image_sha256: finding for finding in self.history()}
        return {image: finding for image, finding in last.items() if finding.finding != "open"}

    def relabelling_csv(self) -> str:
        """The images whose label is wrong or ambiguous, as CSV in which no cell runs as a formula."""
        listed = [dict(entry) for entry in self.latest().values() if entry.finding in ("label wrong", "ambiguous")]
        table = pd.DataFrame(listed, columns=["file", "label", "should_be", "finding", "pred", "who", "at", "comment",
                                              "image_sha256", "checkpoint"])  # fmt: skip
        return str(table.map(lambda cell: escape_formula(str(cell))).to_csv(index=False))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction: kept as a whole when the block ends well, else not at all."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY)) as base:
                base.execute("PRAGMA journal_mode = WAL")
                base.execute("PRAGMA synchronous = FULL")
                with base:
                    if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'triage_stays'").fetchone():
                        base.executescript(_SCHEMA)
                    yield base
        except sqlite3.OperationalError as error:
            raise UsageError(f"{self.path.name}: cannot be read or written now ({error})") from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path.name}: the file is damaged ({error})") from error
        except OSError as error:
            raise UsageError(f"{self.path.name}: its folder cannot be written to ({error.strerror})") from error
