"""Text tables of any origin, in UTF-8, UTF-16 or Latin-1; a bad row becomes a sentence and stops no other."""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from steel_core.errors import DataError

# Characters; a mask of single pixels in the largest picture would be longer than any real one.
_LONGEST_CELL = 50_000_000
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class TextTable:
    """What a text file with a header and rows holds.

    Attributes:
        rows: those that have as many cells as the header; `bad` says which were left out.
        lines: the line on which each of them ends.
    """

    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    bad: list[str]
    notes: list[str]


def read_text_table(path: Path) -> TextTable:
    """The table of a file; a DataError if it cannot be read as text with a header."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror}).") from error
    text, notes = _decode(data, path.name)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    if delimiter != ",":
        named = {";": "semicolons", "\t": "tabs"}[delimiter]
        notes.append(f"{path.name}, line 1: separated by {named} instead of commas; read so.")
    bad: list[str] = []
    rows, lines = [], []
    before = csv.field_size_limit(_LONGEST_CELL)  # the limit holds for the process; it is put back
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header = tuple(cell.strip() for cell in next(reader, []))
        for cells in reader:
            if len(cells) == len(header):
                rows.append(cells)
                lines.append(reader.line_num)
            elif any(cells):
                bad.append(
                    f"{path.name}, line {reader.line_num}: expected {len(header)} cells as in the header, "
                    f"found {len(cells)}."
                )
    except csv.Error as error:
        raise DataError(f"{path.name}: not well-formed CSV ({error}).") from error
    finally:
        csv.field_size_limit(before)
    return TextTable(header, rows, lines, bad, notes)


def _decode(data: bytes, name: str) -> tuple[str, list[str]]:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError as error:
                line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
                raise DataError(f"{name}, line {line}: not the text that its byte-order mark promises.") from error
            what = "UTF-8 with a byte-order mark" if encoding == "utf-8-sig" else "UTF-16"
            return text, [f"{name}, line 1: expected plain UTF-8, found {what}; read so."]
    if b"\0" in data[:4096]:
        raise DataError(f"{name}, line 1: expected text, found zero bytes; save the table as CSV UTF-8.")
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return data.decode("latin-1"), [f"{name}, line {line}: expected UTF-8, found other bytes; read as Latin-1."]
