"""Measure how good a checkpoint's explanations are: every method on the same images, the two controls among them.

Choose images the checkpoint has not learnt from; on some of them choose the rule that makes regions of maps, on others
count: localisation where a mask or a box is on file, faithfulness, robustness, randomisation, completeness, agreement.
"""

from __future__ import annotations

import gzip
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import steel_core
from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import near_duplicate_groups, near_duplicate_pairs
from steel_core.device import batch_size, in_parallel
from steel_core.errors import CheckpointError, DataError, ImageError, UsageError
from steel_core.evaluation.evaluate import in_words_of
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo
from steel_core.explain.quality.agreement import agreement
from steel_core.explain.quality.base import METRICS, Case, Metric, attribute
from steel_core.explain.quality.randomisation import SURVIVES
from steel_core.explain.regions import Mask, RegionRule, choose_rule, region_mask
from steel_core.files import write_bytes
from steel_core.inference.predictor import Predictor, evidence
from steel_core.inference.tiling import squeezed
from steel_core.metrics.intervals import Figure, basic, effective_observations, group_weights
from steel_core.models.checkpoint import list_checkpoints, update_card
from steel_core.progress import Progress, no_progress
from steel_core.training.fit import Report
from steel_core.types import Attribution, SteelImage

_MAP_BUDGET = 8_000  # passes for one method's maps: a costly method is measured on fewer images, and says so
_MORE_BUDGET = 2_000  # passes for the further maps that one metric asks for
_FEWEST = 5
_RANDOMISED = 10  # images for randomisation, which asks whether a map changes at all
_AGREEMENT = 30  # images
_TUNING = 60  # images on which the rule for regions is chosen
_QUANTILES = np.linspace(0, 1, 21)
_QUICK = 100  # passes of one map up to which `trust` makes another one

_COLUMNS = ("file", "row", "class", "group", "method", "metric", "value", "chance")

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QualityReport:
    """How good the explanations of one checkpoint are on one data set.

    Attributes:
        data: name of the data set.
        evidence: "masks", "boxes", "masks and boxes", or "" where nothing is on file.
        methods: names in `EXPLAINERS`.
        n: images counted.
        rows: one row for each image, method and metric: file, row (in the data set), class, group, method, metric,
            value, chance (what a map that knows nothing would reach, or NaN).
        agreement: one row for each image and two methods: file, group, a, b, spearman, top_iou.
        rules: how the maps of each method become regions.
        seconds: time for one map of each method, on one core of a CPU while the others made other maps.
        left_out: sentences about images that were not counted.
    """

    data: str
    evidence: str
    methods: tuple[str, ...]
    n: int
    rows: pd.DataFrame
    agreement: pd.DataFrame
    rules: dict[str, RegionRule]
    seconds: dict[str, float]
    left_out: tuple[str, ...]

    def summary(self, by_class: bool = False) -> pd.DataFrame:
        """One row for each method and metric, and for each class if `by_class`.

        Columns: method, metric, class ("" for all), value (the mean), low, high (95 %, by bootstrap over groups of
        near-duplicates), n, lift (value over chance, or NaN).
        """
        return summarised(self.rows, by_class)

    def disagreement(self) -> pd.DataFrame:
        """One row for each two methods: a, b, and the means with intervals of rank correlation and top-tenth IoU.

        Columns: a, b, spearman, spearman_low, spearman_high, top_iou, top_iou_low, top_iou_high, n.
        """
        weights = _Weights()
        table = []
        for (a, b), some in self.agreement.groupby(["a", "b"], sort=False):
            alike = weights.mean(some["spearman"].to_numpy(), some["group"], bounded=False)
            common = weights.mean(some["top_iou"].to_numpy(), some["group"], bounded=True)
            table.append((a, b, *alike[:3], *common[:3], alike.n))
        names = ("spearman", "top_iou")
        ends = [name + end for name in names for end in ("", "_low", "_high")]
        return pd.DataFrame(table, columns=["a", "b", *ends, "n"])

    def table(self) -> str:
        """The figures with their intervals for people: a block for each metric, a line for each method."""
        summary = self.summary()
        lines = [f"{self.data}: {self.n} images, {self.evidence or 'no masks or boxes'} on file"]
        for name, some in summary.groupby("metric", sort=False):
            metric = METRICS[str(name)]
            lines.append(f"\n{metric.title} ({metric.family}; {'more' if metric.higher else 'less'} is better)")
            for line in some.sort_values("value", ascending=not metric.higher).to_dict("records"):
                lift = "" if np.isnan(line["lift"]) else f", {line['lift']:.1f} times chance"
                figure = Figure(line["value"], line["low"], line["high"], line["n"], line["n"])
                lines.append(f"  {line['method']:22}{figure}{lift}")
        forgetful = summary[summary["metric"] == "randomised-model"].to_dict("records")
        if survive := [line["method"] for line in forgetful if explains_model(line["low"], line["high"]) is False]:
            lines.append(f"\nDo not explain this model (the map survives its randomisation): {', '.join(survive)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What a card stores: figures with intervals, quantiles for `trust`, agreement, as `json` can write them."""
        methods: dict[str, dict[str, Any]] = {method: {} for method in self.methods}
        for line in self.summary().to_dict("records"):
            cells = {name: _rounded(line[name]) for name in ("value", "low", "high", "lift")}
            methods[line["method"]][line["metric"]] = cells | {"n": int(line["n"])}
        kept = self.rows[self.rows["metric"].isin(["road", "noise-change"])]
        quantiles: dict[str, dict[str, list[float]]] = {method: {} for method in self.methods}
        for (method, metric), some in kept.groupby(["method", "metric"]):
            quantiles[str(method)][str(metric)] = [round(float(q), 5) for q in np.quantile(some["value"], _QUANTILES)]
        return {
            "data": self.data,
            "evidence": self.evidence,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "code_version": steel_core.__version__,
            "images": self.n,
            "methods": methods,
            "quantiles": quantiles,
            "agreement": [
                {k: v if isinstance(v, str) else _rounded(v) for k, v in line.items()}
                for line in self.disagreement().to_dict("records")
            ],
            "seconds": {method: round(s, 4) for method, s in self.seconds.items()},
        }


@dataclass(frozen=True)
class Trust:
    """How far one map can be trusted.

    Attributes:
        faithfulness: ROAD of this map: what the probability loses when the strongest pixels go, against the weakest.
        percentile: share of the stored maps of this method that are less faithful, 0 to 1; None if none are stored.
        beats_random: share of the stored random maps that are less faithful, 0 to 1; None if none are stored.
        change: of the map when faint noise is added (L2, relative); None where the prediction did not stand, or where
            another map would take too long.
        area: share of the image inside the region; None without a rule for regions.
        inside: share of the positive evidence inside it.
        explains_model: whether maps of this method change when the model forgets what it learnt; None if that was not
            measured, or not clear.
    """

    faithfulness: float
    percentile: float | None
    beats_random: float | None
    change: float | None
    area: float | None
    inside: float | None
    explains_model: bool | None

    @property
    def lift(self) -> float | None:
        """How much denser the evidence is inside the region than over the whole image; None without a region."""
        return self.inside / self.area if self.area and self.inside is not None else None

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return vars(self) | {"lift": self.lift}


class _Picked(NamedTuple):
    row: int
    file: str
    grid: npt.NDArray[np.float32]
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
    report: Report = lambda _: None,
) -> QualityReport:
    """Measure every metric for every method.

    Each image is explained for its (first) label, or for the predicted class where the checkpoint does not know that
    label. The rule for regions is chosen on the checkpoint's validation images if the data set holds some, else on one
    half of its groups of near-duplicates, while the other half counts. Costly methods are measured on fewer images: `n`
    tells.

    Args:
        predictor: the checkpoint.
        index: the data set. Masks or boxes are needed for localisation only.
        methods: names in `EXPLAINERS`; all if None. The controls are always added.
        images: how many count, evenly over the classes.
        seed: of the choice of images, and of all random numbers.
        learnt: the data set that the checkpoint has learnt from, where `index` is another one that may show the same
            steel in other files: near-duplicates of its training images are left out.
        include_learnt: whether images that served to train or tune the checkpoint count.
        progress: told what is being done, how much is done, and of how much.
        report: told what was chosen.

    Raises:
        UsageError: an unknown method, or fewer than one image wanted.
        DataError: no image is left.
    """
    names = with_controls(methods)
    if images < 1:
        raise UsageError(f"images: expected at least 1, got {images}")
    index = in_words_of(index, predictor.classes)
    if warning := squeezed(index, predictor.card.input_size):
        report(f"WARNING: {warning}")

    # Images
    parts, left_out = _parts(predictor, index, progress)
    index, linked = _grouped(predictor, index, learnt, progress)
    seen = np.isin(parts, ["train", "val"]) | linked
    if seen.any() and not include_learnt:
        left_out.append(f"{int(seen.sum())} images, or others of the same steel, served to train or tune it")
    tuning_rows, counted_rows = _halves(index, parts, linked, include_learnt, seed)
    tuning = _pick(predictor, index, tuning_rows, min(_TUNING, images), seed, left_out)
    counted = _pick(predictor, index, counted_rows, images, seed, left_out)
    if not counted:
        raise DataError(f"no image is left to measure ({'; '.join(left_out[:3]) or 'the data set is empty'})")
    kinds = {"masks" if index[p.row].mask else "boxes" for p in (*tuning, *counted) if p.truth is not None}
    on_file = " and ".join(sorted(kinds, reverse=True))
    chosen_on = f"{sum(p.truth is not None for p in tuning)} other images of {index.spec.name} with {on_file}"

    # Maps, rules and metrics
    rows: list[tuple[Any, ...]] = []
    rules: dict[str, RegionRule] = {}
    seconds: dict[str, float] = {}
    compared: dict[str, list[npt.NDArray[np.float32]]] = {}
    common = next(_same_shape(counted))[:_AGREEMENT]
    for done, method in enumerate(names):
        progress("measuring explanations", done, len(names))
        info = EXPLAINERS[method].info
        most = max(_FEWEST, _MAP_BUDGET // _cost(info))
        few = tuning[:most] or counted[:most]
        explained = partial(_explained, predictor, method=method, seed=seed)
        tried = in_parallel(explained, _batches(predictor, few, info), predictor.device)
        maps = [shown for case in tried for shown in case.evidence]
        truths = [p.truth for some in _same_shape(few) for p in some] if tuning else [None] * len(few)
        rules[method] = choose_rule(maps, truths, chosen_on)
        measured = partial(_measured, predictor, method=method, seed=seed, rule=rules[method])
        kept: dict[int, npt.NDArray[np.float32]] = {}
        spent = 0.0
        for batch in in_parallel(measured, _batches(predictor, counted[:most], info), predictor.device):
            rows += batch.rows
            kept |= batch.evidence
            spent += batch.seconds
        seconds[method] = spent / len(kept)
        compared[method] = [kept[p.row] for p in common if p.row in kept]
        report(f"{method}: {len(kept)} images, {seconds[method]:.3f} s a map, {rules[method].words}")
    progress("measuring explanations", len(names), len(names))

    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return QualityReport(
        index.spec.name,
        on_file,
        names,
        len(counted),
        table.dropna(subset="value").reset_index(drop=True),
        _agreement(compared, common, seed),
        rules,
        seconds,
        tuple(left_out),
    )


def summarised(rows: pd.DataFrame, by_class: bool = False) -> pd.DataFrame:
    """Means and intervals of `QualityReport.rows`; see `QualityReport.summary`."""
    weights = _Weights()
    keys = ["method", "metric", *(["class"] if by_class else [])]
    table = []
    for key, some in rows.groupby(keys, sort=False):
        metric = METRICS[str(key[1])]
        found = weights.mean(some["value"].to_numpy(), some["group"], metric.bounded)
        by_chance = float(some["chance"].mean())
        lift = found.value / by_chance if found.value is not None and by_chance > 0 else float("nan")
        table.append((*key[:2], key[2] if by_class else "", *found[:4], lift))
    columns = ["method", "metric", "class", "value", "low", "high", "n", "lift"]
    return pd.DataFrame(table, columns=columns)


def with_controls(methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods, all if None, with the controls behind them.

    Raises:
        UsageError: a name is unknown.
    """
    wanted = dict.fromkeys(EXPLAINERS if methods is None else methods)
    controls = [name for name in EXPLAINERS if EXPLAINERS[name].info.control]
    return (*(name for name in wanted if not EXPLAINERS[name].info.control), *controls)


def store(name_or_path: str | Path, found: QualityReport) -> None:
    """Write figures and rules into the card, beside those of other data sets, and the value of each image beside it.

    The checkpoint's hash changes with its card.

    A rule chosen on masks is not replaced by one chosen on boxes, which are coarser, or on nothing.
    """

    def changed(card: dict[str, Any]) -> dict[str, Any]:
        rules = {method: rule.to_json() for method, rule in found.rules.items()}
        fixed = {m: rule for m, rule in card.get("regions", {}).items() if "masks" in rule["chosen_on"]}
        regions = card.get("regions", {}) | rules | (fixed if "masks" not in found.evidence else {})
        return {"quality": card.get("quality", {}) | {found.data: found.to_json()}, "regions": regions}

    update_card(name_or_path, changed)
    folder = list_checkpoints().get(str(name_or_path), Path(name_or_path))
    write_bytes(_rows_file(folder, found.data), gzip.compress(found.rows.to_csv(index=False).encode(), mtime=0))


def stored_rows(folder: Path, data: str) -> pd.DataFrame:
    """The value of each image, as in `QualityReport.rows`; empty where none were stored with the checkpoint.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = _rows_file(folder, data)
    if not path.is_file():
        return pd.DataFrame(columns=list(_COLUMNS))
    try:
        return pd.read_csv(path, dtype={"group": str}, keep_default_na=True)[list(_COLUMNS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: the measured values in {path.name} are damaged") from error


def _rows_file(folder: Path, data: str) -> Path:
    return folder / f"quality-{re.sub(r'[^A-Za-z0-9_-]+', '-', data)}.csv.gz"


def trust(predictor: Predictor, image: SteelImage, found: Attribution) -> Trust:
    """How far one map can be trusted, against what the card stores for its method.

    It takes some ten forward passes, and one more map where that is quick.

    Raises:
        UsageError: the method is unknown.
    """
    info = EXPLAINERS[found.method].info
    grid, _ = predictor.card.preprocessing.to_grid(image)
    picked = _Picked(0, image.name, grid, predictor.classes.index(found.target), None, "")
    layer = {"layer": found.layer} if found.layer else {}
    case = _case(predictor, [picked], EXPLAINERS[found.method](**found.parameters, **layer), found.seed or 0, found)
    quick = _cost(info) <= _QUICK
    road = float(METRICS["road"].measure(case)[0])
    change = float(METRICS["noise-change"].measure(case)[0]) if quick else float("nan")
    stored = _yardstick(predictor.card.quality)
    quantiles = stored.get("quantiles", {})
    likeness = stored.get("methods", {}).get(found.method, {}).get("randomised-model", {})
    rule = predictor.card.regions.get(found.method)
    area = inside = None
    if rule:
        shown = evidence(found)
        mask = region_mask(shown, RegionRule(**rule))
        positive = np.maximum(shown, 0)
        area = float(mask.mean())
        inside = float(positive[mask].sum() / positive.sum()) if positive.any() else 0.0
    return Trust(
        faithfulness=road,
        percentile=_share_below(quantiles.get(found.method, {}).get("road"), road),
        beats_random=_share_below(quantiles.get("random", {}).get("road"), road),
        change=None if np.isnan(change) else change,
        area=area,
        inside=inside,
        explains_model=explains_model(likeness.get("low"), likeness.get("high")),
    )


def _parts(predictor: Predictor, index: DatasetIndex, progress: Progress) -> tuple[npt.NDArray[np.object_], list[str]]:
    """(N,) the part of the checkpoint's split each image served in, "unreadable" where it is refused, else ""."""
    parts, problems = np.full(len(index), "", dtype=object), []
    for i in range(len(index)):
        progress("reading images", i, len(index))
        try:
            parts[i] = predictor.card.part_of(index.image(i).sha256)
        except ImageError as error:
            parts[i] = "unreadable"
            problems.append(str(error))
    progress("reading images", len(index), len(index))
    return parts, problems


def _grouped(
    predictor: Predictor, index: DatasetIndex, learnt: DatasetIndex | None, progress: Progress
) -> tuple[DatasetIndex, npt.NDArray[np.bool_]]:
    """The data set with groups of near-duplicates, and (N,) which images show steel that the checkpoint learnt from."""
    n = len(index)
    linked = np.zeros(n, dtype=np.bool_)
    pairs = None
    if learnt is not None:
        served = [i for i, part in enumerate(_parts(predictor, learnt, progress)[0]) if part in ("train", "val")]
        both = [index, learnt.select(rows=served)]
        root = Path(os.path.commonpath([one.root for one in both]))
        paths = [(one.root / path).relative_to(root).as_posix() for one in both for path in one.table["path"]]
        joint = DatasetIndex.build(root, index.spec, pd.DataFrame({"path": paths}))
        pairs = near_duplicate_pairs(joint, progress)
        linked[pairs["first"][(pairs["first"] < n) & (pairs["second"] >= n)]] = True
        pairs = pairs[pairs["second"] < n]
    if (index.table["group"] == "").any():
        index = index.with_groups(near_duplicate_groups(index, progress, pairs))
    return index, linked


def _halves(
    index: DatasetIndex,
    parts: npt.NDArray[np.object_],
    linked: npt.NDArray[np.bool_],
    include_learnt: bool,
    seed: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows to choose the rule for regions on, and rows to count, of different groups."""
    groups = index.table["group"].to_numpy()
    readable = parts != "unreadable"
    usable = readable & (include_learnt | ~(np.isin(parts, ["train", "val"]) | linked))
    tuning = readable & (parts == "val")
    if not tuning.any() and usable.any():
        names = np.random.default_rng(seed).permutation(np.unique(groups[usable].astype(str)))
        tuning = usable & np.isin(groups.astype(str), names[: len(names) // 2])
    return np.flatnonzero(tuning), np.flatnonzero(usable & ~np.isin(groups.astype(str), groups[tuning].astype(str)))


def _pick(
    predictor: Predictor,
    index: DatasetIndex,
    rows: npt.NDArray[np.intp],
    count: int,
    seed: int,
    left_out: list[str],
) -> list[_Picked]:
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
            truth = _truth(index, i, label, image, grid.shape)
        except DataError as error:
            left_out.append(f"{error} The image counts without it.")
            truth = None
        picked.append(_Picked(i, sample.path.name, grid, predictor.classes.index(label), truth, sample.group))
    return picked


def _truth(index: DatasetIndex, i: int, label: str, image: SteelImage, shape: tuple[int, ...]) -> Mask | None:
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


def _same_shape(picked: Sequence[_Picked]) -> Iterator[list[_Picked]]:
    """The images of each size of grid, as one batch can hold them, the most frequent size first."""
    by_shape: dict[tuple[int, ...], list[_Picked]] = {}
    for one in picked:
        by_shape.setdefault(one.grid.shape, []).append(one)
    yield from sorted(by_shape.values(), key=len, reverse=True)


class _Batch(NamedTuple):
    before: int  # images in the batches before it
    picked: list[_Picked]


def _batches(predictor: Predictor, picked: Sequence[_Picked], info: ExplainerInfo) -> Iterator[_Batch]:
    """Images of one size each, few enough for the device; one each for a method that fills batches with its samples."""
    size = batch_size(predictor.device) if _cost(info) <= _QUICK else 1
    before = 0
    for alike in _same_shape(picked):
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            yield _Batch(before, some)
            before += len(some)


def _explained(predictor: Predictor, batch: _Batch, method: str, seed: int) -> Case:
    return _case(predictor, batch.picked, EXPLAINERS[method](), seed)


class _Measured(NamedTuple):
    rows: list[tuple[Any, ...]]  # as in `QualityReport.rows`
    evidence: dict[int, npt.NDArray[np.float32]]  # by row of the data set
    seconds: float  # for the maps alone


def _measured(predictor: Predictor, batch: _Batch, method: str, seed: int, rule: RegionRule) -> _Measured:
    """Every metric of a batch's maps, as far as the metric's limit goes."""
    started = time.perf_counter()
    case = replace(_explained(predictor, batch, method, seed), rule=rule, number=batch.before,
                   forward=predictor.forward)  # fmt: skip
    seconds = time.perf_counter() - started
    limits = {name: max(0, _limit(METRICS[name], case.explainer.info) - batch.before) for name in METRICS}
    firsts = {limit: case.first(limit) for limit in set(limits.values())}  # metrics share what they make of a case
    rows = []
    for name, limit in limits.items():
        if len(some := firsts[limit]):
            rows += _rows(predictor, method, name, some, batch.picked)
    return _Measured(rows, dict(zip((p.row for p in batch.picked), case.evidence, strict=True)), seconds)


def _case(
    predictor: Predictor, picked: Sequence[_Picked], explainer: Explainer, seed: int, made: Attribution | None = None
) -> Case:
    """Images of one size explained for their targets, unless the map was made before."""
    inputs = predictor._inputs([p.grid for p in picked])
    targets = torch.tensor([p.target for p in picked], device=predictor.device)
    name = next((n for n, title in predictor.backgrounds.items() if made and made.baseline == title), "")
    _, background = predictor._compared_with(name, picked[0].grid.shape, explainer.info.needs)
    weights = None
    if made is not None and made.against:
        weights = torch.zeros(1, len(predictor.classes), device=predictor.device)
        weights[0, predictor.classes.index(made.target)] = 1
        weights[0, predictor.classes.index(made.against)] = -1
    values = (
        attribute(explainer, predictor.model, inputs, targets, background, seed) if made is None else made.values[None]
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


def _rows(predictor: Predictor, method: str, name: str, case: Case, picked: Sequence[_Picked]) -> list[tuple[Any, ...]]:
    metric = METRICS[name]
    values = metric.measure(case)
    nothing = np.full(len(case), np.nan)
    known = np.array([truth is not None for truth in case.truth])
    chance = metric.chance(case) if metric.chance and known.any() else nothing
    return [
        (p.file, p.row, predictor.classes[p.target], p.group, method, name, float(value), float(c))
        for p, value, c in zip(picked, values, chance, strict=False)
    ]


def _cost(info: ExplainerInfo) -> int:
    """What one map costs, in forward passes: a backward pass takes as long as two."""
    return max(1, info.forward + 2 * info.backward)


def _limit(metric: Metric, info: ExplainerInfo) -> int:
    """On how many images a metric is measured."""
    if not metric.maps:
        return _MAP_BUDGET
    most = _RANDOMISED if metric.family == "randomisation" else _MORE_BUDGET
    return max(_FEWEST, min(most, _MORE_BUDGET // (_cost(info) * metric.maps)))


def _agreement(
    compared: Mapping[str, list[npt.NDArray[np.float32]]], common: Sequence[_Picked], seed: int
) -> pd.DataFrame:
    """One row for each image and two methods, on the images that all of them explained."""
    least = min(len(maps) for maps in compared.values())
    table = []
    for (a, b), (alike, iou) in agreement({m: np.stack(maps[:least]) for m, maps in compared.items()}, seed).items():
        table += [
            (p.file, p.group, a, b, float(rank), float(both))
            for p, rank, both in zip(common[:least], alike, iou, strict=True)
        ]
    return pd.DataFrame(table, columns=["file", "group", "a", "b", "spearman", "top_iou"])


class _Weights:
    """Bootstrap weights of groups, drawn once for each set of images."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Weights] = {}

    def mean(self, values: Weights, groups: pd.Series, bounded: bool) -> Figure:
        """The mean of values (N,) with its 95 % interval, the basic one of a bootstrap over groups."""
        names = tuple(groups)
        if names not in self._known:
            weights = group_weights(names)
            self._known[names] = weights / weights.sum(axis=1, keepdims=True)
        effective = effective_observations(np.array(names))
        value = float(values.mean())
        resampled = self._known[names] @ values
        if bounded:
            return Figure(value, *basic(value, resampled, effective), len(values), effective)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Figure(value, 2 * value - float(high), 2 * value - float(low), len(values), effective)


def _yardstick(quality: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `trust` compares with: figures on masks before others, on more images before fewer."""
    return max(quality.values(), key=lambda one: ("masks" in one.get("evidence", ""), one["images"]), default={})


def _share_below(quantiles: Sequence[float] | None, value: float) -> float | None:
    """Share of a stored distribution that lies below a value, by its quantiles at equal steps."""
    if not quantiles:
        return None
    return float(np.searchsorted(quantiles, value) / len(quantiles))


def explains_model(low: float | None, high: float | None) -> bool | None:
    """Whether maps change when the model forgets, by the interval of their likeness; None where it leaves that open."""
    if low is None or high is None:
        return None
    if high < SURVIVES:
        return True
    return False if low >= SURVIVES else None


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
