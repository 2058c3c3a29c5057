"""What the baselines say of the images of a data set, in the form in which checkpoints are evaluated.

Legend: N images, H rows, W columns, K classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

import steel_core
from steel_core import metrics
from steel_core.baselines.base import BASELINES, Baseline, Grids, Probabilities
from steel_core.data.index import DatasetIndex
from steel_core.data.transforms import resize
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.evaluation.evaluate import Evaluation, data_key, stored_name
from steel_core.progress import Progress
from steel_core.training.images import common_size
from steel_core.types import SteelImage

_MOST = 4000  # images that a baseline learns from: they lie in memory
_SIDE = 200  # pixels of the shorter side, at most
_FEW = 50  # images that tell the common size
_ENOUGH = 60  # images after which a baseline costs as much to ask as one that has seen all


@dataclass(frozen=True, slots=True)
class Judge:
    """A baseline that has learnt.

    Attributes:
        model: the baseline.
        size: height and width in pixels at which it sees pictures.
    """

    model: Baseline
    size: tuple[int, int]

    def __call__(self, images: Sequence[SteelImage]) -> Probabilities:
        """Probabilities (N, K)."""
        return self.model.predict(self.seen(images))

    def seen(self, images: Sequence[SteelImage]) -> Grids:
        """The pictures as it sees them (N, H, W)."""
        return np.stack([resize(image.grey(), *self.size) for image in images])


def judge_by_baselines(
    index: DatasetIndex, rows: npt.NDArray[np.int64], classes: tuple[str, ...], folder: Path, progress: Progress
) -> dict[str, tuple[Evaluation, Judge]]:
    """Let every baseline learn from the train split and judge some rows; loaded where that was done before.

    Args:
        index: the data set, with splits and groups.
        rows: of the images to judge; none of the train split.
        classes: in the order of the probabilities.
        folder: where evaluations are kept.
        progress: receives what is being done, how much is done, and of how much.

    Returns:
        The evaluation, and the baseline itself to be timed; one that was loaded has learnt from a few images only,
        enough for a model of full size.

    Raises:
        DataError: there is nothing to learn from or to judge.
    """
    if not len(rows):
        raise DataError("baselines: expected images to judge, got none")
    lessons = _lessons(index, classes, progress)
    one_each = np.unique(lessons.truth, return_index=True)[1]
    few = np.union1d(one_each, np.linspace(0, len(lessons.truth) - 1, _ENOUGH).astype(np.int64))
    key = data_key(index)
    found = {}
    for name in BASELINES:
        judge = Judge(BASELINES[name](seed=0), lessons.size)
        facts = ["baseline", name, steel_core.__version__, classes, lessons.size, lessons.rows.tolist(), rows.tolist()]
        model = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        try:
            said = Evaluation.load(folder / stored_name(model, key, "baseline"))
            judge.model.fit(lessons.grids[few], lessons.truth[few], len(classes))
        except DataError:
            progress(f"{name} learns", 0, 0)
            judge.model.fit(lessons.grids, lessons.truth, len(classes))
            said = _evaluation(name, judge, index, rows, classes, model, key, progress)
            with suppress(UsageError):  # a cache that cannot be written only costs time
                said.save(folder)
        found[name] = said, judge
    return found


def taught(name: str, index: DatasetIndex, classes: tuple[str, ...], progress: Progress) -> Judge:
    """A baseline that has learnt from the train split, as in `judge_by_baselines`.

    Raises:
        DataError: there is nothing to learn from.
    """
    lessons = _lessons(index, classes, progress)
    judge = Judge(BASELINES[name](seed=0), lessons.size)
    progress(f"{name} learns", 0, 0)
    judge.model.fit(lessons.grids, lessons.truth, len(classes))
    return judge


class _Lessons(NamedTuple):
    """What baselines learn from: rows (L,) of the images asked for, grids (N, H, W) and truth (N,) of the readable."""

    rows: npt.NDArray[np.int64]
    grids: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    size: tuple[int, int]


def _lessons(index: DatasetIndex, classes: tuple[str, ...], progress: Progress) -> _Lessons:
    labels = pd.Index(list(classes)).get_indexer(pd.Index(index.table["labels"])).astype(np.int64)
    rows = np.flatnonzero((index.table["split"] == "train").to_numpy() & (labels >= 0))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST])
    if not len(rows):
        raise DataError("baselines: expected labelled images in the train split to learn from, got none")
    size = common_size(index, rows[:_FEW].tolist(), _SIDE)
    read = list(_readable(index, rows, "reading images for the baselines", progress))
    grids = np.stack([resize(image.grey(), *size) for _, image in read])
    return _Lessons(rows, grids, labels[[row for row, _ in read]], size)


def _readable(
    index: DatasetIndex, rows: npt.NDArray[np.int64], what: str, progress: Progress
) -> Iterator[tuple[int, SteelImage]]:
    """Row and picture; those that cannot be read are named where checkpoints are evaluated."""
    for done, row in enumerate(rows.tolist()):
        progress(what, done, len(rows))
        with suppress(ImageError):
            yield row, index.image(row)
    progress(what, len(rows), len(rows))


def _evaluation(
    name: str,
    judge: Judge,
    index: DatasetIndex,
    rows: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    model: str,
    key: str,
    progress: Progress,
) -> Evaluation:
    """No thresholds, no temperature, and logits that give the baseline's probabilities again."""
    judged, hashes, probs = [], [], []
    for row, image in _readable(index, rows, f"{name} judges", progress):
        judged.append(row)
        hashes.append(image.sha256)
        probs.append(np.clip(judge([image])[0], 1e-6, None))
    if not judged:
        raise DataError("baselines: none of the images to judge can be read")
    logits = np.log(np.array(probs) / np.sum(probs, axis=1, keepdims=True))
    about = index.table.iloc[judged]
    pred = np.array(classes, dtype=object)[logits.argmax(axis=1)]
    labels = pd.Index(list(classes)).get_indexer(pd.Index(about["labels"])).astype(np.int64)
    table = pd.DataFrame({
        "row": np.array(judged, dtype=np.int64), "file": about["path"].to_numpy(), "image_sha256": hashes,
        "label": about["labels"].to_numpy(), "pred": pred, "outcome": pred, "confidence": np.exp(logits).max(axis=1),
        "loss": metrics.losses(logits, labels, "softmax"), "group": about["group"].to_numpy(),
        "seen": "", "split": about["split"].to_numpy(), "judgeable": True, "strangeness": np.nan, "note": "",
        **{f"p.{label}": np.exp(logits[:, k]) for k, label in enumerate(classes)},
        **{f"z.{label}": logits[:, k] for k, label in enumerate(classes)},
    })  # fmt: skip
    return Evaluation(table, classes, "softmax", 1.0, {}, "baseline", name, model, model, index.spec.title, key)
