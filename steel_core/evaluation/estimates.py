"""Figures of one evaluation or of two that cost a bootstrap: counted once, kept beside the evaluations, then loaded.

With 10,000 images of six classes the thousand resamples take seconds, which no page view may pay. A file of figures is
found by what they follow from (truth, probabilities, groups, properties), so it can never be out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core import __version__
from steel_core.data.quality.properties import PROPERTIES
from steel_core.errors import UsageError
from steel_core.evaluation.evaluate import Evaluation
from steel_core.files import cache_folder, write_bytes
from steel_core.metrics import EvaluationReport, Figure
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.metrics.paired import paired_figures


@dataclass(frozen=True, eq=False)
class Figures:
    """What a bootstrap, or many looks, say of the labelled images of an evaluation.

    Attributes:
        report: of `Evaluation.report`.
        per_class: of `Evaluation.per_class`.
        segments: of `Evaluation.segments`.
    """

    report: EvaluationReport | MultiLabelReport
    per_class: dict[str, dict[str, Figure]]
    segments: pd.DataFrame


def count_figures(evaluation: Evaluation) -> Figures:
    """Count them now.

    Raises:
        DataError: no image has a label that the checkpoint knows.
    """
    return Figures(evaluation.report, evaluation.per_class(), evaluation.segments())


def kept_figures(evaluation: Evaluation, folder: Path | None = None) -> Figures:
    """The same, loaded where they were counted before, else counted and kept.

    Args:
        evaluation: of any part, under any thresholds and temperature.
        folder: where figures are kept; in the user's cache if None.

    Raises:
        DataError: no image has a label that the checkpoint knows.
    """
    path = _place(folder) / f"{_key(evaluation)}.figures.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: counted anew
        return _decoded(json.loads(path.read_bytes()), evaluation.multi_label)
    found = count_figures(evaluation)
    with suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(path, json.dumps(_encoded(found)).encode())
    return found


def kept_paired(
    probs_a: npt.NDArray[np.float64],
    probs_b: npt.NDArray[np.float64],
    truth: npt.NDArray[Any],
    groups: Sequence[str],
    seed: int = 0,
    folder: Path | None = None,
) -> pd.DataFrame:
    """`metrics.paired.paired_figures`, loaded where it was counted before, else counted and kept in `folder`."""
    said = hashlib.sha256(json.dumps([__version__, seed, truth.shape, list(groups)]).encode())
    for numbers in (probs_a, probs_b, truth):
        said.update(numbers.tobytes())
    path = _place(folder) / f"{said.hexdigest()[:48]}.paired.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: counted anew
        return pd.DataFrame(json.loads(path.read_bytes()))[["figure", "a", "b", "difference", "low", "high"]]
    found = paired_figures(probs_a, probs_b, truth, groups, seed)
    with suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(path, json.dumps(found.to_dict("list")).encode())
    return found


def _place(folder: Path | None) -> Path:
    return folder or cache_folder() / "evaluations"


def _key(evaluation: Evaluation) -> str:
    """Hash of all that the figures follow from, and of the version of the program that counted them."""
    counted = evaluation.labelled
    measured = [name for name in PROPERTIES if name in counted.table]
    names = ["label", *(f"p.{name}" for name in counted.classes), *measured]
    lines = counted.thresholds if counted.multi_label else {}  # elsewhere no threshold has a part in these figures
    said = counted.table["outcome"] if counted.multi_label else ""
    table = counted.table[names].assign(group=counted.table["group"], name=counted.groups, said=said)
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
    about = json.dumps([__version__, counted.classes, counted.multi_label, sorted(lines.items()), list(table)])
    return hashlib.sha256(about.encode() + rows.tobytes()).hexdigest()[:48]


def _encoded(found: Figures) -> dict[str, Any]:
    return {
        "report": asdict(found.report),
        "per_class": found.per_class,
        "segments": found.segments.to_dict("list"),
    }


def _decoded(kept: dict[str, Any], multi_label: bool) -> Figures:
    report, segments = kept["report"], pd.DataFrame(kept["segments"])
    per_class = {name: _figures(row) for name, row in kept["per_class"].items()}
    report["classes"] = tuple(report["classes"])
    if multi_label:
        told = {"figures": _figures(report["figures"]), "per_class": per_class}
        return Figures(MultiLabelReport(**report | told), per_class, segments)
    intervals = report["intervals"]
    recall = {name: _pair(ends) for name, ends in intervals["recall"].items()}
    report["intervals"] = {name: _pair(ends) for name, ends in intervals.items() if name != "recall"}
    report["intervals"]["recall"] = recall
    return Figures(EvaluationReport(**report), per_class, segments)


def _pair(ends: list[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0], ends[1])


def _figures(row: dict[str, list[Any]]) -> dict[str, Figure]:
    return {name: Figure(*figure) for name, figure in row.items()}
