"""The store of evaluations: each is made once for a checkpoint and a data set, and loaded from then on."""

import dataclasses
import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steel_core.data.index import DatasetIndex
from steel_core.data.quality.properties import measure_properties
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluate import UNKNOWN_SPLIT, evaluate, unknown_split_sentences
from steel_core.evaluation.evaluation import TEXT_COLUMNS, Evaluation, part_columns
from steel_core.evaluation.labels import map_labels
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.keys import data_key, model_key
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress

_FORMAT = 4  # raised whenever what is stored, or how a picture is judged, becomes another; 4: strips without black ends


def load_or_evaluate(
    predictor: Predictor, index: DatasetIndex, folder: Path | None = None, progress: Progress = no_progress
) -> Evaluation:
    """The evaluation of all images, with their properties: loaded where it was made before, else made and stored.

    It is found by what decides the logits and by the files, so new thresholds need no new run: stored logits are read
    with the temperature, the thresholds and the split of the predictor's card. Only where strips were judged in tiles a
    new temperature needs one, because it can make another tile the worst. `folder` is in the user's cache if None.

    Raises:
        DataError: no image can be read.
    """
    folder = folder or evaluations_folder()
    if stored := find_evaluation(predictor, index, folder):
        return stored
    index = map_labels(index, predictor.classes)
    evaluation = evaluate(predictor, index, "all", progress)
    properties = measure_properties(index, progress).iloc[evaluation.table["row"]].reset_index(drop=True)
    evaluation = dataclasses.replace(evaluation, table=pd.concat([evaluation.table, properties], axis=1))
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
    seen = np.array([card.part_of(sha256) for sha256 in stored.table["image_sha256"]], dtype=object)
    evaluation = stored.under(card)
    return dataclasses.replace(
        evaluation,
        table=evaluation.table.assign(**part_columns(seen, index.table.iloc[stored.table["row"]])).astype(TEXT_COLUMNS),
        checkpoint=card.name,
        checkpoint_hash=predictor.hash,
        left_out=(*(one for one in stored.left_out if one != UNKNOWN_SPLIT), *unknown_split_sentences(card)),
    )


def save_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Store it as Parquet in `folder`, whole or not at all, and return the file.

    Raises:
        UsageError: the folder cannot be written to.
    """
    fields = {f.name: getattr(evaluation, f.name) for f in dataclasses.fields(evaluation) if f.name != "table"}
    table = pa.Table.from_pandas(evaluation.table, preserve_index=False)
    facts = json.dumps(fields | {"format": _FORMAT}).encode()
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), b"steel": facts}), sink, compression="zstd"
    )
    path = folder / evaluation_file_name(evaluation.model, evaluation.data_key, evaluation.part)
    write_bytes(path, sink.getvalue())
    return path


def load_evaluation(path: Path) -> Evaluation:
    """What `save_evaluation` stored.

    Raises:
        DataError: there is no such file, or it is damaged or of another version.
    """
    try:
        table = pq.read_table(path)
        fields = json.loads((table.schema.metadata or {})[b"steel"])
        if fields.pop("format") != _FORMAT:
            raise DataError(f"{path.name}: this evaluation was stored by another version; evaluate again")
        lists = {name: tuple(fields[name]) for name in ("classes", "left_out")}
        return Evaluation(table=table.to_pandas(), **fields | lists)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path.name}: expected a stored evaluation; it is missing or damaged") from error


def evaluation_file_name(model: str, data: str, part: str) -> str:
    """Base name of the file of a stored evaluation."""
    return f"{model[:24]}-{data[:24]}-{part}.parquet"


def evaluations_folder() -> Path:
    """Where evaluations and their estimates are kept unless told otherwise: in the user's cache."""
    return cache_folder() / "evaluations"
