"""Zip archives from strangers: unpacked beside their place and renamed when whole, or refused with one sentence.

Refused for what no honest program writes (after OWASP ASVS 5.2; D. Fifield, A better zip bomb, WOOT 2019). Entries that
no reader of data sets uses, other archives among them, are left out and reported.
"""

import dataclasses
import hashlib
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from steel_core.data.images.read import MAX_BYTES, SUFFIXES
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.data.readers.base import READERS, Reader
from steel_core.errors import DataError
from steel_core.files import cache_folder
from steel_core.progress import Progress, no_progress

MAX_ENTRIES = 200_000
MAX_TOTAL = 8_000_000_000
"""Bytes that an archive may unpack to."""
MAX_RATIO = 200
"""Times its own size that an archive may unpack to, beyond the first 100 MB; pictures reach 10, tables 50."""

_FREE = 100_000_000
_KEPT = SUFFIXES | {".csv", ".json", ".parquet", ".pq", ".txt", ".xml", ".yaml", ".yml"}
_CLIMBS = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")
_UNKEEPABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|[^/]{200}")
_UTF8, _ENCRYPTED = 0x800, 0x1


@READERS.register("archive")
class ArchiveReader(Reader):
    """Unpacked once into the user's cache; a single folder at the top stands for what is in it."""

    priority = 60
    layout = "a zip archive of one of these"

    def matches(self, root: Path) -> bool:
        if not root.is_file():
            return False
        try:
            with root.open("rb") as file:
                return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        except OSError:
            return False

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        folder, problems = unpack_archive(root, progress)
        inside = list(folder.iterdir())
        try:
            index = open_dataset(folder, progress)
        except DataError:
            if len(inside) != 1 or not inside[0].is_dir():
                raise
            index = open_dataset(inside[0], progress)
        return dataclasses.replace(index, problems=(*problems, *index.problems))


def unpack_archive(path: Path, progress: Progress = no_progress) -> tuple[Path, list[str]]:
    """Unpacks a zip archive into the user's cache, once for each content.

    Returns the folder, named like the archive, and one sentence for each kind of entry that was left out. Of an archive
    that is refused nothing is left on the disk.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        with zipfile.ZipFile(path) as archive:
            entries_by_name, problems = _plan_entries(archive, path)
            home = cache_folder() / "archives" / digest
            folder = home / (_UNKEEPABLE.sub("", path.stem).strip(". ") or "archive")
            if not folder.is_dir():
                _write_entries(archive, entries_by_name, home, folder, progress)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise DataError(f"{path.name}: a damaged zip archive, or one of an unknown kind; pack it again.") from error
    except OSError as error:
        raise DataError(f"{path.name}: cannot be unpacked ({error.strerror or 'damaged'}).") from error
    return folder, problems


def _plan_entries(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise DataError(f"{path.name}: expected at most {MAX_ENTRIES:,} files, found {len(entries):,}.")
    entries_by_name: dict[str, zipfile.ZipInfo] = {}
    names: set[str] = set()
    starts: set[int] = set()
    other: list[str] = []
    foreign: list[str] = []
    total = 0
    for entry in entries:
        display_name, name = _checked_name(entry, path)
        if name.endswith("/"):
            continue
        if name.casefold() in names or entry.header_offset in starts:
            raise DataError(f"{path.name}: {display_name!r} is in it twice; the archive is refused.")
        names.add(name.casefold())
        starts.add(entry.header_offset)
        parts = PurePosixPath(name).parts
        suffix = PurePosixPath(name).suffix.lower()
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if suffix not in _KEPT or _UNKEEPABLE.search(name):
            other.append(display_name)
            continue
        if suffix in SUFFIXES and entry.file_size > MAX_BYTES:
            raise DataError(f"{path.name}: {display_name!r} unpacks to {entry.file_size / 1e6:,.0f} MB; expected less.")
        if not name.isascii() and not entry.flag_bits & _UTF8:
            foreign.append(display_name)
        total += entry.file_size
        entries_by_name["/".join(parts)] = entry
    limit = min(MAX_TOTAL, max(_FREE, MAX_RATIO * path.stat().st_size))
    if total > limit:
        raise DataError(
            f"{path.name}: it would unpack to {total / 1e6:,.0f} MB; expected at most {limit / 1e6:,.0f} MB "
            f"for an archive of {path.stat().st_size / 1e6:,.1f} MB."
        )
    if not entries_by_name:
        raise DataError(f"{path.name}: expected images; it holds none.")
    problems = []
    if other:
        problems.append(f"{path.name}: {len(other):,} files of other kinds (the first: {other[0]}); left out.")
    if foreign:
        problems.append(f"{path.name}: {len(foreign):,} names are not marked as UTF-8 (the first: {foreign[0]}).")
    return entries_by_name, problems


def _checked_name(entry: zipfile.ZipInfo, path: Path) -> tuple[str, str]:
    name = _decode_name(entry)
    display_name = PurePosixPath(name.replace("\\", "/")).name[:60]
    if _CLIMBS.search(name) or _CLIMBS.search(entry.orig_filename):
        raise DataError(f"{path.name}: {display_name!r} would be written outside its folder; the archive is refused.")
    mode = entry.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{path.name}: {display_name!r} is a link or a device; the archive is refused.")
    if entry.flag_bits & _ENCRYPTED:
        raise DataError(f"{path.name}: {display_name!r} has a password; pack the files without one.")
    return display_name, name.replace("\\", "/")


def _decode_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry; one that is not marked as UTF-8 but is valid as such is read so."""
    if entry.flag_bits & _UTF8:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _write_entries(
    archive: zipfile.ZipFile, entries_by_name: dict[str, zipfile.ZipInfo], home: Path, folder: Path, progress: Progress
) -> None:
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home))
    try:
        for done, (name, entry) in enumerate(entries_by_name.items(), start=1):
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)  # zipfile gives no more than the size declared, and checks it
            progress("unpacking", done, len(entries_by_name))
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was first, which is as good
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
