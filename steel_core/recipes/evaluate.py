"""Evaluate a checkpoint on a data set: predict every labelled image that it has not learnt from, and count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core import metrics
from steel_core.data.base import Progress
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.inference import Predictor
from steel_core.types import CLEAR, DEFECT, Prediction, SteelImage

PARTS = ("held-out", "train", "val", "test", "all")
_CHUNK = 64


@dataclass(frozen=True)
class Evaluation:
    """Figures and what they rest on.

    Attributes:
        report: figures with intervals.
        part: which images were counted.
        rows: (N,) their rows in the data set's table.
        predictions: one for each of them.
        left_out: sentences about images that were not counted.
        unreadable: how many of those could not be read.
        grouped: whether near-duplicates are known, and count as one observation in the intervals.
    """

    report: metrics.EvaluationReport
    part: str
    rows: npt.NDArray[np.int64]
    predictions: tuple[Prediction, ...]
    left_out: tuple[str, ...]
    unreadable: int
    grouped: bool

    def to_json(self) -> dict[str, Any]:
        """The figures, which images they count, and what was left out."""
        return {
            **self.report.to_json(),
            "part": self.part,
            "near_duplicates": "count as one" if self.grouped else "not looked for: intervals may be too narrow",
            "left_out": list(self.left_out),
        }


def evaluate(
    predictor: Predictor, index: DatasetIndex, part: str = "held-out", progress: Progress | None = None
) -> Evaluation:
    """Predict and count.

    Args:
        predictor: the checkpoint.
        index: the data set. A binary checkpoint (clear, defect) sees its defect types as one class.
        part: "held-out" counts the images that served neither to train nor to choose anything, known by the hash of
            their bytes; "train", "val" and "test" the parts of the checkpoint's own split, or the data set's where the
            checkpoint has not seen it; "all" counts everything.
        progress: called with images done and their number.

    Raises:
        UsageError: `part` is unknown.
        DataError: the data set's classes are not the checkpoint's, or no labelled image is left.
    """
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    index = match_classes(index, predictor.classes)
    labels, groups, rows = [], [], []
    predictions: list[Prediction] = []
    left_out: list[str] = []
    learnt = unreadable = 0
    for start in range(0, len(index), _CHUNK):
        chunk: list[SteelImage] = []
        for i in range(start, min(start + _CHUNK, len(index))):
            sample = index[i]
            if len(sample.labels) != 1:
                left_out.append(f"{sample.path.name}: expected one label, got {len(sample.labels)}")
                continue
            try:
                image = index.image(i)
            except ImageError as error:
                left_out.append(str(error))
                unreadable += 1
                continue
            seen_in = predictor.card.part_of(image.sha256)
            if part == "held-out" and seen_in in ("train", "val"):
                learnt += 1
                continue
            if part in ("train", "val", "test") and part != (seen_in or sample.split):
                continue
            chunk.append(image)
            labels.append(predictor.classes.index(sample.label))
            groups.append(sample.group)
            rows.append(i)
        predictions += predictor.predict(chunk)
        if progress:
            progress(min(start + _CHUNK, len(index)), len(index))
    if learnt:
        left_out.append(f"{learnt} images served to train or tune this checkpoint and were not counted")
    if not rows:
        raise DataError(f"no labelled image is left to evaluate ({'; '.join(left_out[:3]) or f'part {part} is empty'})")
    probs = np.array([list(prediction.probs.values()) for prediction in predictions])
    names = [group or f"row {row}" for group, row in zip(groups, rows, strict=True)]
    report = metrics.evaluate(probs, np.array(labels), predictor.classes, names)
    return Evaluation(report, part, np.array(rows), tuple(predictions), tuple(left_out), unreadable, any(groups))


def match_classes(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint's classes.

    Raises:
        DataError: it holds labels that the checkpoint does not know.
    """
    if set(classes) == {CLEAR, DEFECT} and not set(index.classes) <= set(classes):
        index = index.binary()
    unknown = set(index.classes) - set(classes)
    if unknown:
        raise DataError(
            f"the data set's labels {', '.join(sorted(unknown))} are unknown to this checkpoint, "
            f"which knows {', '.join(classes)}"
        )
    return index
