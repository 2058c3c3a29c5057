"""Manifests: an index as one CSV or Parquet file, with the facts of the data set beside it in a small JSON file.

Paths never leave the manifest's root: one that was handed over must not open other files of the machine. The root is
its own folder; the way to images elsewhere, kept in the JSON file, is followed only where a person names the manifest,
not where it is found in a folder (an unpacked archive, say). In CSV a cell that a spreadsheet would run as a formula
is written with a leading apostrophe, which is taken off again when it is read (OWASP, CSV Injection).
"""

import csv
import io
import json
import os
import re
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steel_core.data.index import COLUMNS, SPLITS, DatasetIndex, DatasetSpec, parse_mask_classes, unknown_spec
from steel_core.data.listing import forget_folders, is_inside
from steel_core.data.readers.base import READERS, Reader
from steel_core.errors import DataError
from steel_core.files import write_bytes
from steel_core.progress import Progress, no_progress

ALIASES = {"file": "path", "filename": "path", "image": "path", "label": "labels", "class": "labels"}
"""Other headers that are understood."""

_NAMES = ("manifest.csv", "manifest.parquet")

LARGE = 100_000
"""A Parquet manifest of more rows is opened without a look at each file."""

_FORMULA = re.compile(r"['=+\-@\t\r\n＝＋－＠]")
_LEADING_OUT = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")
"""Absolute, with a drive letter, climbing, or with a NUL; of this system's paths as of the other's."""


@READERS.register("manifest")
class ManifestReader(Reader):
    """See `read_manifest` for the columns."""

    priority = 50
    layout = "a manifest.csv or manifest.parquet with the column path (or such a file itself)"

    def matches(self, root: Path) -> bool:
        if root.is_file():
            return root.suffix.lower() in {".csv", ".parquet", ".pq"}
        return any((root / name).is_file() for name in _NAMES)

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        if root.is_file():
            return read_manifest(root, named=True)
        return read_manifest(next(root / name for name in _NAMES if (root / name).is_file()))


def write_manifest(index: DatasetIndex, path: Path) -> None:
    """Writes an index as CSV or Parquet, by the ending, and `<name>.dataset.json` beside it."""
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(map(escape_formula, index.table.columns))
        writer.writerows([map(escape_formula, row) for row in index.table.itertuples(index=False, name=None)])
        data = text.getvalue().encode()
    elif path.suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({name: pa.array(index.table[name], pa.string()) for name in index.table.columns}), sink)
        data = sink.getvalue()
    else:
        raise DataError(f"{path.name}: expected a name ending in .csv or .parquet.")
    to_root = os.path.relpath(index.root, os.path.realpath(path.parent)).replace(os.sep, "/")
    facts = asdict(index.spec) | {"classes": list(index.classes), "root": to_root}
    write_bytes(path.with_suffix(".dataset.json"), json.dumps(facts, indent=2, ensure_ascii=False).encode())
    write_bytes(path, data)


def read_manifest(path: Path, *, named: bool = False) -> DatasetIndex:
    """The index that a manifest describes.

    The column "path" is needed; any of the other `COLUMNS` may be missing, and further columns are kept. CSV may be
    separated by commas, semicolons or tabs, in UTF-8 with or without a byte-order mark. The facts come from
    `<name>.dataset.json` or `dataset.json` beside the manifest. Rows whose image is missing are left out and reported.
    With `named`, which says that a person named this file, its way to the images is followed.

    Raises:
        DataError: the file cannot be read, or a row is wrong; the message says which line, and what was expected.
    """
    spec, classes, to_root = _read_facts(path)
    root = Path(os.path.realpath(path.parent / to_root if named else path.parent))
    if _is_parquet(path) and (table := _read_large(path)) is not None:
        return DatasetIndex.build(root, spec, table, classes)
    header, rows, lines, word = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
    names = [ALIASES.get(name.strip().casefold(), name.strip()) for name in header]
    names = [name.casefold() if name.casefold() in COLUMNS else name for name in names]
    if "path" not in names:
        raise DataError(
            f"{path.name}: expected the columns {', '.join(COLUMNS)} (only path is needed), found {', '.join(header)}."
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path.name}: the column {twice[0]!r} is there more than once.")

    columns = [*COLUMNS, *(name for name in names if name not in COLUMNS)]
    table = pd.DataFrame(rows, columns=names, dtype=str).reindex(columns=columns, fill_value="")
    checks = _Checks(path.name, word, lines, table, root)
    checks.splits()
    checks.cells()
    checks.paths()
    missing = [i for i, name in enumerate(table["path"]) if not os.path.isfile(f"{root}/{name}")]  # noqa: PTH113
    if missing and len(missing) == len(table):
        raise DataError(
            f"{path.name}, {word} {lines[0]}: there is no {table['path'][0]!r} below {root.name}; expected paths that "
            "start from that folder."
        )
    problems = [f"{path.name}, {word} {lines[i]}: there is no {table['path'][i]!r}; left out." for i in missing]
    try:
        return DatasetIndex.build(root, spec, table.drop(index=missing), classes, problems)
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error


class _Checks:
    def __init__(self, name: str, word: str, lines: list[int], table: pd.DataFrame, root: Path) -> None:
        self.name, self.word, self.lines, self.table, self.root = name, word, lines, table, root

    def refuse(self, row: Any, why: str) -> DataError:
        return DataError(f"{self.name}, {self.word} {self.lines[row]}: {why}")

    def splits(self) -> None:
        words = self.table["split"].str.strip().str.casefold()
        known = words.map({**SPLITS, "": ""})
        for row in known.index[known.isna()][:1]:
            raise self.refuse(row, f"split {self.table['split'][row]!r}: expected train, val, test or nothing.")
        self.table["split"] = known

    def cells(self) -> None:
        for row, cell in self.table["mask_classes"].drop_duplicates().items():
            try:
                parse_mask_classes(cell)
            except DataError as error:
                raise self.refuse(row, str(error)) from error
        for row, cell in self.table["labels"].drop_duplicates().items():
            if cell and not all(cell.split("|")):
                raise self.refuse(row, f"labels {cell!r}: expected names joined by |, none of them empty.")

    def paths(self) -> None:
        forget_folders()
        for column in ("path", "boxes", "mask"):
            cells = self.table[column].str.replace("\\", "/", regex=False) if os.sep == "\\" else self.table[column]
            for row, cell in enumerate(cells):
                if not cell and column == "path":
                    raise self.refuse(row, "expected a path, found nothing.")
                if _LEADING_OUT.search(cell):
                    raise self.refuse(row, f"{cell!r}: expected a path inside the folder of the data set.")
                if cell and not is_inside(str(self.root), cell):
                    raise self.refuse(row, f"{cell!r}: a link that leads out of the folder of the data set.")
        twice = self.table["path"].duplicated()
        for row in twice.index[twice][:1]:
            cell = self.table["path"][row]
            first = self.lines[int(self.table.index[self.table["path"] == cell][0])]
            raise self.refuse(row, f"{cell!r} is already on {self.word} {first}.")


def _read_csv(path: Path) -> tuple[list[str], list[list[str]], list[int], str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}: expected text in UTF-8; save the table as CSV UTF-8.") from error
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows, lines = [], []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [_unescape(cell) for cell in cells]
            elif len(cells) != len(header):
                raise DataError(
                    f"{path.name}, line {reader.line_num}: expected {len(header)} cells as in the header, "
                    f"found {len(cells)}."
                )
            else:
                rows.append([_unescape(cell) for cell in cells])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: not well-formed CSV ({error}).") from error
    if not rows:
        raise DataError(f"{path.name}: expected a header and at least one row.")
    return header, rows, lines, "line"


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]], list[int], str]:
    try:
        table = pq.read_table(path.open("rb"))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name}: expected a Parquet file; it cannot be read.") from error
    if not table.num_rows:
        raise DataError(f"{path.name}: expected at least one row.")
    columns = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return table.column_names, rows, list(range(1, len(rows) + 1)), "row"


def _read_large(path: Path) -> pd.DataFrame | None:
    """The table of a Parquet file of more than `LARGE` rows; None if it is smaller, or no index with text alone.

    Its files are not looked at, as a million take a minute: each is checked when its sample is taken.
    """
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows <= LARGE or not {"path", "labels", "split"} <= set(file.schema_arrow.names):
            return None
        if not all(pa.types.is_string(field.type) for field in file.schema_arrow):
            return None
        table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name}: expected a Parquet file; it cannot be read.") from error
    words = set(pc.unique(table["split"]).to_pylist()) - {*SPLITS.values(), ""}
    if words:
        raise DataError(f"{path.name}: split {sorted(map(str, words))[0]!r}: expected train, val, test or nothing.")
    return table.to_pandas()


def _read_facts(path: Path) -> tuple[DatasetSpec, list[str] | None, str]:
    for beside in (path.with_suffix(".dataset.json"), path.with_name("dataset.json")):
        if not beside.is_file():
            continue
        try:
            facts: dict[str, Any] = json.loads(beside.read_text("utf-8"))
            spec = DatasetSpec(**{field.name: facts[field.name] for field in fields(DatasetSpec)})
            classes = facts.get("classes")
        except (OSError, ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
            raise DataError(
                f"{beside.name}: expected a JSON object with name, title, licence, citation and redistributable."
            ) from error
        to_root = facts.get("root", ".")
        texts = [spec.name, spec.title, spec.licence, spec.citation, to_root, *(classes or [])]
        if not all(isinstance(text, str) for text in texts) or not isinstance(spec.redistributable, bool):
            raise DataError(f"{beside.name}: expected texts, and true or false for redistributable.")
        return spec, classes, to_root
    return unknown_spec(path.parent.name if path.stem == "manifest" else path.stem), None, "."


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def escape_formula(cell: str) -> str:
    """The cell with an apostrophe before it, where a spreadsheet would run it as a formula (OWASP, CSV Injection)."""
    return "'" + cell if _FORMULA.match(cell) else cell


def _unescape(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
