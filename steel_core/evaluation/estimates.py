"""Estimates of evaluations that cost a bootstrap: counted once, kept beside the evaluations, then loaded.

With 10,000 images of six classes the thousand resamples take seconds, which no page view may pay. A file of them is
found by what they follow from (truth, probabilities, groups, properties), so it can never be out of date.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steel_core import __version__
from steel_core.data.quality.properties import PROPERTIES
from steel_core.errors import UsageError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.store import evaluations_folder
from steel_core.files import write_bytes
from steel_core.metrics import Estimate, EvaluationReport
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.metrics.paired import paired_estimates
from steel_core.types import AnyArray, Float64Array


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a bootstrap, or many looks, say of the labelled images of an evaluation."""

    report: EvaluationReport | MultiLabelReport
    per_class: dict[str, dict[str, Estimate]]
    segments: pd.DataFrame


def compute_estimates(evaluation: Evaluation) -> Estimates:
    """Count them now.

    Raises:
        DataError: no image has a label that the checkpoint knows.
    """
    return Estimates(evaluation.report, evaluation.per_class(), evaluation.segments())


def cached_estimates(evaluation: Evaluation, folder: Path | None = None) -> Estimates:
    """The same, loaded where they were counted before, else counted and kept in `folder`, or the user's cache.

    Raises:
        DataError: no image has a label that the checkpoint knows.
    """
    path = (folder or evaluations_folder()) / f"{_key(evaluation)}.figures.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: counted anew
        return _decode(json.loads(path.read_bytes()), evaluation.multi_label)
    estimates = compute_estimates(evaluation)
    with suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(path, json.dumps(_encode(estimates)).encode())
    return estimates


def cached_paired_estimates(
    probs_a: Float64Array,
    probs_b: Float64Array,
    truth: AnyArray,
    groups: Sequence[str],
    seed: int = 0,
    folder: Path | None = None,
) -> pd.DataFrame:
    """`metrics.paired.paired_estimates`, loaded where it was counted before, else counted and kept in `folder`."""
    digest = hashlib.sha256(json.dumps([__version__, seed, truth.shape, list(groups)]).encode())
    for numbers in (probs_a, probs_b, truth):
        digest.update(numbers.tobytes())
    path = (folder or evaluations_folder()) / f"{digest.hexdigest()[:48]}.paired.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: counted anew
        return pd.DataFrame(json.loads(path.read_bytes()))[["figure", "a", "b", "difference", "low", "high"]]
    estimates = paired_estimates(probs_a, probs_b, truth, groups, seed)
    with suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(path, json.dumps(estimates.to_dict("list")).encode())
    return estimates


def _key(evaluation: Evaluation) -> str:
    """Hash of all that the figures follow from, and of the version of the program that counted them."""
    counted = evaluation.labelled
    measured = [name for name in PROPERTIES if name in counted.table]
    names = ["label", *(f"p.{name}" for name in counted.classes), *measured]
    lines = counted.thresholds if counted.multi_label else {}  # elsewhere no threshold has a part in these figures
    outcomes = counted.table["outcome"] if counted.multi_label else ""
    table = counted.table[names].assign(group=counted.table["group"], name=counted.groups, outcome=outcomes)
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
    about = json.dumps([__version__, counted.classes, counted.multi_label, sorted(lines.items()), list(table)])
    return hashlib.sha256(about.encode() + rows.tobytes()).hexdigest()[:48]


def _encode(estimates: Estimates) -> dict[str, Any]:
    return {
        "report": asdict(estimates.report),
        "per_class": estimates.per_class,
        "segments": estimates.segments.to_dict("list"),
    }


def _decode(content: dict[str, Any], multi_label: bool) -> Estimates:
    report, segments = content["report"], pd.DataFrame(content["segments"])
    per_class = {name: _to_estimates(row) for name, row in content["per_class"].items()}
    report["classes"] = tuple(report["classes"])
    if multi_label:
        counted = {"estimates": _to_estimates(report["estimates"]), "per_class": per_class}
        return Estimates(MultiLabelReport(**report | counted), per_class, segments)
    intervals = report["intervals"]
    recall = {name: _pair(ends) for name, ends in intervals["recall"].items()}
    report["intervals"] = {name: _pair(ends) for name, ends in intervals.items() if name != "recall"}
    report["intervals"]["recall"] = recall
    return Estimates(EvaluationReport(**report), per_class, segments)


def _pair(ends: list[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0], ends[1])


def _to_estimates(row: dict[str, list[Any]]) -> dict[str, Estimate]:
    return {name: Estimate(*figure) for name, figure in row.items()}
