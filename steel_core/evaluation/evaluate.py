"""Evaluate a checkpoint on a data set: judge every image once, keep what was said, count any part of it.

`evaluate` predicts and returns an `Evaluation`; `stored_evaluation` does so once for a checkpoint and a data set, and
loads it from then on. All figures come from the evaluation's table, so a page never runs the network again. Long strips
and large pictures are judged as everywhere, by `strips.judge`: what is counted is the verdict that an inspector gets.

Legend: N images, K classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steel_core import metrics
from steel_core.data.index import DatasetIndex
from steel_core.data.manifest import escape_formula
from steel_core.data.quality.properties import PROPERTIES, properties
from steel_core.device import batch_size
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import judge
from steel_core.metrics import multi_label
from steel_core.metrics.decisions import decide
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.metrics.segments import weak_segments
from steel_core.models.checkpoint import Card
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, DEFECT, REFER, UNFAMILIAR, Prediction, SteelImage

PARTS = ("held-out", "train", "val", "test", "all")
"""Which images count: "held-out" served neither to train nor to choose anything; "all" is every image."""

_FORMAT = 4  # raised whenever what is stored, or how a picture is judged, becomes another; 4: strips without black ends
_CHUNK = 128
_PIXELS = 100_000_000  # of the pictures of a chunk together, about
_TEXTS = dict.fromkeys(("file", "image_sha256", "label", "pred", "outcome", "group", "seen", "split", "note"), str)
_UNTOLD = "this checkpoint does not tell which images it learnt from: some of these may be among them"


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
        head: "softmax" or "sigmoid".
        temperature: of the probabilities.
        thresholds: of the outcomes.
        part: which images these are.
        checkpoint: name of the checkpoint.
        checkpoint_hash: hash of its weights and card.
        model: hash of all that decides the logits, see `model_key`.
        data: title of the data set.
        data_key: see `data_key`.
        left_out: sentences about images that are not in the table or do not count.
        unreadable: how many could not be read.
        multi_label: whether several classes can be in one image, see `metrics.multi_label`.
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
    def labels(self) -> npt.NDArray[np.int64]:
        """Number of each image's true class (N,); -1 where it has none, several, or one that is not known.

        For a multi-label checkpoint ask `targets` for the truth, and `verdict_labels` for that of the verdict.
        """
        return pd.Index(list(self.classes)).get_indexer(pd.Index(self.table["label"])).astype(np.int64)

    @cached_property
    def targets(self) -> npt.NDArray[np.float64]:
        """Whether each class is in each image (N, K): 1, 0, or NaN where that is not known."""
        return multi_label.targets(list(self.table["label"]), self.classes)

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether figures can count the image: its truth is known in the words of the checkpoint."""
        return np.asarray(~np.isnan(self.targets).any(axis=1) if self.multi_label else self.labels >= 0)

    @cached_property
    def named(self) -> npt.NDArray[np.bool_]:
        """Whether a multi-label checkpoint names each class (N, K)."""
        return multi_label.named(self.probs, self.classes, self.thresholds)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What a verdict can be besides "refer" and "unfamiliar" (V): a class, or "clear" and "defect"."""
        return multi_label.VERDICTS if self.multi_label else self.classes

    @cached_property
    def verdict_labels(self) -> npt.NDArray[np.int64]:
        """Number of the verdict that would be right for each image (N,); -1 where that is not known."""
        if not self.multi_label:
            return self.labels
        return np.where(self.known, self.targets.any(axis=1), -1).astype(np.int64)

    @cached_property
    def verdict_probs(self) -> npt.NDArray[np.float64]:
        """Probability of each verdict (N, V)."""
        return multi_label.verdict_probs(self.probs) if self.multi_label else self.probs

    @cached_property
    def probs(self) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N, K)."""
        return self.table[[f"p.{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def logits(self) -> npt.NDArray[np.float64]:
        """Logits (N, K), before temperature."""
        return self.table[[f"z.{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
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
        return self._keep(self.known)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a threshold decides on the image: not on a blank or an unfamiliar one, which gets no verdict."""
        return (self.table["judgeable"] & ~(self.table["strangeness"] > 1)).to_numpy(dtype=bool)

    @property
    def in_tiles(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the image was judged tile by tile, and so by its worst tile."""
        known = "tiles" in self.table  # a baseline does not look in tiles
        return (self.table["tiles"] > 1).to_numpy(dtype=bool) if known else np.zeros(len(self), dtype=bool)

    @cached_property
    def report(self) -> metrics.EvaluationReport | MultiLabelReport:
        """The figures, with intervals.

        Raises:
            DataError: no image has a label that the checkpoint knows.
        """
        counted = self.labelled
        if not len(counted):
            raise DataError(self._nothing_to_count())
        groups = list(counted.groups)
        if self.multi_label:
            said = counted.table["outcome"].to_numpy(object)
            return multi_label.evaluate(counted.probs, counted.targets, self.classes, counted.named, said, groups)
        return metrics.evaluate(counted.probs, counted.labels, self.classes, groups)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest class is not the true one (N,); False where the truth is unknown.

        For a multi-label checkpoint, whether the named classes are not the true ones, all of them and no other.
        """
        if self.multi_label:
            return (self.named != (self.targets > 0)).any(axis=1) & self.known
        return (self.probs.argmax(axis=1) != self.labels) & self.known

    def top_losses(self, most: int | None = None) -> pd.DataFrame:
        """The labelled images by falling loss; those of a gallery and of triage."""
        found = self.labelled.table.sort_values("loss", ascending=False, kind="stable")
        return found if most is None else found.head(most)

    def confusion(self, outcomes: bool = False) -> pd.DataFrame:
        """The cells of the confusion matrix, see `metrics.confusion_table`; with `outcomes`, "refer" too.

        For a multi-label checkpoint that of the verdicts, always with outcomes; between its classes there is none.
        """
        counted, outcomes = self.labelled, outcomes or self.multi_label
        columns = [*self.verdicts, REFER, UNFAMILIAR] if outcomes else list(self.classes)
        said = counted.table["outcome" if outcomes else "pred"]
        truth = [self.verdicts[k] for k in counted.verdict_labels]
        return metrics.confusion_table(truth, list(said), self.verdicts, columns, list(counted.groups))

    def per_class(self) -> dict[str, dict[str, metrics.Figure]]:
        """Recall, precision, F1, AUC and average precision of each class, see `metrics.per_class`."""
        counted = self.labelled
        if not len(counted):
            raise DataError(self._nothing_to_count())
        if isinstance(self.report, MultiLabelReport):
            return self.report.per_class
        return metrics.per_class(counted.probs, counted.labels, self.classes, list(counted.groups))

    def segments(self) -> pd.DataFrame:
        """Where the model errs more than elsewhere, see `metrics.segments.weak_segments`.

        Looks at every property in the table, the true label and, where there is one, the group.
        """
        counted = self.labelled
        looked_at = [name for name in (*PROPERTIES, "label", "group") if name in counted.table]
        return weak_segments(counted.wrong, counted.table[looked_at], list(counted.groups))

    def select(self, part: str) -> Evaluation:
        """The images of one part.

        Raises:
            UsageError: the part is unknown, or images of it were not predicted here.
        """
        _check_part(part)
        if part == self.part:
            return self
        if self.part != "all":
            raise UsageError(f"only the part {self.part} was evaluated; evaluate all images to see {part}")
        seen, split = self.table["seen"], self.table["split"]
        if part != "held-out":
            return dataclasses.replace(self._keep((split == part).to_numpy()), part=part)
        learnt = seen.isin(["train", "val"]).to_numpy()
        found = dataclasses.replace(self._keep(~learnt), part=part)
        return dataclasses.replace(found, left_out=(*found.left_out, *_learnt(int(learnt.sum()))))

    def under(self, card: Card | None = None, thresholds: Mapping[str, float] | None = None) -> Evaluation:
        """The same logits read with another temperature and other thresholds: those of a card, or thresholds alone."""
        temperature = card.temperature if card else self.temperature
        lines = dict(thresholds if thresholds is not None else card.thresholds if card else self.thresholds)
        probs = metrics.probabilities(self.logits, self.head, temperature)
        said = (multi_label.outcomes if self.multi_label else decide)(probs, self.classes, lines)
        outcome = np.where(self.table["strangeness"] > 1, UNFAMILIAR, said)
        table = self.table.assign(
            outcome=np.where(self.table["judgeable"], outcome, REFER),
            confidence=probs.max(axis=1),
            loss=metrics.losses(self.logits, self._truth, self.head, temperature),
            **({"named": _named(probs, self.classes, lines)} if self.multi_label else {}),
            **{f"p.{name}": probs[:, k] for k, name in enumerate(self.classes)},
        )
        return dataclasses.replace(self, table=table, temperature=temperature, thresholds=lines)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the figures must know about the images, one sentence each."""
        counted, truth = self.known, self.table["label"]
        says = []
        present = {name for label in truth[counted].unique() for name in label.split("|")}
        if not counted.any():
            says.append(self._nothing_to_count())
        elif missing := [name for name in self.classes if name not in present]:
            says.append(f"No image of {', '.join(missing)}: nothing can be said about recall there.")
        if learnt := int(self.table["seen"].isin(["train", "val"]).sum()):
            says.append(f"{learnt} of these images served to train or tune this checkpoint: the figures flatter it.")
        foreign = sorted(
            {name for label in truth[~counted].unique() for name in label.split("|")} - {*self.classes, ""}
        )
        elsewhere = ~counted & np.array([not set(foreign).isdisjoint(label.split("|")) for label in truth], dtype=bool)
        if foreign:
            says.append(
                f"The labels {', '.join(foreign)} are unknown to this checkpoint, which knows "
                f"{', '.join(self.classes)}: {_images(int(elsewhere.sum()), 'is', 'are')} shown, but not counted."
            )
        if not self.multi_label and (several := int(truth.str.contains("|", regex=False).sum())):
            says.append(f"{_images(several, 'has', 'have')} several labels: shown, but not counted.")
        if in_tiles := int(self.in_tiles.sum()):
            long = _images(in_tiles, "is a long strip or", "are long strips or")
            says.append(f"{long} very large: judged tile by tile, by the worst tile.")
        if unlabelled := int((truth == "").sum()):
            says.append(f"{_images(unlabelled, 'has', 'have')} no label: shown, but not counted.")
        if 0 < counted.sum() < metrics.FEW:
            labelled = _images(int(counted.sum()), "has", "have")
            says.append(f"Only {labelled} a label that counts: the intervals are wide, and the figures say little.")
        if counted.any() and not self.grouped:
            says.append("Near-duplicates were not looked for: the intervals may be too narrow.")
        return tuple(says)

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
        """The table for a spreadsheet; no cell of it is run as a formula."""
        return spreadsheet(self.table)

    def save(self, folder: Path) -> Path:
        """Store it as Parquet in `folder`, whole or not at all, and return the file.

        Raises:
            UsageError: the folder cannot be written to.
        """
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "table"} | {
            "format": _FORMAT
        }
        stored = pa.Table.from_pandas(self.table, preserve_index=False)
        stored = stored.replace_schema_metadata(
            {**(stored.schema.metadata or {}), b"steel": json.dumps(facts).encode()}
        )
        sink = io.BytesIO()
        pq.write_table(stored, sink, compression="zstd")
        path = folder / stored_name(self.model, self.data_key, self.part)
        write_bytes(path, sink.getvalue())
        return path

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """What `save` stored.

        Raises:
            DataError: there is no such file, or it is damaged or of another version.
        """
        try:
            stored = pq.read_table(path)
            facts = json.loads((stored.schema.metadata or {})[b"steel"])
            if facts.pop("format") != _FORMAT:
                raise DataError(f"{path.name}: this evaluation was stored by another version; evaluate again")
            lists = {name: tuple(facts[name]) for name in ("classes", "left_out")}
            return cls(table=stored.to_pandas(), **facts | lists)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path.name}: expected a stored evaluation; it is missing or damaged") from error

    @property
    def _truth(self) -> npt.NDArray[Any]:
        return self.targets if self.multi_label else self.labels

    def _keep(self, rows: npt.NDArray[np.bool_]) -> Evaluation:
        return self if rows.all() else dataclasses.replace(self, table=self.table[rows].reset_index(drop=True))

    def _nothing_to_count(self) -> str:
        if not len(self.table):
            return f"no image is left to evaluate ({'; '.join(self.left_out[:3]) or f'part {self.part} is empty'})"
        labels = sorted(set(self.table["label"]) - {""})
        if not labels:
            return "no image has a label, so nothing can be counted; what the model said is shown"
        return _foreign(labels, self.classes)


def evaluate(
    predictor: Predictor, index: DatasetIndex, part: str = "held-out", progress: Progress = no_progress
) -> Evaluation:
    """Judge the images of a part. Threads decode them; memory is bounded.

    Args:
        predictor: the checkpoint.
        index: the data set. A binary checkpoint (clear, defect) sees its defect types as one class.
        part: "held-out" counts the images that served neither to train nor to choose anything, known by the hash of
            their bytes; "train", "val" and "test" the parts of the checkpoint's own split, or the data set's where the
            checkpoint has not seen it; "all" counts everything.
        progress: called with images done and their number.

    Returns:
        Unreadable images are left out and named; images without a usable label are predicted and not counted.

    Raises:
        UsageError: `part` is unknown.
        DataError: no image is left.
    """
    _check_part(part)
    index = in_words_of(index, predictor.classes)
    kept: list[tuple[int, str]] = []
    said: list[tuple[Prediction, int]] = []
    left_out: list[str] = []
    learnt = done = 0
    for chunk in _decoded(index, max(_CHUNK, 2 * batch_size(predictor.device))):
        wanted: list[SteelImage] = []
        for row, image in chunk:
            if isinstance(image, str):
                left_out.append(image)
                continue
            seen = predictor.card.part_of(image.sha256)
            if part == "held-out" and seen in ("train", "val"):
                learnt += 1
            elif part in ("held-out", "all") or part == (seen or index.table["split"].iat[row]):
                wanted.append(image)
                kept.append((row, seen))
        said += [(judged.verdict, len(judged.tiles)) for judged in judge(predictor, wanted)]
        done += len(chunk)
        progress("evaluating", done, len(index))
    remarks = [*left_out, *_learnt(learnt), *_untold(predictor.card)]
    found = _evaluation(predictor, index, part, kept, said, remarks, len(left_out))
    if not len(found):
        raise DataError(found._nothing_to_count())
    return found


def stored_evaluation(
    predictor: Predictor,
    index: DatasetIndex,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """The evaluation of all images, with their properties: loaded where it was made before, else made and stored.

    It is found by what decides the logits and by the files, so new thresholds need no new run: stored logits are read
    with the temperature, the thresholds and the split of the predictor's card. Choose images with `Evaluation.select`.
    Only where strips were judged in tiles a new temperature needs one, because it can make another tile the worst.

    Args:
        predictor: the checkpoint.
        index: the data set.
        folder: where evaluations are kept; in the user's cache if None.
        progress: called with images done and their number, where there is work to do.

    Raises:
        DataError: no image can be read.
    """
    folder = folder or _kept()
    if known := find_evaluation(predictor, index, folder):
        return known
    index = in_words_of(index, predictor.classes)
    found = evaluate(predictor, index, "all", progress)
    measured = properties(index).iloc[found.table["row"]].reset_index(drop=True)
    found = dataclasses.replace(found, table=pd.concat([found.table, measured], axis=1))
    with suppress(UsageError):  # a cache that cannot be written only costs time
        found.save(folder)
    return found


def find_evaluation(
    predictor: Predictor, index: DatasetIndex, folder: Path | None = None, key: str = ""
) -> Evaluation | None:
    """What `stored_evaluation` would load, with the same arguments; None where it would have to work.

    `key` is the `data_key` of the index in the words of the predictor, for those who have asked for it just now.
    """
    index = in_words_of(index, predictor.classes)
    key = key or data_key(index)
    try:
        found = Evaluation.load((folder or _kept()) / stored_name(model_key(predictor.card), key, "all"))
    except DataError:
        return None
    card = predictor.card
    if found.in_tiles.any() and found.temperature != card.temperature:
        return None
    seen = np.array([card.part_of(sha256) for sha256 in found.table["image_sha256"]], dtype=object)
    found = found.under(card)
    return dataclasses.replace(
        found,
        table=found.table.assign(**_parts(seen, index.table.iloc[found.table["row"]])).astype(_TEXTS),
        checkpoint=card.name,
        checkpoint_hash=predictor.hash,
        left_out=(*(said for said in found.left_out if said != _UNTOLD), *_untold(card)),
    )


def model_key(card: Card) -> str:
    """Hash of everything about a checkpoint that decides logits and familiarity; thresholds and notes do not count."""
    familiarity = getattr(card, "familiarity", {})
    parts = [card.weights_sha256, card.backbone, card.head, card.classes, card.input_size, card.mean, card.std,
             familiarity.get("sha256", "")] + (["multi-label"] if card.multi_label else [])  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def data_key(index: DatasetIndex) -> str:
    """Hash of an index and of its files' places, sizes and times: changes when any of them does."""
    digest = hashlib.sha256(f"{index.root}\0{index.hash}".encode())
    for path in index.table["path"]:
        with suppress(OSError):
            state = os.stat(index.root / path)  # noqa: PTH116 - a Path's costs twice the time
            digest.update(f"{state.st_mtime_ns}:{state.st_size};".encode())
    return digest.hexdigest()


def stored_name(model: str, data: str, part: str) -> str:
    """Base name of the file of a stored evaluation."""
    return f"{model[:24]}-{data[:24]}-{part}.parquet"


def in_words_of(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint: defect types are one class for one that tells clear from defect."""
    return index.binary() if set(classes) == {CLEAR, DEFECT} and not set(index.classes) <= set(classes) else index


def match_classes(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint's classes, for work that needs every label.

    Raises:
        DataError: it holds labels that the checkpoint does not know.
    """
    index = in_words_of(index, classes)
    if unknown := sorted(set(index.classes) - set(classes)):
        raise DataError(_foreign(unknown, classes))
    return index


def spreadsheet(table: pd.DataFrame) -> str:
    """A table as CSV in which no cell is run as a formula (OWASP, CSV Injection)."""
    texts = table.select_dtypes(include=["object", "str"]).columns
    safe = table.assign(**{name: table[name].map(lambda cell: escape_formula(str(cell))) for name in texts})
    return str(safe.rename(columns=escape_formula).to_csv(index=False))


def _kept() -> Path:
    return cache_folder() / "evaluations"


def _decoded(index: DatasetIndex, most: int) -> Iterator[list[tuple[int, SteelImage | str]]]:
    """Row and picture, or row and why it is refused, in chunks of `most` images, or of fewer that hold many pixels.

    Threads decode a few pictures ahead of what is asked for, however large they are.
    """
    workers = min(8, os.cpu_count() or 1)
    rows, begun = iter(range(len(index))), deque[Future[tuple[int, SteelImage | str]]]()

    def read(row: int) -> tuple[int, SteelImage | str]:
        try:
            return row, index.image(row)
        except ImageError as error:
            return row, str(error)

    with ThreadPoolExecutor(workers) as pool:
        while True:
            found: list[tuple[int, SteelImage | str]] = []
            pixels = 0
            while len(found) < most and pixels < _PIXELS:
                begun.extend(pool.submit(read, row) for row in islice(rows, 2 * workers - len(begun)))
                if not begun:
                    break
                row, image = begun.popleft().result()
                found.append((row, image))
                pixels += image.height * image.width if isinstance(image, SteelImage) else 0
            if not found:
                return
            yield found


def _evaluation(
    predictor: Predictor,
    index: DatasetIndex,
    part: str,
    kept: list[tuple[int, str]],
    said: list[tuple[Prediction, int]],
    left_out: list[str],
    unreadable: int,
) -> Evaluation:
    card, predictions = predictor.card, [prediction for prediction, _ in said]
    rows = [row for row, _ in kept]
    about = index.table.iloc[rows]
    seen = np.array([part_ for _, part_ in kept], dtype=object)
    logits = np.array([p.logits for p in predictions], dtype=np.float64).reshape(-1, len(card.classes))
    probs = np.array([list(p.probs.values()) for p in predictions]).reshape(logits.shape)
    table = pd.DataFrame({
        "row": np.array(rows, dtype=np.int64),
        "file": about["path"].to_numpy(),
        "image_sha256": [p.image_sha256 for p in predictions],
        "label": about["labels"].to_numpy(),
        "pred": [p.pred for p in predictions],
        "outcome": [p.outcome for p in predictions],
        "confidence": probs.max(axis=1) if len(probs) else np.zeros(0),
        "loss": np.nan,
        "group": about["group"].to_numpy(),
        **_parts(seen, about),
        "judgeable": [p.judgeable for p in predictions],
        "strangeness": np.array([np.nan if p.strangeness is None else p.strangeness for p in predictions], np.float64),
        "note": [p.note for p in predictions],
        "tiles": np.array([tiles for _, tiles in said], dtype=np.int64),
        **({"named": _named(probs, card.classes, card.thresholds)} if card.multi_label else {}),
        **{f"p.{name}": probs[:, k] for k, name in enumerate(card.classes)},
        **{f"z.{name}": logits[:, k] for k, name in enumerate(card.classes)},
    })  # fmt: skip
    table = table.astype(_TEXTS)
    found = Evaluation(
        table=table, classes=card.classes, head=card.head, temperature=card.temperature,
        thresholds=dict(card.thresholds), part=part, checkpoint=card.name, checkpoint_hash=predictor.hash,
        model=model_key(card), data=index.spec.title, data_key=data_key(index), left_out=tuple(left_out),
        unreadable=unreadable, multi_label=card.multi_label,
    )  # fmt: skip
    table["loss"] = metrics.losses(logits, found._truth, card.head, card.temperature)
    return found


def _named(probs: npt.NDArray[np.float64], classes: Sequence[str], thresholds: Mapping[str, float]) -> list[str]:
    """The classes that reach their thresholds, as a cell of the table for each image."""
    named = multi_label.named(probs, classes, thresholds)
    return ["|".join(name for name, there in zip(classes, row, strict=True) if there) for row in named]


def _foreign(labels: Sequence[str], classes: Sequence[str]) -> str:
    return f"the data set's labels {', '.join(labels)} are unknown to this checkpoint, which knows {', '.join(classes)}"


def _check_part(part: str) -> None:
    if part not in PARTS:
        raise UsageError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")


def _parts(seen: npt.NDArray[Any], about: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """The columns "seen" and "split" of images, from the parts of the card and the rows of the data set."""
    return {"seen": seen, "split": np.where(seen != "", seen, about["split"].to_numpy(dtype=object))}


def _untold(card: Card) -> list[str]:
    return [] if card.split.get("files") else [_UNTOLD]


def _images(n: int, one: str, several: str) -> str:
    """So many images with the verb of a sentence."""
    return f"{n:,} image {one}" if n == 1 else f"{n:,} images {several}"


def _learnt(n: int) -> list[str]:
    return [f"{_images(n, 'served', 'served')} to train or tune this checkpoint: not counted"] if n else []
