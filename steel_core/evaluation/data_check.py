"""Check a data set before it is believed: near-duplicates, leaks, suspicious labels, odd pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.findings import (
    KINDS,
    Finding,
    leaks,
    near_duplicates,
    odd_images,
    suspicious_labels,
    textures,
)
from steel_core.data.quality.near_duplicates import near_duplicate_groups, near_duplicate_pairs
from steel_core.data.quality.properties import properties
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.evaluation.evaluate import data_key, match_classes, stored_name
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import judge
from steel_core.progress import Progress, no_progress
from steel_core.types import SteelImage

CLEAN, FOUND = 0, 3
"""Exit status of `data check`: nothing was found, or something was."""

_CHUNK = 64
_FORMAT = 3


def check(
    index: DatasetIndex,
    predictor: Predictor | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    progress: Progress = no_progress,
) -> list[Finding]:
    """Everything about a data set that a person should look at before training on it.

    Args:
        index: the data set. Leaks need splits; with a checkpoint, its own split serves where the data set has none.
        predictor: a checkpoint; then the leak's effect on the accuracy of the test split is measured.
        kinds: which of `KINDS` to look for.
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        UsageError: an unknown kind.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    found: list[Finding] = []
    if {"unreadable", "odd"} & set(kinds):
        measured = properties(index, progress)
        found += [entry for entry in odd_images(index, measured) if entry.kind in kinds]
    if {"near-duplicates", "leak", "label"} & set(kinds):
        pairs = near_duplicate_pairs(index, progress)
        groups = near_duplicate_groups(index, pairs=pairs)
        if "near-duplicates" in kinds:
            found += near_duplicates(index, pairs)
        if "leak" in kinds:
            split = _with_splits(index, predictor)
            leaking = leaks(split, groups)
            if leaking and predictor:
                effect = leak_effect(split, leaking, predictor, progress)
                leaking = [dataclasses.replace(leak, evidence=leak.evidence | effect) for leak in leaking]
            found += leaking
        if "label" in kinds:
            features = textures(index, progress)
            found += suspicious_labels(index, features, groups)
    return found


def stored_check(
    index: DatasetIndex, predictor: Predictor | None = None, progress: Progress = no_progress
) -> list[Finding]:
    """What `check` finds of every kind: loaded where it was found before, else found and kept in the user's cache.

    Args:
        index: the data set.
        predictor: a checkpoint, as for `check`.
        progress: as for `check`, where there is work to do.
    """
    found = find_check(index, predictor)
    if found is None:
        found = check(index, predictor, progress=progress)
        kept = json.dumps({"format": _FORMAT, "findings": [one.to_json() for one in found]}).encode()
        with suppress(UsageError):  # a cache that cannot be written only costs time
            write_bytes(_kept(index, predictor), kept)
    return found


def find_check(index: DatasetIndex, predictor: Predictor | None = None) -> list[Finding] | None:
    """What `stored_check` would load, with the same arguments; None where it would have to work."""
    if not any(kept_in().glob(f"{_of(predictor)[:24]}-*")):  # so that a million files are not looked at
        return None
    try:
        kept = json.loads(_kept(index, predictor).read_bytes())
        if kept["format"] != _FORMAT:
            return None
        return [Finding(**one | {name: tuple(one[name]) for name in ("rows", "files")}) for one in kept["findings"]]
    except (OSError, ValueError, KeyError, TypeError):  # not made yet, or damaged
        return None


def kept_in() -> Path:
    """The folder in which findings are kept; it changes when some are added."""
    return cache_folder() / "checks"


def _kept(index: DatasetIndex, predictor: Predictor | None) -> Path:
    return kept_in() / Path(stored_name(_of(predictor), data_key(index), "all")).with_suffix(".json")


def _of(predictor: Predictor | None) -> str:
    return predictor.hash if predictor else "none"


def leak_effect(
    index: DatasetIndex, leaking: Sequence[Finding], predictor: Predictor, progress: Progress = no_progress
) -> dict[str, Any]:
    """Accuracy on the test split with and without the images that have a near-duplicate in another split.

    Returns:
        `accuracy_before`, `accuracy_after`, each with its 95 % Wilson interval, and `n_before`, `n_after`; empty where
        the checkpoint does not know the data set's classes, or no test image is left.
    """
    try:
        known = match_classes(index, predictor.classes)
    except DataError:
        return {}
    rows = np.flatnonzero((index.table["split"] == "test") & (known.labels_encoded() >= 0))
    right: dict[int, bool] = {}
    for start in range(0, len(rows), _CHUNK):
        images: dict[int, SteelImage] = {}
        for row in rows[start : start + _CHUNK].tolist():
            try:
                images[row] = index.image(row)
            except (ImageError, DataError):
                continue  # told as unreadable
        for row, judged in zip(images, judge(predictor, list(images.values())), strict=True):
            right[row] = judged.verdict.pred in known[row].labels
        progress("measuring the leak", min(start + _CHUNK, len(rows)), len(rows))
    leaked = {row for leak in leaking for row in leak.rows}
    out: dict[str, Any] = {}
    for name, counted in (("before", list(right)), ("after", [row for row in right if row not in leaked])):
        if not counted:
            return {}
        share = sum(right[row] for row in counted) / len(counted)
        interval = [round(bound, 4) for bound in metrics.wilson(share, len(counted))]
        out |= {f"accuracy_{name}": round(share, 4), f"interval_{name}": interval, f"n_{name}": len(counted)}
    return out


def _with_splits(index: DatasetIndex, predictor: Predictor | None) -> DatasetIndex:
    """The data set's own splits, or those of the checkpoint for the images that it knows."""
    if predictor is None or (index.table["split"] != "").any():
        return index
    try:
        parts = [predictor.card.part_of(digest) for digest in index.file_hashes()]
    except DataError:  # a file that cannot be read is told as unreadable
        return index
    return dataclasses.replace(index, table=index.table.assign(split=parts))
