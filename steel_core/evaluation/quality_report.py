"""How good explanations are on a data set: a row for each image, method and metric, and their means.

A checkpoint keeps the means in its card, and the value of each image in a file beside it.
"""

import gzip
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steel_core
from steel_core.errors import CheckpointError
from steel_core.explain.quality.base import METRICS
from steel_core.explain.quality.randomisation import explains_model
from steel_core.files import write_bytes
from steel_core.metrics.intervals import Estimate, basic_interval, effective_observations, group_weights
from steel_core.models.card import Card, QualityTable, RegionRule
from steel_core.models.checkpoint import list_checkpoints, update_card
from steel_core.types import Float64Array

_QUANTILES = np.linspace(0, 1, 21)

COLUMNS = ("file", "row", "class", "group", "method", "metric", "value", "chance")


@dataclass(frozen=True)
class QualityReport:
    """How good the explanations of one checkpoint are on one data set.

    Attributes:
        evidence: "masks", "boxes", "masks and boxes", or "" where nothing is on file.
        rows: one row for each image, method and metric: file, row (in the data set), class, group, method, metric,
            value, chance (what a map that knows nothing would reach, or NaN).
        agreement: one row for each image and two methods: file, group, a, b, spearman, top_iou.
        seconds: time for one map of each method, on one core of a CPU while the others made other maps.
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

    def disagreement(self) -> pd.DataFrame:
        """One row for each two methods, a and b: means of spearman and top_iou, with _low and _high, and n."""
        drawn: dict[tuple[str, ...], Float64Array] = {}
        table = []
        for (a, b), some in self.agreement.groupby(["a", "b"], sort=False):
            alike = _estimate_mean(some["spearman"].to_numpy(), some["group"], False, drawn)
            common = _estimate_mean(some["top_iou"].to_numpy(), some["group"], True, drawn)
            table.append((a, b, *alike[:3], *common[:3], alike.n))
        names = ("spearman", "top_iou")
        ends = [name + end for name in names for end in ("", "_low", "_high")]
        return pd.DataFrame(table, columns=["a", "b", *ends, "n"])

    def table(self) -> str:
        """The figures with their intervals for people: a block for each metric, a line for each method."""
        summary = summarise_rows(self.rows)
        lines = [f"{self.data}: {self.n} images, {self.evidence or 'no masks or boxes'} on file"]
        for name, some in summary.groupby("metric", sort=False):
            metric = METRICS[str(name)]
            lines.append(f"\n{metric.title} ({metric.family}; {'more' if metric.higher else 'less'} is better)")
            for line in some.sort_values("value", ascending=not metric.higher).to_dict("records"):
                lift = "" if np.isnan(line["lift"]) else f", {line['lift']:.1f} times chance"
                estimate = Estimate(line["value"], line["low"], line["high"], line["n"], line["n"])
                lines.append(f"  {line['method']:22}{estimate}{lift}")
        forgetful = summary[summary["metric"] == "randomised-model"].to_dict("records")
        if survive := [line["method"] for line in forgetful if explains_model(line["low"], line["high"]) is False]:
            lines.append(f"\nDo not explain this model (the map survives its randomisation): {', '.join(survive)}")
        return "\n".join(lines)

    def card_table(self) -> QualityTable:
        """What a card stores: estimates with intervals, quantiles for `trust.measure_trust`, agreement."""
        methods: dict[str, dict[str, Any]] = {method: {} for method in self.methods}
        for line in summarise_rows(self.rows).to_dict("records"):
            cells = {name: _rounded(line[name]) for name in ("value", "low", "high", "lift")}
            methods[line["method"]][line["metric"]] = cells | {"n": int(line["n"])}
        some_rows = self.rows[self.rows["metric"].isin(["road", "noise-change"])]
        quantiles: dict[str, dict[str, list[float]]] = {method: {} for method in self.methods}
        for (method, metric), some in some_rows.groupby(["method", "metric"]):
            quantiles[str(method)][str(metric)] = [round(float(q), 5) for q in np.quantile(some["value"], _QUANTILES)]
        return QualityTable.from_json({
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
        })  # fmt: skip


def summarise_rows(rows: pd.DataFrame, by_class: bool = False) -> pd.DataFrame:
    """Means of `QualityReport.rows`: one row for each method and metric, and for each class if `by_class`.

    Columns: method, metric, class ("" for all), value (the mean), low, high (95 %, over groups), n, lift.
    """
    drawn: dict[tuple[str, ...], Float64Array] = {}
    keys = ["method", "metric", *(["class"] if by_class else [])]
    table = []
    for key, some in rows.groupby(keys, sort=False):
        metric = METRICS[str(key[1])]
        estimate = _estimate_mean(some["value"].to_numpy(), some["group"], metric.bounded, drawn)
        by_chance = float(some["chance"].mean())
        lift = estimate.value / by_chance if estimate.value is not None and by_chance > 0 else float("nan")
        table.append((*key[:2], key[2] if by_class else "", *estimate[:4], lift))
    return pd.DataFrame(table, columns=["method", "metric", "class", "value", "low", "high", "n", "lift"])


def store_quality(name_or_path: str | Path, report: QualityReport) -> None:
    """Write figures and rules into the card, beside those of other data sets, and the value of each image beside it.

    The checkpoint's hash changes with its card. A rule chosen on masks is not replaced by one chosen on less.
    """

    def change(card: Card) -> dict[str, Any]:
        fixed = {m: rule for m, rule in card.regions.items() if "masks" in rule.chosen_on}
        regions = card.regions | report.rules | (fixed if "masks" not in report.evidence else {})
        return {"quality": card.quality | {report.data: report.card_table()}, "regions": regions}

    update_card(name_or_path, change)
    folder = list_checkpoints().get(str(name_or_path), Path(name_or_path))
    write_bytes(_rows_file(folder, report.data), gzip.compress(report.rows.to_csv(index=False).encode(), mtime=0))


def load_quality_rows(folder: Path, data: str) -> pd.DataFrame:
    """The value of each image, as in `QualityReport.rows`: none where none were stored; CheckpointError if damaged."""
    path = _rows_file(folder, data)
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        return pd.read_csv(path, dtype={"group": str}, keep_default_na=True)[list(COLUMNS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: the measured values in {path.name} are damaged") from error


def _estimate_mean(
    values: Float64Array, groups: pd.Series, bounded: bool, drawn: dict[tuple[str, ...], Float64Array]
) -> Estimate:
    """The mean of values (N,) with its basic bootstrap interval; `drawn` keeps the weights of each set of images."""
    names = tuple(groups)
    if names not in drawn:
        weights = group_weights(names)
        drawn[names] = weights / weights.sum(axis=1, keepdims=True)
    effective = effective_observations(np.array(names))
    value = float(values.mean())
    resampled = drawn[names] @ values
    if bounded:
        return Estimate(value, *basic_interval(value, resampled, effective), len(values), effective)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value, 2 * value - float(high), 2 * value - float(low), len(values), effective)


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _rows_file(folder: Path, data: str) -> Path:
    return folder / f"quality-{re.sub(r'[^A-Za-z0-9_-]+', '-', data)}.csv.gz"
