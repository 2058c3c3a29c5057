"""What baselines say of images, as checkpoints are evaluated, and how the classical chain comes to it.

Legend: N images, H rows, W columns, F features, K classes.
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
from steel_core.baselines.base import BASELINES, Baseline
from steel_core.baselines.methods.classical_chain import ClassicalChain, measure_regions
from steel_core.data.index import DatasetIndex
from steel_core.data.transforms import resize
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.store import evaluation_file_name, load_evaluation, save_evaluation
from steel_core.inference.keys import data_key
from steel_core.progress import Progress, no_progress
from steel_core.training.images import common_size
from steel_core.types import BoolArray, Float32Array, Float64Array, Int64Array, SteelImage

_MOST = 4000  # images that a baseline learns from: they lie in memory
_SIDE = 200  # pixels of the shorter side, at most
_FEW = 50  # images that tell the common size
_ENOUGH = 60  # images after which a baseline costs as much to ask as one that has seen all


@dataclass(frozen=True, slots=True)
class FittedBaseline:
    """A baseline that has learnt: from pictures, seen at `size` (H, W) in pixels, to probabilities."""

    model: Baseline
    size: tuple[int, int]

    def __call__(self, images: Sequence[SteelImage]) -> Float64Array:
        """Probabilities (N, K)."""
        return self.model.predict(self.to_grids(images))

    def to_grids(self, images: Sequence[SteelImage]) -> Float32Array:
        """The pictures as it sees them (N, H, W)."""
        return np.stack([resize(image.grey(), *self.size) for image in images])


def evaluate_baselines(
    index: DatasetIndex, rows: Int64Array, classes: tuple[str, ...], folder: Path, progress: Progress
) -> dict[str, tuple[Evaluation, FittedBaseline]]:
    """Let every baseline learn from the train split and judge other rows; loaded where that was done before.

    A baseline that was loaded has learnt from a few images only, enough for a model of full size that can be timed.

    Raises:
        DataError: there is nothing to learn from or to judge.
    """
    if not len(rows):
        raise DataError("baselines: expected images to judge, got none")
    lessons = _read_lessons(index, classes, progress)
    one_each = np.unique(lessons.truth, return_index=True)[1]
    few = np.union1d(one_each, np.linspace(0, len(lessons.truth) - 1, _ENOUGH).astype(np.int64))
    key = data_key(index)
    results = {}
    for name in BASELINES:
        baseline = FittedBaseline(BASELINES[name](seed=0), lessons.size)
        facts = ["baseline", name, steel_core.__version__, classes, lessons.size, lessons.rows.tolist(), rows.tolist()]
        model = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        try:
            evaluation = load_evaluation(folder / evaluation_file_name(model, key, "baseline"))
            baseline.model.fit(lessons.grids[few], lessons.truth[few], len(classes))
        except DataError:
            progress(f"{name} learns", 0, 0)
            baseline.model.fit(lessons.grids, lessons.truth, len(classes))
            evaluation = _evaluate_baseline(name, baseline, index, rows, classes, model, key, progress)
            with suppress(UsageError):  # a cache that cannot be written only costs time
                save_evaluation(evaluation, folder)
        results[name] = evaluation, baseline
    return results


def fit_baseline(
    name: str, index: DatasetIndex, classes: tuple[str, ...], progress: Progress = no_progress
) -> FittedBaseline:
    """A baseline that has learnt from the train split, as in `evaluate_baselines`.

    Raises:
        DataError: there is nothing to learn from.
    """
    lessons = _read_lessons(index, classes, progress)
    baseline = FittedBaseline(BASELINES[name](seed=0), lessons.size)
    progress(f"{name} learns", 0, 0)
    baseline.model.fit(lessons.grids, lessons.truth, len(classes))
    return baseline


class _Lessons(NamedTuple):
    """What baselines learn from: rows (L,) of the images asked for, grids (N, H, W) and truth (N,) of the readable."""

    rows: Int64Array
    grids: Float32Array
    truth: Int64Array
    size: tuple[int, int]


def _read_lessons(index: DatasetIndex, classes: tuple[str, ...], progress: Progress) -> _Lessons:
    labels = pd.Index(list(classes)).get_indexer(pd.Index(index.table["labels"])).astype(np.int64)
    rows = np.flatnonzero((index.table["split"] == "train").to_numpy() & (labels >= 0))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST])
    if not len(rows):
        raise DataError("baselines: expected labelled images in the train split to learn from, got none")
    size = common_size(index, rows[:_FEW].tolist(), _SIDE)
    read = list(_readable(index, rows, "reading images for the baselines", progress))
    grids = np.stack([resize(image.grey(), *size) for _, image in read])
    return _Lessons(rows, grids, labels[[row for row, _ in read]], size)


def _readable(index: DatasetIndex, rows: Int64Array, what: str, progress: Progress) -> Iterator[tuple[int, SteelImage]]:
    """Row and picture; those that cannot be read are named where checkpoints are evaluated."""
    for done, row in enumerate(rows.tolist()):
        progress(what, done, len(rows))
        with suppress(ImageError):
            yield row, index.image(row)
    progress(what, len(rows), len(rows))


def _evaluate_baseline(
    name: str,
    baseline: FittedBaseline,
    index: DatasetIndex,
    rows: Int64Array,
    classes: tuple[str, ...],
    model: str,
    key: str,
    progress: Progress,
) -> Evaluation:
    """No thresholds, no temperature, and logits that give the baseline's probabilities again."""
    rows_read, hashes, probs = [], [], []
    for row, image in _readable(index, rows, f"{name} judges", progress):
        rows_read.append(row)
        hashes.append(image.sha256)
        probs.append(np.clip(baseline([image])[0], 1e-6, None))
    if not rows_read:
        raise DataError("baselines: none of the images to judge can be read")
    logits = np.log(np.array(probs) / np.sum(probs, axis=1, keepdims=True))
    about = index.table.iloc[rows_read]
    pred = np.array(classes, dtype=object)[logits.argmax(axis=1)]
    labels = pd.Index(list(classes)).get_indexer(pd.Index(about["labels"])).astype(np.int64)
    table = pd.DataFrame({
        "row": np.array(rows_read, dtype=np.int64), "file": about["path"].to_numpy(), "image_sha256": hashes,
        "label": about["labels"].to_numpy(), "pred": pred, "outcome": pred, "confidence": np.exp(logits).max(axis=1),
        "loss": metrics.log_losses(logits, labels, "softmax"), "group": about["group"].to_numpy(),
        "seen": "", "split": about["split"].to_numpy(), "judgeable": True, "strangeness": np.nan, "note": "",
        **{f"p.{label}": np.exp(logits[:, k]) for k, label in enumerate(classes)},
        **{f"z.{label}": logits[:, k] for k, label in enumerate(classes)},
    })  # fmt: skip
    return Evaluation(table, classes, "softmax", 1.0, {}, "baseline", name, model, model, index.spec.title, key)


NAME = "classical-chain"


@dataclass(frozen=True, eq=False)
class ChainSteps:
    """The intermediate results for one image.

    Attributes:
        grid: (H, W) grey in 0 to 1, as the chain sees it.
        candidates: (H, W) number of the region at each pixel that deviates from its surroundings, 0 for none.
        largest: (H, W) whether a pixel belongs to the largest candidate.
        features: (F,) value by name.
        before: probability of each class before any feature is looked at: the mean over what it learnt from.
        contributions: (F, K) what each feature adds to each class: SHAP values, which sum to `probs` less `before`.
    """

    grid: Float32Array
    candidates: npt.NDArray[np.int32]
    largest: BoolArray
    features: pd.Series[float]
    probs: dict[str, float]
    before: dict[str, float]
    contributions: pd.DataFrame


def explain_chain(baseline: FittedBaseline, image: SteelImage, classes: tuple[str, ...]) -> ChainSteps:
    """The chain's steps for one image; `classes` are those that it was taught with."""
    chain = baseline.model
    assert isinstance(chain, ClassicalChain)
    grids = baseline.to_grids([image])
    chain_steps = measure_regions(grids[0])
    sizes = np.bincount(chain_steps.candidates.ravel())
    sizes[0] = 0
    probs = chain.predict(grids)[0]
    contributions = pd.DataFrame(
        {name: values[0] for name, values in chain.importances(grids).items()}, index=list(classes)
    ).T
    return ChainSteps(
        grids[0],
        chain_steps.candidates,
        (chain_steps.candidates == sizes.argmax()) & (chain_steps.candidates > 0),
        pd.Series(chain_steps.features),
        dict(zip(classes, probs.tolist(), strict=True)),
        dict(zip(classes, (probs - contributions.sum().to_numpy()).tolist(), strict=True)),
        contributions,
    )
