"""Evaluate a checkpoint on a data set: every image is predicted once, and any part of it counted.

All estimates come from the evaluation's table, so a page never runs the network again.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.device import batch_size
from steel_core.errors import DataError, ImageError
from steel_core.evaluation.evaluation import (
    TEXT_COLUMNS,
    Evaluation,
    check_part,
    join_named,
    learnt_sentences,
    map_labels,
    part_columns,
)
from steel_core.inference.keys import data_key, model_key
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import predict_images
from steel_core.models.card import Card
from steel_core.progress import Progress, no_progress
from steel_core.types import Prediction, SteelImage

UNKNOWN_SPLIT = "this checkpoint does not tell which images it learnt from: some of these may be among them"

_CHUNK = 128
_PIXELS = 100_000_000  # of the pictures of a chunk together, about


class _Predicted(NamedTuple):
    row: int
    seen: str  # the part of the checkpoint's own data that held the image, or ""
    prediction: Prediction
    tiles: int


def evaluate(
    predictor: Predictor, index: DatasetIndex, part: str = "held-out", progress: Progress = no_progress
) -> Evaluation:
    """Judge the images of a part. Threads decode them; memory is bounded.

    Part "held-out" counts the images that served neither to train nor to choose anything, known by the hash of their
    bytes; "train", "val" and "test" the parts of the checkpoint's own split, or the data set's where the checkpoint has
    not seen it. A binary checkpoint (clear, defect) sees the defect types as one class. Unreadable images are left out
    and named; images without a usable label are predicted and not counted.

    Raises:
        UsageError: `part` is unknown.
        DataError: no image is left.
    """
    check_part(part)
    index = map_labels(index, predictor.classes)
    predicted: list[_Predicted] = []
    refusals: list[str] = []
    learnt = done = 0
    for chunk in _read_in_chunks(index, max(_CHUNK, 2 * batch_size(predictor.device))):
        wanted: list[tuple[int, str, SteelImage]] = []
        for row, image in chunk:
            if isinstance(image, str):
                refusals.append(image)
                continue
            seen = predictor.card.part_of(image)
            if part == "held-out" and seen in ("train", "val"):
                learnt += 1
            elif part in ("held-out", "all") or part == (seen or index.table["split"].iat[row]):
                wanted.append((row, seen, image))
        results = predict_images(predictor, [image for *_, image in wanted])
        predicted += [
            _Predicted(row, seen, result.verdict, len(result.tiles))
            for (row, seen, _), result in zip(wanted, results, strict=True)
        ]
        done += len(chunk)
        progress("evaluating", done, len(index))
    left_out = (*refusals, *learnt_sentences(learnt), *unknown_split_sentences(predictor.card))
    evaluation = _tabulate(predictor, index, part, predicted, left_out, len(refusals))
    if not len(evaluation):
        raise DataError(evaluation.why_nothing_counts())
    return evaluation


def unknown_split_sentences(card: Card) -> list[str]:
    """`UNKNOWN_SPLIT`, of a checkpoint whose card does not tell how its images were divided."""
    return [] if card.split.files else [UNKNOWN_SPLIT]


def _read_in_chunks(index: DatasetIndex, most: int) -> Iterator[list[tuple[int, SteelImage | str]]]:
    """Row and picture, or row and why it is refused, in chunks of `most` images, or of fewer that hold many pixels."""
    workers = min(8, os.cpu_count() or 1)
    rows, begun = iter(range(len(index))), deque[Future[tuple[int, SteelImage | str]]]()

    def read(row: int) -> tuple[int, SteelImage | str]:
        try:
            return row, index.image(row)
        except ImageError as error:
            return row, str(error)

    with ThreadPoolExecutor(workers) as pool:
        while True:
            chunk: list[tuple[int, SteelImage | str]] = []
            pixels = 0
            while len(chunk) < most and pixels < _PIXELS:
                begun.extend(pool.submit(read, row) for row in islice(rows, 2 * workers - len(begun)))
                if not begun:
                    break
                row, image = begun.popleft().result()
                chunk.append((row, image))
                pixels += image.height * image.width if isinstance(image, SteelImage) else 0
            if not chunk:
                return
            yield chunk


def _tabulate(
    predictor: Predictor,
    index: DatasetIndex,
    part: str,
    predicted: list[_Predicted],
    left_out: tuple[str, ...],
    unreadable: int,
) -> Evaluation:
    card, predictions = predictor.card, [one.prediction for one in predicted]
    rows = [one.row for one in predicted]
    about = index.table.iloc[rows]
    logits = np.array([p.logits for p in predictions], dtype=np.float64).reshape(-1, len(card.classes))
    probs = np.array([list(p.probs.values()) for p in predictions]).reshape(logits.shape)
    table = pd.DataFrame({
        "row": np.array(rows, dtype=np.int64),
        "file": about["path"].to_numpy(),
        "image_sha256": [p.image_sha256 for p in predictions],
        "label": about["labels"].to_numpy(),
        "pred": [p.pred for p in predictions],
        "outcome": [p.outcome for p in predictions],
        "confidence": probs.max(axis=1) if len(probs) else np.zeros(0),
        "loss": np.nan,
        "group": about["group"].to_numpy(),
        **part_columns(np.array([one.seen for one in predicted], dtype=object), about),
        "judgeable": [p.judgeable for p in predictions],
        "strangeness": np.array([np.nan if p.ood_score is None else p.ood_score for p in predictions], np.float64),
        "note": [p.note for p in predictions],
        "tiles": np.array([one.tiles for one in predicted], dtype=np.int64),
        **({"named": join_named(probs, card.classes, card.thresholds)} if card.multi_label else {}),
        **{f"p.{name}": probs[:, k] for k, name in enumerate(card.classes)},
        **{f"z.{name}": logits[:, k] for k, name in enumerate(card.classes)},
    }).astype(TEXT_COLUMNS)  # fmt: skip
    evaluation = Evaluation(
        table=table, classes=card.classes, head=card.head, temperature=card.temperature,
        thresholds=dict(card.thresholds), part=part, checkpoint=card.name, checkpoint_hash=predictor.hash,
        model=model_key(card), data=index.spec.title, data_key=data_key(index), left_out=left_out,
        unreadable=unreadable, multi_label=card.multi_label,
    )  # fmt: skip
    table["loss"] = metrics.log_losses(logits, evaluation.truth, card.head, card.temperature)
    return evaluation
