"""The store of evaluations and their estimates: made once for a checkpoint and a data set, loaded from then on.

With 10,000 images of six classes a bootstrap of a thousand resamples takes seconds, which no page view may pay. A file
of estimates is found by what they follow from (truth, probabilities, groups, properties), so it can never be out of
date.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from steel_core import __version__
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.properties import PROPERTIES, PROPERTY_TABLE
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluate import UNKNOWN_SPLIT, evaluate, unknown_split_sentences
from steel_core.evaluation.evaluation import TEXT_COLUMNS, Evaluation, map_labels, part_columns
from steel_core.files import cache_bytes, cache_folder, write_bytes
from steel_core.inference.keys import data_key, model_key
from steel_core.inference.predictor import Predictor
from steel_core.metrics import Estimate, EvaluationReport, Interval
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.metrics.paired import paired_estimates
from steel_core.progress import Progress, no_progress
from steel_core.types import AnyArray, Float64Array

_FORMAT = 5  # raised whenever what is stored, or how a picture is judged, becomes another; 5: copies are known as seen
_REPORT = TypeAdapter[EvaluationReport | MultiLabelReport](EvaluationReport | MultiLabelReport)
_PER_CLASS = TypeAdapter(dict[str, dict[str, Estimate]])
_INTERVALS = TypeAdapter(dict[str, Interval | dict[str, Interval | None] | None])


def load_or_evaluate(
    predictor: Predictor, index: DatasetIndex, folder: Path | None = None, progress: Progress = no_progress
) -> Evaluation:
    """The evaluation of all images, with their properties: loaded where it was made before, else made and stored.

    It is found by what decides the logits and by the files, so new thresholds need no new run: stored logits are read
    with the temperature, the thresholds and the split of the predictor's card. Only where strips were judged in tiles a
    new temperature needs one, because it can make another tile the worst. `folder` is in the user's cache if None.
    DataError where no image can be read.
    """
    folder = folder or evaluations_folder()
    if stored := find_evaluation(predictor, index, folder):
        return stored
    index = map_labels(index, predictor.classes)
    evaluation = evaluate(predictor, index, "all", progress)
    properties = PROPERTY_TABLE.load_or_measure(index, progress).iloc[evaluation.table["row"]].reset_index(drop=True)
    evaluation = replace(evaluation, table=pd.concat([evaluation.table, properties], axis=1))
    with suppress(UsageError):  # a cache that cannot be written only costs time
        save_evaluation(evaluation, folder)
    return evaluation


def find_evaluation(
    predictor: Predictor, index: DatasetIndex, folder: Path | None = None, key: str = ""
) -> Evaluation | None:
    """What `load_or_evaluate` would load, or None. `key` is the `data_key` of the index in the predictor's words."""
    index = map_labels(index, predictor.classes)
    card = predictor.card
    name = evaluation_file_name(model_key(card), key or data_key(index), "all")
    try:
        stored = load_evaluation((folder or evaluations_folder()) / name)
    except DataError:
        return None
    if stored.tiled.any() and stored.temperature != card.temperature:
        return None
    seen = np.array([card.part_of_file(sha256) for sha256 in stored.table["image_sha256"]], dtype=object)
    if card.split.contents:  # copies of images learnt from were told when the pictures were read
        seen = np.where(seen == "", stored.table["seen"].to_numpy(dtype=object), seen)
    evaluation = stored.under(card)
    return replace(
        evaluation,
        table=evaluation.table.assign(**part_columns(seen, index.table.iloc[stored.table["row"]])).astype(TEXT_COLUMNS),
        checkpoint=card.name,
        checkpoint_hash=predictor.hash,
        left_out=(*(one for one in stored.left_out if one != UNKNOWN_SPLIT), *unknown_split_sentences(card)),
    )


def save_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Store it as Parquet in `folder`, whole or not at all, and return the file; UsageError if that is impossible."""
    facts = {f.name: getattr(evaluation, f.name) for f in fields(evaluation) if f.name != "table"}
    table = pa.Table.from_pandas(evaluation.table, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), b"steel": json.dumps(facts | {"format": _FORMAT}).encode()}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    path = folder / evaluation_file_name(evaluation.model, evaluation.data_key, evaluation.part)
    write_bytes(path, sink.getvalue())
    return path


def load_evaluation(path: Path) -> Evaluation:
    """What `save_evaluation` stored; DataError where it is missing, damaged or of another version."""
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[b"steel"])
        if facts.pop("format") != _FORMAT:
            raise DataError(f"{path.name}: this evaluation was stored by another version; evaluate again")
        lists = {name: tuple(facts[name]) for name in ("classes", "left_out")}
        return Evaluation(table=table.to_pandas(), **facts | lists)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path.name}: expected a stored evaluation; it is missing or damaged") from error


def evaluation_file_name(model: str, data: str, part: str) -> str:
    return f"{model[:24]}-{data[:24]}-{part}.parquet"


def evaluations_folder() -> Path:
    """Where evaluations and their estimates are kept unless told otherwise: in the user's cache."""
    return cache_folder() / "evaluations"


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a bootstrap, or many looks, say of the labelled images of an evaluation."""

    report: EvaluationReport | MultiLabelReport
    per_class: dict[str, dict[str, Estimate]]
    segments: pd.DataFrame


def compute_estimates(evaluation: Evaluation) -> Estimates:
    """Count them now; DataError where no image has a label that the checkpoint knows."""
    return Estimates(evaluation.report, evaluation.per_class(), evaluation.segments())


def cached_estimates(evaluation: Evaluation, folder: Path | None = None) -> Estimates:
    """`compute_estimates`, from `folder` (or the user's cache), where they are kept once they were counted."""
    path = (folder or evaluations_folder()) / f"{_estimates_key(evaluation)}.figures.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: counted anew
        return _decode_estimates(json.loads(path.read_bytes()))
    estimates = compute_estimates(evaluation)
    segments = estimates.segments.to_dict("list")
    content = {"report": asdict(estimates.report), "per_class": estimates.per_class, "segments": segments}
    cache_bytes(path, json.dumps(content).encode())
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
    cache_bytes(path, json.dumps(estimates.to_dict("list")).encode())
    return estimates


def _estimates_key(evaluation: Evaluation) -> str:
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


def _decode_estimates(content: dict[str, Any]) -> Estimates:
    report = content["report"]
    if "intervals" in report:
        report["intervals"] = _INTERVALS.validate_python(report["intervals"])
    per_class = _PER_CLASS.validate_python(content["per_class"])
    return Estimates(_REPORT.validate_python(report), per_class, pd.DataFrame(content["segments"]))
