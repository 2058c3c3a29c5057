"""Check a data set before it is believed: near-duplicates, leaks, suspicious labels, odd pictures."""

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
    DataFinding,
    describe_textures,
    find_leaks,
    find_near_duplicates,
    find_odd_images,
    find_suspicious_labels,
)
from steel_core.data.quality.near_duplicates import find_near_duplicate_pairs, group_near_duplicates
from steel_core.data.quality.properties import PROPERTY_TABLE
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.evaluation.evaluation import match_classes
from steel_core.evaluation.label_clues import find_label_clues, report_label_clues
from steel_core.evaluation.store import evaluation_file_name
from steel_core.files import cache_bytes, cache_folder
from steel_core.inference.keys import data_key
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import predict_images
from steel_core.progress import Progress, no_progress
from steel_core.types import SteelImage

_CHUNK = 64
_FORMAT = 5


def check_dataset(
    index: DatasetIndex,
    predictor: Predictor | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    progress: Progress = no_progress,
) -> list[DataFinding]:
    """Everything about a data set that a person should look at before training on it.

    Leaks need splits, its own or a checkpoint's; of a checkpoint the leak's effect on its test accuracy is measured,
    too. UsageError for an unknown kind.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(f"kinds: expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    findings: list[DataFinding] = []
    if "clue" in kinds:
        findings += report_label_clues(index, find_label_clues(index, progress=progress))
    if {"unreadable", "odd"} & set(kinds):
        properties = PROPERTY_TABLE.load_or_measure(index, progress)
        findings += [entry for entry in find_odd_images(index, properties) if entry.kind in kinds]
    if {"near-duplicates", "leak", "label"} & set(kinds):
        pairs = find_near_duplicate_pairs(index, progress)
        groups = group_near_duplicates(index, pairs=pairs)
        if "near-duplicates" in kinds:
            findings += find_near_duplicates(index, pairs)
        if "leak" in kinds:
            split = _with_splits(index, predictor)
            leaking = find_leaks(split, groups)
            if leaking and predictor:
                effect = measure_leak_effect(split, leaking, predictor, progress)
                leaking = [dataclasses.replace(leak, evidence=leak.evidence | effect) for leak in leaking]
            findings += leaking
        if "label" in kinds:
            features = describe_textures(index, progress)
            findings += find_suspicious_labels(index, features, groups)
    return findings


def load_or_check(
    index: DatasetIndex, predictor: Predictor | None = None, progress: Progress = no_progress
) -> list[DataFinding]:
    """What `check_dataset` finds of every kind: from the user's cache where it was done before."""
    findings = find_check(index, predictor)
    if findings is None:
        findings = check_dataset(index, predictor, progress=progress)
        content = json.dumps({"format": _FORMAT, "findings": [one.to_json() for one in findings]}).encode()
        cache_bytes(_check_file(index, predictor), content)
    return findings


def find_check(index: DatasetIndex, predictor: Predictor | None = None) -> list[DataFinding] | None:
    """What `load_or_check` would load, with the same arguments; None where it would have to work."""
    if not any(checks_folder().glob(f"{_model_hash(predictor)[:24]}-*")):  # so that a million files are not looked at
        return None
    try:
        content = json.loads(_check_file(index, predictor).read_bytes())
        if content["format"] != _FORMAT:
            return None
        return [
            DataFinding(**one | {name: tuple(one[name]) for name in ("rows", "files")}) for one in content["findings"]
        ]
    except (OSError, ValueError, KeyError, TypeError):  # not made yet, or damaged
        return None


def checks_folder() -> Path:
    """The folder in which findings are kept; it changes when some are added."""
    return cache_folder() / "checks"


def _check_file(index: DatasetIndex, predictor: Predictor | None) -> Path:
    name = evaluation_file_name(_model_hash(predictor), data_key(index), "all")
    return checks_folder() / f"{name.removesuffix('.parquet')}.json"


def _model_hash(predictor: Predictor | None) -> str:
    return predictor.hash if predictor else "none"


def measure_leak_effect(
    index: DatasetIndex, leaking: Sequence[DataFinding], predictor: Predictor, progress: Progress = no_progress
) -> dict[str, Any]:
    """Accuracy on the test split with and without the images that have a near-duplicate in another split.

    `accuracy_before`, `accuracy_after`, each with its 95 % Wilson interval, and `n_before`, `n_after`; empty where the
    checkpoint does not know the data set's classes, or no test image is left.
    """
    try:
        matched = match_classes(index, predictor.classes)
    except DataError:
        return {}
    rows = np.flatnonzero((index.table["split"] == "test") & (matched.labels_encoded() >= 0))
    right: dict[int, bool] = {}
    for start in range(0, len(rows), _CHUNK):
        images: dict[int, SteelImage] = {}
        for row in rows[start : start + _CHUNK].tolist():
            with suppress(ImageError, DataError):  # told as unreadable
                images[row] = index.image(row)
        for row, result in zip(images, predict_images(predictor, list(images.values())), strict=True):
            right[row] = result.verdict.pred in matched[row].labels
        progress("measuring the leak", min(start + _CHUNK, len(rows)), len(rows))
    leaked = {row for leak in leaking for row in leak.rows}
    out: dict[str, Any] = {}
    for name, counted in (("before", list(right)), ("after", [row for row in right if row not in leaked])):
        if not counted:
            return {}
        share = sum(right[row] for row in counted) / len(counted)
        interval = [round(bound, 4) for bound in metrics.wilson_interval(share, len(counted))]
        out |= {f"accuracy_{name}": round(share, 4), f"interval_{name}": interval, f"n_{name}": len(counted)}
    return out


def _with_splits(index: DatasetIndex, predictor: Predictor | None) -> DatasetIndex:
    """The data set's own splits, or those of the checkpoint for the images that it knows."""
    if predictor is None or (index.table["split"] != "").any():
        return index
    try:
        parts = [predictor.card.part_of(image) for image in map(index.image, range(len(index)))]
    except (ImageError, DataError):  # a file that cannot be read is told as unreadable
        return index
    return dataclasses.replace(index, table=index.table.assign(split=parts))
