"""Two checkpoints on the same images: which is better, by how much, and on which images they disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.evaluation import Evaluation
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import effective_observations
from steel_core.metrics.paired import McNemar, mcnemar, paired_estimates
from steel_core.progress import Progress, no_progress, within

PairedEstimates = Callable[..., pd.DataFrame]
"""Takes and returns what `metrics.paired.paired_estimates` does."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """How checkpoint b differs from checkpoint a on the images that both were evaluated on.

    Attributes:
        effective: the independent observations among them (Kish).
        mcnemar: images that only one of the two names rightly, with exact p.
        disagreements: images that the two name differently, the surest first; what each said ends in _a and _b.
    """

    a: str
    b: str
    part: str
    n: int
    effective: float
    estimates: pd.DataFrame
    mcnemar: McNemar
    disagreements: pd.DataFrame
    left_out: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Which is better by macro recall or mean average precision, in one sentence, or that they cannot be told."""
        of = next(name for name in ("macro_recall", "mean_average_precision") if name in set(self.estimates["figure"]))
        row = self.estimates.set_index("figure").loc[of]
        low, high, gap = (float(str(row[name])) for name in ("low", "high", "difference"))
        if low > 0 or high < 0:
            better, worse = (self.b, self.a) if low > 0 else (self.a, self.b)
            return f"{better} has the higher {of.replace('_', ' ')}, by {abs(gap):.3f} over {worse} (n = {self.n})."
        return (
            f"These {self.n} images cannot tell the two apart: the difference lies between {low:+.3f} and {high:+.3f}."
        )

    def to_json(self) -> dict[str, Any]:
        figures = self.estimates.astype(object).where(self.estimates.notna(), None)
        return {
            **{name: getattr(self, name) for name in ("a", "b", "part", "n", "effective", "verdict")},
            "figures": {row.pop("figure"): row for row in figures.to_dict("records")},
            "mcnemar": self.mcnemar._asdict(),
            "disagreements": self.disagreements.to_dict("records"),
            "left_out": list(self.left_out),
        }


def compare(a: Evaluation, b: Evaluation, seed: int = 0, paired: PairedEstimates = paired_estimates) -> Comparison:
    """Compare two evaluations of one part on the labelled images (by the hash of their bytes) that both hold.

    Multi-label checkpoints are right, or say the same, where all the classes they name are. Near-duplicates count as
    one observation, in the groups of `a`. The classes of `b` may stand in another order. To count once and keep the
    result, `paired` may be `store.cached_paired_estimates`.

    Raises:
        DataError: the classes differ, or no image is in both; or only one checkpoint is multi-label.
    """
    if a.multi_label != b.multi_label:
        one, other = (a, b) if a.multi_label else (b, a)
        raise DataError(
            f"expected two checkpoints of one kind; {one.checkpoint} names several classes an image, "
            f"{other.checkpoint} one"
        )
    if set(a.classes) != set(b.classes):
        raise DataError(
            f"expected two checkpoints with the same classes; {a.checkpoint} knows {', '.join(a.classes)}, "
            f"{b.checkpoint} knows {', '.join(b.classes)}"
        )
    tables = [each.labelled.table.assign(wrong=each.labelled.wrong).drop_duplicates("image_sha256") for each in (a, b)]
    both = tables[0].assign(name=_names(a)).merge(tables[1], on="image_sha256", suffixes=("_a", "_b"))
    both = both[both["label_a"] == both["label_b"]].reset_index(drop=True)
    if both.empty:
        raise DataError("no image with the same label was given to both checkpoints; evaluate them on the same images")
    shared = replace(a, table=both.rename(columns={"label_a": "label"}))
    probs_a, probs_b = (both[[f"p.{c}{end}" for c in a.classes]].to_numpy(np.float64) for end in ("_a", "_b"))
    groups = list(both["name"])
    wrong_a, wrong_b = (both[f"wrong{end}"].to_numpy(dtype=bool) for end in ("_a", "_b"))
    named = "named" if a.multi_label else "pred"
    differ = both[both[f"{named}_a"] != both[f"{named}_b"]]
    differ = differ.iloc[np.argsort(-differ[["confidence_a", "confidence_b"]].min(axis=1).to_numpy(), kind="stable")]
    columns = dict.fromkeys(("pred", named, "outcome", "confidence", "loss"))
    sides = [f"{name}{end}" for end in ("_a", "_b") for name in columns]
    shown = differ.rename(columns={"file_a": "file", "label_a": "label"})[["file", "image_sha256", "label", *sides]]
    alone = [len(table) - len(both) for table in tables]
    return Comparison(
        a=a.checkpoint,
        b=b.checkpoint,
        part=a.part,
        n=len(both),
        effective=effective_observations(np.asarray(groups)),
        estimates=paired(probs_a, probs_b, shared.targets if a.multi_label else shared.labels, groups, seed),
        mcnemar=mcnemar(~wrong_a, ~wrong_b, groups),
        disagreements=shown.reset_index(drop=True),
        left_out=tuple(
            f"{n} images were evaluated with {name} alone, or labelled otherwise, and are not compared"
            for n, name in zip(alone, (a.checkpoint, b.checkpoint), strict=True)
            if n
        ),
    )


def compare_checkpoints(
    a: Predictor, b: Predictor, index: DatasetIndex, part: str = "held-out", progress: Progress = no_progress
) -> Comparison:
    """Evaluate both and compare. "held-out" leaves what either has learnt from: only what both have not seen counts."""
    first = evaluate(a, index, part, within(progress, a.card.name))
    return compare(first, evaluate(b, index, part, within(progress, b.card.name)))


def _names(evaluation: Evaluation) -> pd.Series[str]:
    counted = evaluation.labelled
    return pd.Series(counted.groups, index=counted.table.index).loc[counted.table.drop_duplicates("image_sha256").index]
