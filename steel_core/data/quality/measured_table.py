"""A table of what was measured on every picture of a data set, once: it is kept in the user's cache."""

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from steel_core.data.index import DatasetIndex
from steel_core.errors import UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.progress import Progress, no_progress

_PART = 2048


@dataclass(frozen=True)
class MeasuredTable:
    """What `measure` says of a sample of an index: numbers (NaN where one is left out) and `facts`, which are text.

    The table is computed at the first call, in parts of 2,048 samples, and kept as Parquet until the index or a file's
    time or size changes; an interrupted call goes on where it stopped.
    """

    name: str
    numbers: tuple[str, ...]
    measure: Callable[[DatasetIndex, int], dict[str, Any]]
    facts: tuple[str, ...] = ()

    def load_or_measure(self, index: DatasetIndex, progress: Progress = no_progress) -> pd.DataFrame:
        """One row a sample."""
        folder = self.folder(index)
        parts = []
        for start in range(0, len(index), _PART):
            rows = range(start, min(start + _PART, len(index)))
            kept, part = self._load_part(index, rows)
            if part is None:
                with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                    measured = []
                    for done, values in enumerate(pool.map(partial(self.measure, index), rows), start + 1):
                        measured.append(values)
                        progress("measuring pictures", done, len(index))
                part = self._make_part(measured)
                with suppress(UsageError):  # a cache that cannot be written only costs time
                    for old in folder.glob(f"{start:09d}-*.parquet"):
                        old.unlink(missing_ok=True)
                    sink = io.BytesIO()
                    part.to_parquet(sink, index=False)
                    write_bytes(kept, sink.getvalue())
            parts.append(part)
            progress("measuring pictures", rows.stop, len(index))
        return pd.concat(parts, ignore_index=True) if parts else self._make_part([])

    def load(self, index: DatasetIndex) -> pd.DataFrame | None:
        """What `load_or_measure` would load; None where it would have to measure."""
        if not self.folder(index).is_dir():
            return None
        parts = []
        for start in range(0, len(index), _PART):
            _, part = self._load_part(index, range(start, min(start + _PART, len(index))))
            if part is None:
                return None
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else None

    def folder(self, index: DatasetIndex) -> Path:
        """Where the table of a data set is kept; it changes when a part is added."""
        return cache_folder() / self.name / index.hash[:32]

    def _make_part(self, measured: list[dict[str, Any]]) -> pd.DataFrame:
        part = pd.DataFrame(measured, columns=[*self.numbers, *self.facts])
        return part.astype(dict.fromkeys(self.numbers, float)).fillna(dict.fromkeys(self.facts, ""))

    def _load_part(self, index: DatasetIndex, rows: range) -> tuple[Path, pd.DataFrame | None]:
        kept = self.folder(index) / f"{rows.start:09d}-{_stamp(index, rows)}.parquet"
        with suppress(OSError, ValueError):
            part = pd.read_parquet(kept)
            if list(part.columns) == [*self.numbers, *self.facts] and len(part) == len(rows):
                return kept, part
        return kept, None


def _stamp(index: DatasetIndex, rows: range) -> str:
    digest = hashlib.sha256(str(index.root).encode())
    for path in index.table["path"].iloc[rows.start : rows.stop]:
        with suppress(OSError):
            state = os.stat(index.root / path)  # noqa: PTH116 - a Path's costs twice the time
            digest.update(f"{state.st_mtime_ns}:{state.st_size};".encode())
    return digest.hexdigest()[:16]
