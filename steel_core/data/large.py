"""The index of a folder of a million files: listed in parts, resumed where interrupted, merged into one manifest."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steel_core.data.images.read import SUFFIXES
from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.readers.class_folders import split_and_label
from steel_core.data.readers.manifest import read_manifest
from steel_core.errors import DataError, UsageError
from steel_core.files import write_bytes
from steel_core.progress import Progress, no_progress

ROWS = 50_000
"""Rows that are held in memory at a time."""

_SCHEMA = pa.schema([(name, pa.string()) for name in ("path", "labels", "split", "group", "source")])


def index_folder(root: Path, manifest: Path, progress: Progress = no_progress) -> DatasetIndex:
    """Lists every picture below a folder into a Parquet manifest and opens it.

    Labels and splits come from folders, as `class-folders` reads them (`train/scratches/1.png`); a picture elsewhere is
    unlabelled. Hidden entries and links are passed over. Folders that an interrupted call listed are not listed again.
    `progress` is called with the number of folders listed, and of those known so far.

    Raises:
        DataError: there is no picture, or the folder cannot be listed.
        UsageError: the name does not end in .parquet, or the manifest cannot be written.
    """
    if manifest.suffix != ".parquet":
        raise UsageError(f"{manifest.name}: expected a name ending in .parquet")
    root = Path(os.path.realpath(root))
    parts = manifest.with_name(f".{manifest.name}-parts")
    labels: set[str] = set()
    rows = 0
    scratch = parts / "whole.parquet"
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(scratch, _SCHEMA) as writer:
            for done, (part, known) in enumerate(_list_folders(root, parts), start=1):
                file = pq.ParquetFile(part)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    labels |= set(table["labels"].unique().to_pylist())
                    rows += len(table)
                    writer.write_table(table)
                progress("listing", done, known)
        if not rows:
            raise DataError(f"{root.name}: expected at least one picture.")
        to_root = os.path.relpath(root, os.path.realpath(manifest.parent)).replace(os.sep, "/")
        facts = asdict(unknown_spec(root.name)) | {"classes": sorted(labels - {""}), "root": to_root}
        write_bytes(manifest.with_suffix(".dataset.json"), json.dumps(facts, indent=2, ensure_ascii=False).encode())
        scratch.replace(manifest)
    except OSError as error:
        raise UsageError(f"cannot write {manifest.name}: {error.strerror or 'the disk refused it'}") from error
    shutil.rmtree(parts, ignore_errors=True)
    return read_manifest(manifest, named=True)


def _list_folders(root: Path, parts: Path) -> Iterator[tuple[Path, int]]:
    waiting, known = [""], 1
    while waiting:
        folder = waiting.pop()
        stamp = (root / folder).stat().st_mtime_ns
        name = hashlib.sha256(f"{folder}\0{stamp}".encode()).hexdigest()[:32]
        part, beside = parts / f"{name}.parquet", parts / f"{name}.json"
        inside: list[str] | None = None
        if part.is_file():
            with suppress(OSError, ValueError):
                inside = json.loads(beside.read_bytes())
        if inside is None:
            inside = _list_folder(root, folder, part)
            write_bytes(beside, json.dumps(inside).encode())
        waiting += sorted(inside, reverse=True)
        known += len(inside)
        yield part, known


def _list_folder(root: Path, folder: str, part: Path) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    inside: list[str] = []
    paths: list[str] = []
    half = part.with_suffix(".half")
    with pq.ParquetWriter(half, _SCHEMA) as writer, os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.isprintable() or entry.is_symlink():
                continue
            if entry.is_dir():
                inside.append(prefix + entry.name)
            elif entry.name[entry.name.rfind(".") :].lower() in SUFFIXES:
                paths.append(prefix + entry.name)
                if len(paths) == ROWS:
                    writer.write_table(_build_table(paths, root.name))
                    paths = []
        if paths:
            writer.write_table(_build_table(paths, root.name))
    half.replace(part)
    return inside


def _build_table(paths: list[str], source: str) -> pa.Table:
    split, label = split_and_label(paths[0]) or ("", "")  # the same for all pictures of one folder
    columns = [sorted(paths), *([text] * len(paths) for text in (label, split, "", source))]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA)
