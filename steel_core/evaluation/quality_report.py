"""How good explanations are on a data set: a row for each image, method and metric, and their means."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

import steel_core
from steel_core.explain.quality.base import METRICS
from steel_core.explain.quality.randomisation import explains_model
from steel_core.metrics.intervals import Estimate, basic_interval, effective_observations, group_weights
from steel_core.models.card import QualityTable, RegionRule
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

    def summary(self, by_class: bool = False) -> pd.DataFrame:
        """One row for each method and metric, and for each class if `by_class`.

        Columns: method, metric, class ("" for all), value (the mean), low, high (95 %, over groups), n, lift.
        """
        return summarise_rows(self.rows, by_class)

    def disagreement(self) -> pd.DataFrame:
        """One row for each two methods, a and b: means of spearman and top_iou, with _low and _high, and n."""
        weights = _GroupBootstrap()
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
                estimate = Estimate(line["value"], line["low"], line["high"], line["n"], line["n"])
                lines.append(f"  {line['method']:22}{estimate}{lift}")
        forgetful = summary[summary["metric"] == "randomised-model"].to_dict("records")
        if survive := [line["method"] for line in forgetful if explains_model(line["low"], line["high"]) is False]:
            lines.append(f"\nDo not explain this model (the map survives its randomisation): {', '.join(survive)}")
        return "\n".join(lines)

    def card_table(self) -> QualityTable:
        """What a card stores: estimates with intervals, quantiles for `trust.measure_trust`, agreement."""
        methods: dict[str, dict[str, Any]] = {method: {} for method in self.methods}
        for line in self.summary().to_dict("records"):
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

    def to_json(self) -> dict[str, Any]:
        """`card_table`, as `json` can write it."""
        return self.card_table().to_json()


def summarise_rows(rows: pd.DataFrame, by_class: bool = False) -> pd.DataFrame:
    """Means and intervals of `QualityReport.rows`; see `QualityReport.summary`."""
    weights = _GroupBootstrap()
    keys = ["method", "metric", *(["class"] if by_class else [])]
    table = []
    for key, some in rows.groupby(keys, sort=False):
        metric = METRICS[str(key[1])]
        estimate = weights.mean(some["value"].to_numpy(), some["group"], metric.bounded)
        by_chance = float(some["chance"].mean())
        lift = estimate.value / by_chance if estimate.value is not None and by_chance > 0 else float("nan")
        table.append((*key[:2], key[2] if by_class else "", *estimate[:4], lift))
    columns = ["method", "metric", "class", "value", "low", "high", "n", "lift"]
    return pd.DataFrame(table, columns=columns)


class _GroupBootstrap:
    """Bootstrap weights of groups, drawn once for each set of images."""

    def __init__(self) -> None:
        self._weights: dict[tuple[str, ...], Float64Array] = {}

    def mean(self, values: Float64Array, groups: pd.Series, bounded: bool) -> Estimate:
        """The mean of values (N,) with its 95 % interval, the basic one of a bootstrap over groups."""
        names = tuple(groups)
        if names not in self._weights:
            weights = group_weights(names)
            self._weights[names] = weights / weights.sum(axis=1, keepdims=True)
        effective = effective_observations(np.array(names))
        value = float(values.mean())
        resampled = self._weights[names] @ values
        if bounded:
            return Estimate(value, *basic_interval(value, resampled, effective), len(values), effective)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Estimate(value, 2 * value - float(high), 2 * value - float(low), len(values), effective)


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
