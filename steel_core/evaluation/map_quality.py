"""Measure how good a checkpoint's explanations are: every method on the same images, the two controls among them.

Choose images the checkpoint has not learnt from; on some of them choose the rule that makes regions of maps, on others
count: localisation where a mask or a box is on file, faithfulness, robustness, randomisation, completeness, agreement.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import find_near_duplicate_pairs, group_near_duplicates
from steel_core.device import batch_size, in_parallel
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.evaluation.evaluation import map_labels
from steel_core.evaluation.quality_report import COLUMNS, QualityReport
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo
from steel_core.explain.quality.agreement import compare_methods
from steel_core.explain.quality.base import METRICS, Case, Metric, attribute
from steel_core.explain.regions import choose_rule
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import squeeze_warning
from steel_core.models.card import RegionRule
from steel_core.progress import Progress, Say, no_progress
from steel_core.types import Attribution, BoolArray, Float32Array, IndexArray, Mask, ObjectArray, SteelImage

_MAP_BUDGET = 8_000  # passes for one method's maps: a costly method is measured on fewer images, and says so
_MORE_BUDGET = 2_000  # passes for the further maps that one metric asks for
_FEWEST = 5
_RANDOMISED = 10  # images for randomisation, which asks whether a map changes at all
_AGREEMENT = 30  # images
_TUNING = 60  # images on which the rule for regions is chosen
QUICK = 100  # passes of one map up to which `measure_trust` makes another one


class PickedImage(NamedTuple):
    """An image that is explained for one class: its grid (H, W), and where that class is, if that is on file."""

    row: int
    file: str
    grid: Float32Array
    target: int
    truth: Mask | None
    group: str


def measure_quality(
    predictor: Predictor,
    index: DatasetIndex,
    methods: Sequence[str] | None = None,
    *,
    images: int = 100,
    seed: int = 0,
    learnt: DatasetIndex | None = None,
    include_learnt: bool = False,
    progress: Progress = no_progress,
    report: Say = lambda _: None,
) -> QualityReport:
    """Measure every metric for every method, all if None; the controls are always added.

    Of `images`, evenly over the classes, each is explained for its (first) label, or for the predicted class where the
    checkpoint does not know that label. The rule for regions is chosen on the checkpoint's validation images if the
    data set holds some, else on one half of its groups of near-duplicates, while the other half counts. Costly methods
    are measured on fewer images: `n` tells. Only localisation needs masks or boxes.

    Images that the checkpoint was trained or tuned on count only where `include_learnt`. `learnt` is the data set it
    has learnt from, where `index` is another one that may show the same steel: near-duplicates of training images are
    left out.

    Raises:
        UsageError: an unknown method, or fewer than one image wanted.
        DataError: no image is left.
    """
    names = add_controls(methods)
    if images < 1:
        raise UsageError(f"images: expected at least 1, got {images}")
    index = map_labels(index, predictor.classes)
    if warning := squeeze_warning(index, predictor.card.input_size):
        report(f"WARNING: {warning}")

    # Images
    parts, left_out = _find_parts_served(predictor, index, progress)
    index, linked = _group_images(predictor, index, learnt, progress)
    seen = np.isin(parts, ["train", "val"]) | linked
    if seen.any() and not include_learnt:
        left_out.append(f"{int(seen.sum())} images, or others of the same steel, served to train or tune it")
    tuning_rows, counted_rows = _split_rows(index, parts, linked, include_learnt, seed)
    tuning = _pick_images(predictor, index, tuning_rows, min(_TUNING, images), seed, left_out)
    counted = _pick_images(predictor, index, counted_rows, images, seed, left_out)
    if not counted:
        raise DataError(f"no image is left to measure ({'; '.join(left_out[:3]) or 'the data set is empty'})")
    kinds = {"masks" if index[p.row].mask else "boxes" for p in (*tuning, *counted) if p.truth is not None}
    on_file = " and ".join(sorted(kinds, reverse=True))
    chosen_on = f"{sum(p.truth is not None for p in tuning)} other images of {index.spec.name} with {on_file}"

    # Maps, rules and metrics
    rows: list[tuple[Any, ...]] = []
    rules: dict[str, RegionRule] = {}
    seconds: dict[str, float] = {}
    compared: dict[str, list[Float32Array]] = {}
    common = next(_group_by_shape(counted))[:_AGREEMENT]
    for done, method in enumerate(names):
        progress("measuring explanations", done, len(names))
        info = EXPLAINERS[method].info
        most = max(_FEWEST, _MAP_BUDGET // forward_passes(info))
        few = tuning[:most] or counted[:most]
        explained = partial(explain_images, predictor, explainer=EXPLAINERS[method](), seed=seed)
        tried = in_parallel(explained, (batch.picked for batch in _batches(predictor, few, info)), predictor.device)
        maps = [shown for case in tried for shown in case.evidence]
        truths = [p.truth for some in _group_by_shape(few) for p in some] if tuning else [None] * len(few)
        rules[method] = choose_rule(maps, truths, chosen_on)
        measured = partial(_measure_batch, predictor, method=method, seed=seed, rule=rules[method])
        kept: dict[int, Float32Array] = {}
        spent = 0.0
        for batch in in_parallel(measured, _batches(predictor, counted[:most], info), predictor.device):
            rows += batch.rows
            kept |= batch.evidence
            spent += batch.seconds
        seconds[method] = spent / len(kept)
        compared[method] = [kept[p.row] for p in common if p.row in kept]
        report(f"{method}: {len(kept)} images, {seconds[method]:.3f} s a map, {rules[method].words}")
    progress("measuring explanations", len(names), len(names))

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    measured_rows = table.dropna(subset="value").reset_index(drop=True)
    agreement = _agreement_rows(compared, common, seed)
    return QualityReport(
        index.spec.name, on_file, names, len(counted), measured_rows, agreement, rules, seconds, tuple(left_out)
    )


def add_controls(methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods, all if None, with the controls behind them; UsageError where a name is unknown."""
    wanted = dict.fromkeys(EXPLAINERS if methods is None else methods)
    controls = [name for name in EXPLAINERS if EXPLAINERS[name].info.control]
    return (*(name for name in wanted if not EXPLAINERS[name].info.control), *controls)


class _Batch(NamedTuple):
    before: int  # images in the batches before it
    picked: list[PickedImage]


def _batches(predictor: Predictor, picked: Sequence[PickedImage], info: ExplainerInfo) -> Iterator[_Batch]:
    """Images of one size each, few enough for the device; one each for a method that fills batches with its samples."""
    size = batch_size(predictor.device) if forward_passes(info) <= QUICK else 1
    before = 0
    for alike in _group_by_shape(picked):
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            yield _Batch(before, some)
            before += len(some)


class _BatchQuality(NamedTuple):
    rows: list[tuple[Any, ...]]  # as in `QualityReport.rows`
    evidence: dict[int, Float32Array]  # by row of the data set
    seconds: float  # for the maps alone


def _measure_batch(predictor: Predictor, batch: _Batch, method: str, seed: int, rule: RegionRule) -> _BatchQuality:
    started = time.perf_counter()
    explained = explain_images(predictor, batch.picked, EXPLAINERS[method](), seed)
    case = replace(explained, rule=rule, number=batch.before, forward=predictor.forward)
    seconds = time.perf_counter() - started
    limits = {name: max(0, _image_limit(METRICS[name], case.explainer.info) - batch.before) for name in METRICS}
    firsts = {limit: case.first(limit) for limit in set(limits.values())}  # metrics share what they make of a case
    rows = []
    for name, limit in limits.items():
        if len(some := firsts[limit]):
            rows += _metric_rows(predictor, method, name, some, batch.picked)
    return _BatchQuality(rows, dict(zip((p.row for p in batch.picked), case.evidence, strict=True)), seconds)


def explain_images(
    predictor: Predictor,
    picked: Sequence[PickedImage],
    explainer: Explainer,
    seed: int,
    attribution: Attribution | None = None,
) -> Case:
    """Images of one size explained for their targets, unless the map was made before."""
    inputs = predictor.network_inputs([p.grid for p in picked])
    targets = torch.tensor([p.target for p in picked], device=predictor.device)
    name = next((n for n, title in predictor.backgrounds.items() if attribution and attribution.baseline == title), "")
    _, background = predictor.reference_images(name, picked[0].grid.shape, explainer.info.needs)
    weights = None
    if attribution is None:
        values = attribute(explainer, predictor.model, inputs, targets, background, seed)
    else:
        values = attribution.values[None]
        if attribution.against:
            weights = predictor.question_weights(attribution.target, attribution.against)
    card = predictor.card
    return Case(
        model=predictor.model, inputs=inputs, targets=targets, explainer=explainer, values=values,
        background=background, truth=tuple(p.truth for p in picked), head=card.head, temperature=card.temperature,
        weights=weights, std=card.std, seed=seed,
    )  # fmt: skip


def _metric_rows(
    predictor: Predictor, method: str, name: str, case: Case, picked: Sequence[PickedImage]
) -> list[tuple[Any, ...]]:
    metric = METRICS[name]
    values = metric.measure(case)
    nothing = np.full(len(case), np.nan)
    with_truth = np.array([truth is not None for truth in case.truth])
    chance = metric.chance(case) if metric.chance and with_truth.any() else nothing
    return [
        (p.file, p.row, predictor.classes[p.target], p.group, method, name, float(value), float(c))
        for p, value, c in zip(picked, values, chance, strict=False)
    ]


def forward_passes(info: ExplainerInfo) -> int:
    """What one map costs, in forward passes: a backward pass takes as long as two."""
    return max(1, info.forward + 2 * info.backward)


def _image_limit(metric: Metric, info: ExplainerInfo) -> int:
    if not metric.maps:
        return _MAP_BUDGET
    most = _RANDOMISED if metric.family == "randomisation" else _MORE_BUDGET
    return max(_FEWEST, min(most, _MORE_BUDGET // (forward_passes(info) * metric.maps)))


def _agreement_rows(
    compared: Mapping[str, list[Float32Array]], common: Sequence[PickedImage], seed: int
) -> pd.DataFrame:
    """One row for each image and two methods, on the images that all of them explained."""
    least = min(len(maps) for maps in compared.values())
    stacked = {method: np.stack(maps[:least]) for method, maps in compared.items()}
    table = []
    for (a, b), (alike, iou) in compare_methods(stacked, seed).items():
        table += [
            (p.file, p.group, a, b, float(rank), float(both))
            for p, rank, both in zip(common[:least], alike, iou, strict=True)
        ]
    return pd.DataFrame(table, columns=["file", "group", "a", "b", "spearman", "top_iou"])


def _find_parts_served(predictor: Predictor, index: DatasetIndex, progress: Progress) -> tuple[ObjectArray, list[str]]:
    """(N,) the part of the checkpoint's split each image served in, "unreadable" where it is refused, else ""."""
    parts, problems = np.full(len(index), "", dtype=object), []
    for i in range(len(index)):
        progress("reading images", i, len(index))
        try:
            parts[i] = predictor.card.part_of(index.image(i))
        except ImageError as error:
            parts[i] = "unreadable"
            problems.append(str(error))
    progress("reading images", len(index), len(index))
    return parts, problems


def _group_images(
    predictor: Predictor, index: DatasetIndex, learnt: DatasetIndex | None, progress: Progress
) -> tuple[DatasetIndex, BoolArray]:
    """The data set with groups of near-duplicates, and (N,) which images show steel that the checkpoint learnt from."""
    n = len(index)
    linked = np.zeros(n, dtype=np.bool_)
    pairs = None
    if learnt is not None:
        served = [
            i for i, part in enumerate(_find_parts_served(predictor, learnt, progress)[0]) if part in ("train", "val")
        ]
        both = [index, learnt.select(rows=served)]
        root = Path(os.path.commonpath([one.root for one in both]))
        paths = [(one.root / path).relative_to(root).as_posix() for one in both for path in one.table["path"]]
        both_indices = DatasetIndex.build(root, index.spec, pd.DataFrame({"path": paths}))
        pairs = find_near_duplicate_pairs(both_indices, progress)
        linked[pairs["first"][(pairs["first"] < n) & (pairs["second"] >= n)]] = True
        pairs = pairs[pairs["second"] < n]
    if (index.table["group"] == "").any():
        index = index.with_groups(group_near_duplicates(index, progress, pairs))
    return index, linked


def _split_rows(
    index: DatasetIndex, parts: ObjectArray, linked: BoolArray, include_learnt: bool, seed: int
) -> tuple[IndexArray, IndexArray]:
    """Rows to choose the rule for regions on, and rows to count, of different groups."""
    groups = index.table["group"].to_numpy()
    readable = parts != "unreadable"
    usable = readable & (include_learnt | ~(np.isin(parts, ["train", "val"]) | linked))
    tuning = readable & (parts == "val")
    if not tuning.any() and usable.any():
        names = np.random.default_rng(seed).permutation(np.unique(groups[usable].astype(str)))
        tuning = usable & np.isin(groups.astype(str), names[: len(names) // 2])
    return np.flatnonzero(tuning), np.flatnonzero(usable & ~np.isin(groups.astype(str), groups[tuning].astype(str)))


def _pick_images(
    predictor: Predictor, index: DatasetIndex, rows: IndexArray, count: int, seed: int, left_out: list[str]
) -> list[PickedImage]:
    """Up to `count` images, evenly over the classes, in random order."""
    labels = index.table["labels"].str.partition("|")[0].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(rows)
    turn = pd.Series(labels[shuffled]).groupby(labels[shuffled]).cumcount().to_numpy()
    picked = []
    for i in shuffled[np.argsort(turn, kind="stable")][:count].tolist():
        image, sample = index.image(i), index[i]
        label = sample.label if sample.label in predictor.classes else predictor.predict([image])[0].pred
        grid, _ = predictor.card.preprocessing.to_grid(image)
        try:
            truth = _truth_on_grid(index, i, label, image, grid.shape)
        except DataError as error:
            left_out.append(f"{error} The image counts without it.")
            truth = None
        picked.append(PickedImage(i, sample.path.name, grid, predictor.classes.index(label), truth, sample.group))
    return picked


def _truth_on_grid(index: DatasetIndex, i: int, label: str, image: SteelImage, shape: tuple[int, ...]) -> Mask | None:
    """Where an inspector saw that class, on the grid (H, W) that the network sees; None where nothing is on file."""
    size = (image.height, image.width)
    values = index.mask(i)
    if values is not None:
        if values.shape != size:
            raise DataError(f"{image.name}: expected a mask of {size[0]} x {size[1]} pixels, found {values.shape}.")
        truth = np.isin(values, [value for value, name in index[i].mask_classes.items() if name == label])
    else:
        truth = boxes_to_mask([box for box in index.boxes(i) if box.label == label], size)
    truth = cv2.resize(truth.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return truth if truth.any() else None


def _group_by_shape(picked: Sequence[PickedImage]) -> Iterator[list[PickedImage]]:
    """The images of each size of grid, as one batch can hold them, the most frequent size first."""
    by_shape: dict[tuple[int, ...], list[PickedImage]] = {}
    for one in picked:
        by_shape.setdefault(one.grid.shape, []).append(one)
    yield from sorted(by_shape.values(), key=len, reverse=True)
