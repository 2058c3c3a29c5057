"""What a checkpoint says of the images of a data set, and the estimates that follow (N images, K classes)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.properties import PROPERTIES
from steel_core.data.readers.manifest import escape_formula
from steel_core.errors import DataError, UsageError
from steel_core.metrics import multi_label
from steel_core.metrics.decisions import decide_outcomes
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.metrics.segments import weak_segments
from steel_core.models.card import Card
from steel_core.types import CLEAR, DEFECT, REFER, UNFAMILIAR, AnyArray, BoolArray, Float64Array, Int64Array, StrArray

PARTS = ("held-out", "train", "val", "test", "all")
"""Which images count: "held-out" served neither to train nor to choose anything; "all" is every image."""

TEXT_COLUMNS = dict.fromkeys(
    ("file", "image_sha256", "label", "pred", "outcome", "group", "seen", "split", "note"), str
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a checkpoint said of the images of a data set, and the figures that follow from it.

    Attributes:
        table: one row an image. row (in the data set's index), file (relative path), image_sha256, label (the truth,
            "|" between several, "" if none), pred, outcome, confidence (calibrated, of pred), loss (NaN without a known
            label), group, seen (the part of the checkpoint's own data that held this image, or ""), split (that part,
            else the data set's), judgeable (False for blank pictures and such), strangeness (NaN if the checkpoint
            cannot tell), note, tiles (how many the image was judged in: 1, or those of a strip); for a multi-label
            checkpoint named (its classes that reach their thresholds, "|" between several); then p.CLASS, the
            calibrated probabilities, and z.CLASS, the logits; then any `PROPERTIES`.
        classes: the checkpoint's, in the order of the logits.
        left_out: sentences about images that are not in the table or do not count.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    head: str
    temperature: float
    thresholds: dict[str, float]
    part: str
    checkpoint: str
    checkpoint_hash: str
    model: str
    data: str
    data_key: str
    left_out: tuple[str, ...] = ()
    unreadable: int = 0
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def labels(self) -> Int64Array:
        """Number of each image's true class (N,); -1 where it has none, several, or an unknown one; see `targets`."""
        return pd.Index(list(self.classes)).get_indexer(pd.Index(self.table["label"])).astype(np.int64)

    @cached_property
    def targets(self) -> Float64Array:
        """Whether each class is in each image (N, K): 1, 0, or NaN where that is not known."""
        return multi_label.encode_targets(list(self.table["label"]), self.classes)

    @cached_property
    def has_truth(self) -> BoolArray:
        """(N,) whether figures can count the image: its truth is known in the words of the checkpoint."""
        return np.asarray(~np.isnan(self.targets).any(axis=1) if self.multi_label else self.labels >= 0)

    @cached_property
    def named(self) -> BoolArray:
        """Whether a multi-label checkpoint names each class (N, K)."""
        return multi_label.named_types(self.probs, self.classes, self.thresholds)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What a verdict can be besides "refer" and "unfamiliar" (V): a class, or "clear" and "defect"."""
        return multi_label.VERDICTS if self.multi_label else self.classes

    @cached_property
    def verdict_labels(self) -> Int64Array:
        """Number of the verdict that would be right for each image (N,); -1 where that is not known."""
        if not self.multi_label:
            return self.labels
        return np.where(self.has_truth, self.targets.any(axis=1), -1).astype(np.int64)

    @cached_property
    def verdict_probs(self) -> Float64Array:
        """Probability of each verdict (N, V)."""
        return multi_label.verdict_probs(self.probs) if self.multi_label else self.probs

    @cached_property
    def probs(self) -> Float64Array:
        """Calibrated probabilities (N, K)."""
        return self.table[[f"p.{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def logits(self) -> Float64Array:
        """Logits (N, K), before temperature."""
        return self.table[[f"z.{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def groups(self) -> StrArray:
        """Name of each image's group of near-duplicates (N,); an image without one is a group of its own."""
        alone = "row " + self.table["row"].astype(str)
        return self.table["group"].where(self.table["group"] != "", alone).to_numpy(dtype=str)

    @property
    def grouped(self) -> bool:
        """Whether near-duplicates are known, and count as one observation in the intervals."""
        return bool((self.table["group"] != "").any())

    @cached_property
    def labelled(self) -> Evaluation:
        """The images whose truth the checkpoint has words for: those that figures can count."""
        return self._keep(self.has_truth)

    @property
    def decidable(self) -> BoolArray:
        """(N,) whether a threshold decides on the image: not on a blank or an unfamiliar one, which gets no verdict."""
        return (self.table["judgeable"] & ~(self.table["strangeness"] > 1)).to_numpy(dtype=bool)

    @property
    def tiled(self) -> BoolArray:
        """(N,) whether the image was judged tile by tile, and so by its worst tile."""
        tiled = "tiles" in self.table  # a baseline does not look in tiles
        return (self.table["tiles"] > 1).to_numpy(dtype=bool) if tiled else np.zeros(len(self), dtype=bool)

    @cached_property
    def report(self) -> metrics.EvaluationReport | MultiLabelReport:
        """The figures, with intervals; DataError where no image has a label that the checkpoint knows."""
        counted = self.labelled
        if not len(counted):
            raise DataError(self.why_nothing_counts())
        groups = list(counted.groups)
        if self.multi_label:
            outcomes = counted.table["outcome"].to_numpy(object)
            return multi_label.evaluate(counted.probs, counted.targets, self.classes, counted.named, outcomes, groups)
        return metrics.evaluate(counted.probs, counted.labels, self.classes, groups)

    @property
    def wrong(self) -> BoolArray:
        """Whether the likeliest class is not the true one (N,); False where the truth is unknown.

        For a multi-label checkpoint, whether the named classes are not the true ones, all of them and no other.
        """
        if self.multi_label:
            return (self.named != (self.targets > 0)).any(axis=1) & self.has_truth
        return (self.probs.argmax(axis=1) != self.labels) & self.has_truth

    def top_losses(self, most: int | None = None) -> pd.DataFrame:
        table = self.labelled.table.sort_values("loss", ascending=False, kind="stable")
        return table if most is None else table.head(most)

    def confusion(self, outcomes: bool = False) -> pd.DataFrame:
        """The cells of the confusion matrix, see `metrics.confusion_table`; with `outcomes`, "refer" too.

        For a multi-label checkpoint that of the verdicts, always with outcomes; between its classes there is none.
        """
        counted, outcomes = self.labelled, outcomes or self.multi_label
        columns = [*self.verdicts, REFER, UNFAMILIAR] if outcomes else list(self.classes)
        answers = counted.table["outcome" if outcomes else "pred"]
        truth = [self.verdicts[k] for k in counted.verdict_labels]
        return metrics.confusion_table(truth, list(answers), self.verdicts, columns, list(counted.groups))

    def per_class(self) -> dict[str, dict[str, metrics.Estimate]]:
        """Recall, precision, F1, AUC and average precision of each class, see `metrics.per_class_estimates`."""
        if isinstance(self.report, MultiLabelReport):
            return self.report.per_class
        counted = self.labelled
        return metrics.per_class_estimates(counted.probs, counted.labels, self.classes, list(counted.groups))

    def segments(self) -> pd.DataFrame:
        """Where the model errs more than elsewhere, by properties, label and group; see `weak_segments`."""
        counted = self.labelled
        columns = [name for name in (*PROPERTIES, "label", "group") if name in counted.table]
        return weak_segments(counted.wrong, counted.table[columns], list(counted.groups))

    def select(self, part: str) -> Evaluation:
        """The images of one part; UsageError where it is unknown, or images of it were not predicted here."""
        check_part(part)
        if part == self.part:
            return self
        if self.part != "all":
            raise UsageError(f"only the part {self.part} was evaluated; evaluate all images to see {part}")
        seen, split = self.table["seen"], self.table["split"]
        if part != "held-out":
            return dataclasses.replace(self._keep((split == part).to_numpy()), part=part)
        learnt = seen.isin(["train", "val"]).to_numpy()
        held_out = dataclasses.replace(self._keep(~learnt), part=part)
        return dataclasses.replace(held_out, left_out=(*held_out.left_out, *learnt_sentences(int(learnt.sum()))))

    def under(self, card: Card | None = None, thresholds: Mapping[str, float] | None = None) -> Evaluation:
        """The same logits read with another temperature and other thresholds: those of a card, or thresholds alone."""
        temperature = card.temperature if card else self.temperature
        lines = dict(thresholds if thresholds is not None else card.thresholds if card else self.thresholds)
        probs = metrics.logits_to_probabilities(self.logits, self.head, temperature)
        outcome = (multi_label.decide_outcomes if self.multi_label else decide_outcomes)(probs, self.classes, lines)
        outcome = np.where(self.table["strangeness"] > 1, UNFAMILIAR, outcome)
        table = self.table.assign(
            outcome=np.where(self.table["judgeable"], outcome, REFER),
            confidence=probs.max(axis=1),
            loss=metrics.log_losses(self.logits, self.truth, self.head, temperature),
            **({"named": join_named(probs, self.classes, lines)} if self.multi_label else {}),
            **{f"p.{name}": probs[:, k] for k, name in enumerate(self.classes)},
        )
        return dataclasses.replace(self, table=table, temperature=temperature, thresholds=lines)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the figures must know about the images, one sentence each."""
        counted, truth = self.has_truth, self.table["label"]
        sentences = []
        present = {name for label in truth[counted].unique() for name in label.split("|")}
        if not counted.any():
            sentences.append(self.why_nothing_counts())
        elif missing := [name for name in self.classes if name not in present]:
            sentences.append(f"No image of {', '.join(missing)}: nothing can be said about recall there.")
        if learnt := int(self.table["seen"].isin(["train", "val"]).sum()):
            sentences.append(
                f"{learnt} of these images served to train or tune this checkpoint: the figures flatter it."
            )
        foreign = sorted(
            {name for label in truth[~counted].unique() for name in label.split("|")} - {*self.classes, ""}
        )
        elsewhere = ~counted & np.array([not set(foreign).isdisjoint(label.split("|")) for label in truth], dtype=bool)
        if foreign:
            sentences.append(
                f"The labels {', '.join(foreign)} are unknown to this checkpoint, which knows "
                f"{', '.join(self.classes)}: {_count_images(int(elsewhere.sum()), 'is', 'are')} shown, but not counted."
            )
        if not self.multi_label and (several := int(truth.str.contains("|", regex=False).sum())):
            sentences.append(f"{_count_images(several, 'has', 'have')} several labels: shown, but not counted.")
        if in_tiles := int(self.tiled.sum()):
            long = _count_images(in_tiles, "is a long strip or", "are long strips or")
            sentences.append(f"{long} very large: judged tile by tile, by the worst tile.")
        if unlabelled := int((truth == "").sum()):
            sentences.append(f"{_count_images(unlabelled, 'has', 'have')} no label: shown, but not counted.")
        if 0 < counted.sum() < metrics.FEW:
            labelled = _count_images(int(counted.sum()), "has", "have")
            sentences.append(
                f"Only {labelled} a label that counts: the intervals are wide, and the figures say little."
            )
        if counted.any() and not self.grouped:
            sentences.append("Near-duplicates were not looked for: the intervals may be too narrow.")
        return tuple(sentences)

    def to_json(self) -> dict[str, Any]:
        """The figures where images can be counted, what the model said, and what was left out."""
        return {
            **(self.report.to_json() if len(self.labelled) else {}),
            "part": self.part,
            "images": len(self),
            "outcomes": self.table["outcome"].value_counts().to_dict(),
            "checkpoint": self.checkpoint,
            "checkpoint_hash": self.checkpoint_hash,
            "near_duplicates": "count as one" if self.grouped else "not looked for: intervals may be too narrow",
            "left_out": list(self.left_out),
            "remarks": list(self.remarks),
        }

    def to_csv(self) -> str:
        """The table; no cell of it is run as a formula."""
        return table_to_csv(self.table)

    @property
    def truth(self) -> AnyArray:
        """`targets` of a multi-label checkpoint, `labels` of any other."""
        return self.targets if self.multi_label else self.labels

    def _keep(self, rows: BoolArray) -> Evaluation:
        return self if rows.all() else dataclasses.replace(self, table=self.table[rows].reset_index(drop=True))

    def why_nothing_counts(self) -> str:
        if not len(self.table):
            return f"no image is left to evaluate ({'; '.join(self.left_out[:3]) or f'part {self.part} is empty'})"
        labels = sorted(set(self.table["label"]) - {""})
        if not labels:
            return "no image has a label, so nothing can be counted; what the model said is shown"
        return describe_unknown_labels(labels, self.classes)


def map_labels(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint: defect types are one class for one that tells clear from defect."""
    return index.binary() if set(classes) == {CLEAR, DEFECT} and not set(index.classes) <= set(classes) else index


def match_classes(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint; DataError where it holds labels that the checkpoint does not know."""
    index = map_labels(index, classes)
    if unknown := sorted(set(index.classes) - set(classes)):
        raise DataError(describe_unknown_labels(unknown, classes))
    return index


def describe_unknown_labels(labels: Sequence[str], classes: Sequence[str]) -> str:
    return f"the data set's labels {', '.join(labels)} are unknown to this checkpoint, which knows {', '.join(classes)}"


def table_to_csv(table: pd.DataFrame) -> str:
    """A table as CSV in which no cell is run as a formula (OWASP, CSV Injection)."""
    texts = table.select_dtypes(include=["object", "string"]).columns
    safe = table.assign(**{name: table[name].map(lambda cell: escape_formula(str(cell))) for name in texts})
    return str(safe.rename(columns=escape_formula).to_csv(index=False))


def join_named(probs: Float64Array, classes: Sequence[str], thresholds: Mapping[str, float]) -> list[str]:
    """The classes that reach their thresholds, as a cell of the table for each image."""
    named = multi_label.named_types(probs, classes, thresholds)
    return ["|".join(name for name, there in zip(classes, row, strict=True) if there) for row in named]


def check_part(part: str) -> None:
    """Raise UsageError where a part is none of `PARTS`."""
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")


def _count_images(n: int, one: str, several: str) -> str:
    return f"{n:,} image {one}" if n == 1 else f"{n:,} images {several}"


def learnt_sentences(n: int) -> list[str]:
    """That n images were left out because the checkpoint has learnt from them; nothing for none."""
    return [f"{_count_images(n, 'served', 'served')} to train or tune this checkpoint: not counted"] if n else []


def part_columns(seen: AnyArray, about: pd.DataFrame) -> dict[str, AnyArray]:
    """The columns "seen" and "split" of images, from the parts of the card and the rows of the data set."""
    return {"seen": seen, "split": np.where(seen != "", seen, about["split"].to_numpy(dtype=object))}
