"""Measure how good a checkpoint's explanations are: every method on the same images, the two controls among them.

Choose images the checkpoint has not learnt from; on some of them choose the rule that makes regions of maps, on others
count: localisation where a mask or a box is on file, faithfulness, robustness, randomisation, completeness, agreement.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from steel_core.data.index import DatasetIndex
from steel_core.device import batch_size, in_parallel
from steel_core.errors import DataError, UsageError
from steel_core.evaluation.labels import map_labels
from steel_core.evaluation.quality_images import (
    PickedImage,
    find_parts_served,
    group_by_shape,
    group_images,
    pick_images,
    split_rows,
)
from steel_core.evaluation.quality_report import COLUMNS, QualityReport
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo
from steel_core.explain.quality.agreement import compare_methods
from steel_core.explain.quality.base import METRICS, Case, Metric, attribute
from steel_core.explain.regions import choose_rule
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import squeeze_warning
from steel_core.models.card import RegionRule
from steel_core.progress import Progress, Say, no_progress
from steel_core.types import Attribution, Float32Array

_MAP_BUDGET = 8_000  # passes for one method's maps: a costly method is measured on fewer images, and says so
_MORE_BUDGET = 2_000  # passes for the further maps that one metric asks for
_FEWEST = 5
_RANDOMISED = 10  # images for randomisation, which asks whether a map changes at all
_AGREEMENT = 30  # images
_TUNING = 60  # images on which the rule for regions is chosen
QUICK = 100  # passes of one map up to which `measure_trust` makes another one


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
    parts, left_out = find_parts_served(predictor, index, progress)
    index, linked = group_images(predictor, index, learnt, progress)
    seen = np.isin(parts, ["train", "val"]) | linked
    if seen.any() and not include_learnt:
        left_out.append(f"{int(seen.sum())} images, or others of the same steel, served to train or tune it")
    tuning_rows, counted_rows = split_rows(index, parts, linked, include_learnt, seed)
    tuning = pick_images(predictor, index, tuning_rows, min(_TUNING, images), seed, left_out)
    counted = pick_images(predictor, index, counted_rows, images, seed, left_out)
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
    common = next(group_by_shape(counted))[:_AGREEMENT]
    for done, method in enumerate(names):
        progress("measuring explanations", done, len(names))
        info = EXPLAINERS[method].info
        most = max(_FEWEST, _MAP_BUDGET // forward_passes(info))
        few = tuning[:most] or counted[:most]
        explained = partial(_explain_batch, predictor, method=method, seed=seed)
        tried = in_parallel(explained, _batches(predictor, few, info), predictor.device)
        maps = [shown for case in tried for shown in case.evidence]
        truths = [p.truth for some in group_by_shape(few) for p in some] if tuning else [None] * len(few)
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
    return QualityReport(
        index.spec.name,
        on_file,
        names,
        len(counted),
        table.dropna(subset="value").reset_index(drop=True),
        _agreement_rows(compared, common, seed),
        rules,
        seconds,
        tuple(left_out),
    )


def add_controls(methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods, all if None, with the controls behind them.

    Raises:
        UsageError: a name is unknown.
    """
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
    for alike in group_by_shape(picked):
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            yield _Batch(before, some)
            before += len(some)


def _explain_batch(predictor: Predictor, batch: _Batch, method: str, seed: int) -> Case:
    return explain_images(predictor, batch.picked, EXPLAINERS[method](), seed)


class _BatchQuality(NamedTuple):
    rows: list[tuple[Any, ...]]  # as in `QualityReport.rows`
    evidence: dict[int, Float32Array]  # by row of the data set
    seconds: float  # for the maps alone


def _measure_batch(predictor: Predictor, batch: _Batch, method: str, seed: int, rule: RegionRule) -> _BatchQuality:
    started = time.perf_counter()
    case = replace(_explain_batch(predictor, batch, method, seed), rule=rule, number=batch.before,
                   forward=predictor.forward)  # fmt: skip
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
    weights = (
        predictor.question_weights(attribution.target, attribution.against)
        if attribution and attribution.against
        else None
    )
    values = (
        attribute(explainer, predictor.model, inputs, targets, background, seed)
        if attribution is None
        else attribution.values[None]
    )
    return Case(
        model=predictor.model,
        inputs=inputs,
        targets=targets,
        explainer=explainer,
        values=values,
        background=background,
        truth=tuple(p.truth for p in picked),
        head=predictor.card.head,
        temperature=predictor.card.temperature,
        weights=weights,
        std=predictor.card.std,
        seed=seed,
    )


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
    table = []
    for (a, b), (alike, iou) in compare_methods(
        {m: np.stack(maps[:least]) for m, maps in compared.items()}, seed
    ).items():
        table += [
            (p.file, p.group, a, b, float(rank), float(both))
            for p, rank, both in zip(common[:least], alike, iou, strict=True)
        ]
    return pd.DataFrame(table, columns=["file", "group", "a", "b", "spearman", "top_iou"])
