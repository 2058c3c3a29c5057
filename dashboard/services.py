"""The only caller of the library: what pages may ask for, cached, and nothing of how it looks.

Caches are bounded. What comes from a visitor's own images is cached for that visitor's session only and goes with it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image
from streamlit.runtime.uploaded_file_manager import UploadedFile

from steel_core import audit_report, plots, render, report
from steel_core.audit.bench import BenchRow, SmallestFlip, bench, smallest_flip
from steel_core.audit.sheets import defect_mask
from steel_core.audit_report import Pair, audit_html
from steel_core.data.describe import describe
from steel_core.data.index import DatasetIndex, find_datasets, open_dataset
from steel_core.data.manifest import escape_formula
from steel_core.data.pixels import FORMATS, MAX_BYTES, MAX_PIXELS, read_image
from steel_core.errors import DataError, ImageError, SteelError, UsageError
from steel_core.evaluation_report import evaluation_html, evaluation_plots
from steel_core.explain.base import EXPLAINERS, ExplainerInfo
from steel_core.explain.quality.base import FAMILIES, METRICS, Metric
from steel_core.explain.regions import Region, RegionRule, region
from steel_core.inference import Predictor, evidence
from steel_core.metrics import Figure, curves, decisions, most_confused
from steel_core.metrics.decisions import Costs
from steel_core.models.checkpoint import ASSETS, CARD, list_checkpoints
from steel_core.perturb.methods.white_stain import TEXTURES, WhiteStain
from steel_core.perturb.patch import LARGEST_AREA
from steel_core.perturb.stencil import SHAPES
from steel_core.recipes import quality
from steel_core.recipes.audit import AUDITS, audit
from steel_core.recipes.compare import Comparison, compare
from steel_core.recipes.evaluate import PARTS, Evaluation, data_key, find_evaluation, stored_evaluation
from steel_core.recipes.thresholds import Choice, propose_thresholds, save_thresholds
from steel_core.store.audits import AuditRun, AuditStore, new_name
from steel_core.store.triage import FINDINGS, Triage, TriageStore
from steel_core.types import CLEAR, Attribution, Prediction, SteelImage

if TYPE_CHECKING:
    import plotly.graph_objects as go

T = TypeVar("T")

Read = Callable[[], SteelImage]
"""Gives a decoded image."""

CAUTION = report.CAUTION

Trust = quality.Trust

LIMITS = f"{', '.join(FORMATS)}; up to {MAX_PIXELS // 10**6} megapixels and {MAX_BYTES // 10**6} MB each"
"""What an image may be, in words."""

MAPS = ("grad-cam", "guided-grad-cam", "shap")
"""The explainers that Inspect shows, cheap ones first."""

TARGETS = {"accuracy": 0.98, "macro_recall": 0.99, "auc": 0.99, "ece": 0.03}
"""What we ask of a model before its verdicts are used; an upper limit for `ece`, lower limits for the others."""

MOST_FILES = 100
"""How many images one visitor may have looked at together."""

_SHIPPED = ASSETS / "demo"
_PREVIEW, _THUMBNAIL = 800, 240
_QUICK = 8  # forward and backward passes: a map of so few is made while the page is drawn
_PASS = 0.015  # seconds a pass, until one was measured here
_FORGOTTEN = 15.0  # seconds after which a map that no page asks for is given up


@dataclass(frozen=True)
class Source:
    """An image that can be inspected. Its bytes are read when they are needed, and not kept.

    Attributes:
        name: base name of the file.
        key: changes whenever the content does.
        origin: a file of a data set, or what a visitor uploaded.
        labels: what it shows, where that is known.
        licence: what its licence allows, where the image may not be passed on.
    """

    name: str
    key: str
    origin: Path | UploadedFile
    labels: tuple[str, ...] = ()
    licence: str = ""

    def read(self) -> SteelImage:
        """The decoded image.

        Raises:
            ImageError: it is refused.
        """
        if isinstance(self.origin, Path):
            return read_image(self.origin)
        return read_image(self.origin.getvalue(), name=self.name)


@dataclass(frozen=True, slots=True)
class Look:
    """What a page shows of one image at first sight.

    Attributes:
        prediction: what the model says.
        height: of the image, in pixels.
        width: of the image, in pixels.
        preview: JPEG of at most 800 pixels a side.
        part: the part of the model's data that held this very image ("train", "val", "test"), or "".
    """

    prediction: Prediction
    height: int
    width: int
    preview: bytes
    part: str

    def picture(self) -> SteelImage:
        """The preview, decoded, to draw maps on."""
        pixels = np.asarray(Image.open(io.BytesIO(self.preview)))
        return SteelImage(pixels, self.prediction.name, self.prediction.image_sha256)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an image was not read, in one sentence."""

    sentence: str


# Models ---------------------------------------------------------------------------------------------------------------


def models() -> dict[str, Path]:
    """Name and folder of every model that can be chosen, the shipped ones first."""
    return list_checkpoints()


def predictor(name: str) -> Predictor:
    """The model of that name, loaded once for all sessions; anew where its files have changed.

    Raises:
        CheckpointError: it is not there or damaged.
    """
    folder = models().get(name)
    return _predictor(name, _stamp(folder / CARD) if folder else 0)


@st.cache_resource(max_entries=4, show_spinner="Loading the model")
def _predictor(name: str, stamp: int) -> Predictor:  # noqa: ARG001 - part of the key
    return Predictor.load(name)


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Load the first model and let it work once, beside the first visit, so that the first verdict comes at once."""
    threading.Thread(target=_work_once, name="warm-up", daemon=True).start()


def _work_once() -> None:
    for name, folder in list(models().items())[:1]:
        try:
            model = Predictor.load(folder)
        except SteelError:
            return  # the page says so as soon as somebody chooses this model
        grey = SteelImage(np.full((200, 200), 128, np.uint8), name, "")
        model.predict([grey])
        model.explain(grey, "grad-cam", model.classes[0])


def cannot_clear(model: Predictor) -> bool:
    """Whether the model has no class for a sheet without defects."""
    return CLEAR not in model.classes


# Data sets ------------------------------------------------------------------------------------------------------------


def datasets() -> dict[str, Path]:
    """Name and folder of every data set: the shipped one, and what $STEEL_DATA points to (one, or a folder of them)."""
    mine = os.environ.get("STEEL_DATA")
    found: dict[str, Path] = {}
    for place in (_SHIPPED, *([Path(mine)] if mine else [])):
        for folder in _datasets_in(place.absolute(), _stamp(place)):
            found.setdefault(folder.name, folder)
    return found


@st.cache_data(max_entries=8, ttl=60, show_spinner=False)
def _datasets_in(place: Path, stamp: int) -> list[Path]:  # noqa: ARG001
    return find_datasets(place)


def dataset(name: str) -> DatasetIndex:
    """The index of the data set of that name.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    folder = datasets().get(name)
    if folder is None:
        raise DataError(f"data set {name!r}: expected one of {', '.join(datasets()) or 'none here'}")
    return _dataset(folder, _stamp(folder))


@st.cache_resource(max_entries=4, ttl=3600, show_spinner="Listing the data set")
def _dataset(folder: Path, stamp: int) -> DatasetIndex:  # noqa: ARG001
    return open_dataset(folder)


def described(index: DatasetIndex) -> dict[str, Any]:
    """Title, licence and counts of a data set."""
    return describe(index)


def filtered(index: DatasetIndex, label: str | None, split: str | None) -> DatasetIndex:
    """The samples with this label and of this split; None for any."""
    return index.select(label=label, split=split)


def sources(index: DatasetIndex, first: int = 0, count: int | None = None) -> list[tuple[str, Source]]:
    """Path within the data set, and source, of `count` samples from number `first` on."""
    rows = range(first, len(index) if count is None else min(first + count, len(index)))
    return [(str(index.table["path"].iat[i]), _source(index, i)) for i in rows]


def find(index: DatasetIndex, path: str) -> Source:
    """The sample with this path within the data set. The path is looked up in the index, never opened.

    Raises:
        DataError: there is no such sample.
    """
    rows = np.flatnonzero(index.table["path"] == path)
    if not len(rows):
        raise DataError(f"{index.spec.title} holds no image of this name: {Path(path).name[:80]}")
    return _source(index, int(rows[0]))


def _source(index: DatasetIndex, i: int) -> Source:
    sample = index[i]
    licence = "" if index.spec.redistributable else index.spec.licence
    return Source(sample.path.name, f"{sample.path}:{_stamp(sample.path)}", sample.path, sample.labels, licence)


def samples(count: int, model: Predictor | None = None) -> list[tuple[str, str, Source]]:
    """Shipped images to try, one a label: name of the data set, path within it, source.

    A sound sheet comes first; with a model that has no class for it, there is none.
    """
    shipped = _datasets_in(_SHIPPED.absolute(), _stamp(_SHIPPED))
    offered = shipped or list(datasets().values())[:1]
    found = []
    for folder in offered[:1]:
        index = _dataset(folder, _stamp(folder))
        table = index.table
        unseen = table[table["split"].isin(["test", ""])] if (table["split"] == "test").any() else table
        if model and cannot_clear(model):
            unseen = unseen[unseen["labels"] != CLEAR]
        by_label = unseen.drop_duplicates("labels").sort_values(
            "labels", kind="stable", key=lambda labels: labels != CLEAR
        )
        firsts = by_label.head(count)["path"]
        found = [(folder.name, path, find(index, path)) for path in firsts]
    return found


def some_images(name: str | None, count: int) -> dict[str, Source]:
    """Path and source of the first images of a data set; none without one."""
    return dict(sources(dataset(name), 0, count)) if name else {}


def uploaded(file: UploadedFile) -> Source:
    """A visitor's own image."""
    return Source(file.name, file.file_id, file)


# Verdicts and maps ----------------------------------------------------------------------------------------------------


def look(model: Predictor, source: Source) -> Look | Refused:
    """The verdict on one image, or why there is none."""
    return _look(model.hash, source.key, model, source)


@st.cache_data(max_entries=500, scope="session", show_spinner=False)
def _look(checkpoint: str, key: str, _model: Predictor, _source: Source) -> Look | Refused:  # noqa: ARG001
    return _first_look(_model, _source)


def _first_look(model: Predictor, source: Source) -> Look | Refused:
    try:
        image = source.read()
        prediction = model.predict([image])[0]
    except SteelError as error:
        return Refused(str(error))
    part = model.card.part_of(image.sha256)
    return Look(prediction, image.height, image.width, _jpeg(render.thumbnail(image, _PREVIEW)), part)


def small(seen: Look) -> bytes:
    """JPEG of an image's preview at the size of a table's row, made once."""
    return _small(seen.prediction.image_sha256, seen)


@st.cache_data(max_entries=1000, scope="session", show_spinner=False)
def _small(image_sha256: str, _seen: Look) -> bytes:  # noqa: ARG001
    picture = Image.open(io.BytesIO(_seen.preview))
    picture.thumbnail((96, 96))
    return _jpeg(np.asarray(picture))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One map that a page asks for.

    Attributes:
        method: name of an explainer.
        target: the class to explain.
        against: the class it is contrasted with, or "".
        layer: the layer to read, or "" for the model's own choice.
        background: name of the SHAP background, or "" for the model's own choice.
    """

    method: str
    target: str
    against: str = ""
    layer: str = ""
    background: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """How far a map has come.

    Attributes:
        found: the raw map, rough while it is being refined; None where there is none yet.
        done: whether it will not change any more.
        waiting: whether other maps must be finished before its turn.
    """

    found: Attribution | None
    done: bool
    waiting: bool = False


def methods() -> tuple[list[str], list[str]]:
    """The explainers that are made at once, and those that take their time; controls last, else cheap ones first."""
    named = sorted(EXPLAINERS, key=lambda name: (EXPLAINERS[name].info.control, _passes(name)))
    return [name for name in named if quick(name)], [name for name in named if not quick(name)]


def quick(name: str) -> bool:
    """Whether a method's map is made while the page is drawn."""
    return _passes(name) <= _QUICK


def likeliest(model: Predictor, seen: Look) -> tuple[str, str]:
    """The predicted class and the next one, or "" where there is no other."""
    ranked = sorted(model.classes, key=lambda name: -seen.prediction.probs[name])
    return ranked[0], ranked[1] if ranked[1:] else ""


def doubtful(model: Predictor, seen: Look) -> bool:
    """Whether the model stands between two classes, so that their contrast is the question to begin with."""
    return model.default_target(seen.prediction)[1] is not None


def layers(model: Predictor) -> dict[str, tuple[int, int]]:
    """The layers that Grad-CAM can read, with rows and columns of their grids; the model's own choice included."""
    return model.layers()


def usual_layer(model: Predictor) -> str:
    """The model's own choice among its layers: the last convolutional stage."""
    return model.model.config.cam_layer


def backgrounds(model: Predictor) -> dict[str, str]:
    """Name and title of what SHAP can compare with."""
    return model.backgrounds


def method(name: str) -> ExplainerInfo:
    """What an explainer is, in words."""
    return EXPLAINERS[name].info


def wanted(name: str, target: str, against: str = "", layer: str = "", background: str = "") -> Wanted:
    """A map of one method, with those of the settings that the method reads."""
    needs = EXPLAINERS[name].info.needs
    return Wanted(
        name,
        target,
        against if against != target else "",
        layer if "cam layer" in needs else "",
        background if "background" in needs else "",
    )


def explain(model: Predictor, seen: Look, read: Read, asked: Wanted, patience: float = 0.0) -> Made:
    """A raw map. One that takes long comes from a worker, step by step: ask again until it is done.

    Args:
        model: the model to explain.
        seen: the first look at the image.
        read: gives the decoded image; called only if the map is not cached, perhaps by a worker.
        asked: which map.
        patience: how long to wait for the first step of a worker, in seconds.

    Raises:
        SteelError: there is no such map of this image.
    """
    image_sha256 = seen.prediction.image_sha256
    if quick(asked.method):
        made = Made(_explain(model.hash, image_sha256, asked, model, read), True)
    else:
        made = Made(*_job(model.hash, image_sha256, asked, model, read).look(patience))
    if made.found and made.done:
        _seconds()[model.hash, asked.method] = made.found.seconds
    return made


@st.cache_data(max_entries=96, scope="session", show_spinner=False)
def _explain(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,
    _model: Predictor,
    _read: Read,
) -> Attribution:
    return _model.explain(_read(), asked.method, asked.target, **_settings(asked))


class _Job(Generic[T]):
    """Something that a worker makes, step by step, for as long as a page asks for it."""

    def __init__(self, steps: Callable[[], Iterable[T]]) -> None:
        self._steps = steps
        self._latest: T | None = None
        self._first = threading.Event()
        self._given_up = False
        self._asked = time.monotonic()
        self._future: Future[None] = _workers().submit(self._work)

    def look(self, patience: float) -> tuple[T | None, bool, bool]:
        """What there is after waiting up to `patience` seconds for a first step; whether it is done; whether it waits.

        Raises:
            SteelError: as the steps raised it.
        """
        self._asked = time.monotonic()
        if self._future.done() and self._given_up:
            self._given_up = False
            self._future = _workers().submit(self._work)
        self._first.wait(patience)
        done = self._future.done() and not self._given_up
        if done:
            self._future.result()  # raises what the worker met
        return self._latest, done, not done and not self._future.running()

    def give_up(self) -> None:
        """Stop at the next step."""
        self._asked = -math.inf
        self._future.cancel()

    def _work(self) -> None:
        try:
            for found in self._steps():
                self._latest = found
                self._first.set()
                if time.monotonic() - self._asked > _FORGOTTEN:
                    self._given_up = True
                    return
        finally:
            self._first.set()


@st.cache_resource(max_entries=64, scope="session", show_spinner=False, on_release=_Job.give_up)
def _job(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,
    _model: Predictor,
    _read: Read,
) -> _Job[Attribution]:
    return _Job(lambda: _model.refine(_read(), asked.method, asked.target, **_settings(asked)))


def measured(model: Predictor) -> bool:
    """Whether the quality of this model's maps was measured, so that `trust` has something to compare with."""
    return bool(model.card.quality)


def trust(model: Predictor, read: Read, found: Attribution) -> tuple[quality.Trust | None, bool]:
    """How far a finished map can be trusted, or None as long as a worker measures it; and whether that is done."""
    asked = Wanted(found.method, found.target, found.against, found.layer, found.baseline)
    return _trust(model.hash, found.image_sha256, asked, model, read, found).look(0.0)[:2]


@st.cache_resource(max_entries=96, scope="session", show_spinner=False, on_release=_Job.give_up)
def _trust(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,  # noqa: ARG001
    _model: Predictor,
    _read: Read,
    _found: Attribution,
) -> _Job[quality.Trust]:
    return _Job(lambda: [quality.trust(_model, _read(), _found)])


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="maps")


def _settings(asked: Wanted) -> dict[str, Any]:
    layer = {"layer": asked.layer} if asked.layer else {}
    return {"against": asked.against or None, "background": asked.background} | layer


def _passes(name: str) -> int:
    info = EXPLAINERS[name].info
    return info.forward + info.backward


def expected_seconds(model: Predictor, name: str) -> float:
    """How long a map of this method takes: as the last one that was made here, or judged by its passes."""
    known = _seconds()
    if (model.hash, name) in known:
        return known[model.hash, name]
    slow = [
        spent / _passes(other) for (hash_, other), spent in known.items() if hash_ == model.hash and not quick(other)
    ]
    return _passes(name) * (slow[-1] if slow else _PASS)


@st.cache_resource(show_spinner=False)
def _seconds() -> dict[tuple[str, str], float]:
    return {}


@dataclass(frozen=True, slots=True)
class Style:
    """How raw maps are drawn.

    Attributes:
        opacity: of the strongest evidence, 0 to 1.
        threshold: share of the scale up to which evidence is not drawn, 0 to less than 1.
    """

    opacity: float = 0.6
    threshold: float = render.FAINT


def panel(model: Predictor, seen: Look, found: Attribution, style: Style, scale: float | None = None) -> render.Panel:
    """A map drawn over the preview, with the sentence that says where its evidence lies."""
    return report.panel(model, seen.picture(), found, style.opacity, style.threshold, scale)


def scale_of(model: Predictor, maps: Sequence[Attribution]) -> tuple[float, bool]:
    """The evidence that gets the full colour in all these maps of one method, and whether validation fixed it."""
    own, fixed = model.map_scale(maps[0])
    if fixed:
        return own, True
    shown = [evidence(found) for found in maps]
    return (render.evidence_scale(shown) if any(one.any() for one in shown) else 1.0), False


@dataclass(frozen=True, slots=True)
class Marked:
    """A region made of a map.

    Attributes:
        region: in pixels of the picture as it came.
        rule: that drew the line.
        own: whether the rule was chosen for this model and method, and is not just the page's threshold.
        sentence: how much evidence lies in it, and where.
    """

    region: Region
    rule: RegionRule
    own: bool
    sentence: str


def marked(model: Predictor, seen: Look, found: Attribution) -> Marked:
    """Where the evidence of a map lies.

    Without a rule in the model's card, what reaches half of the map's strongest evidence counts, if it is not faint.
    """
    chosen = model.card.regions.get(found.method)
    shown = evidence(found)
    half = max(float(shown.max()) / 2, render.FAINT * model.map_scale(found)[0])
    rule = RegionRule(**chosen) if chosen else RegionRule(half, 0.0, blur=0.0)
    sentence = render.region_sentence(shown, region(shown, rule).mask)
    return Marked(region(shown, rule, found.target, (seen.height, seen.width)), rule, bool(chosen), sentence)


def boxes_drawn(seen: Look, found: Region) -> render.Picture:
    """The preview with a frame around each box of a region."""
    return render.outlined(seen.picture().display(), found.boxes, (seen.height, seen.width))


def mask_png(found: Region) -> bytes:
    """A region's mask as a PNG of the picture's size: white inside, black outside."""
    file = io.BytesIO()
    Image.fromarray(found.mask).save(file, "PNG")
    return file.getvalue()


def region_json(model: Predictor, seen: Look, made: Attribution, found: Marked) -> bytes:
    """A region's boxes, its rule and the map it was made of. Boxes are half open, counted from 0."""
    names = ("label", "xmin", "ymin", "xmax", "ymax")
    return _json(
        {
            "file": seen.prediction.name,
            "width": seen.width,
            "height": seen.height,
            "boxes": [{name: getattr(box, name) for name in names} for box in found.region.boxes],
            "area": found.region.area,
            "sentence": found.sentence,
            "rule": found.rule.to_json(),
            "map": made.provenance(),
            "checkpoint_name": model.card.name,
            "caution": CAUTION,
        }
    )


# Quality of the methods -----------------------------------------------------------------------------------------------


def metric(name: str) -> Metric:
    """What a metric of explanation quality is, in words."""
    return METRICS[name]


def metrics() -> list[str]:
    """All metrics, by family."""
    return sorted(METRICS, key=lambda name: FAMILIES.index(METRICS[name].family))


def survives(figures: dict[str, Any]) -> bool | None:
    """Whether maps of a method stay as they are when the model forgets what it learnt; None where that is not clear.

    Args:
        figures: of the method, as the card holds them.
    """
    likeness = figures.get("randomised-model") or {}
    told = quality.explains_model(likeness.get("low"), likeness.get("high"))
    return None if told is None else not told


def quality_rows(model: str, data: str) -> pd.DataFrame:
    """The value of each image for each method and metric, empty where none were stored.

    Columns: file, row, class, group, method, metric, value, chance.
    """
    folder = models()[model]
    return _quality_rows(folder, data, _stamp(folder))


@st.cache_data(max_entries=4, ttl=600, show_spinner=False)
def _quality_rows(folder: Path, data: str, stamp: int) -> pd.DataFrame:  # noqa: ARG001
    return quality.stored_rows(folder, data)


def by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each class: columns method, metric, class, value, low, high, n, lift."""
    return quality.summarised(rows, by_class=True)


def named(data: str, files: Sequence[str]) -> list[tuple[str, Source]]:
    """Path within a data set, and source, of images by their base names; those that are not there are left out."""
    if data not in datasets():
        return []
    index = dataset(data)
    paths = {PurePath(path).name: path for path in index.table["path"]}
    return [(paths[name], find(index, paths[name])) for name in files if name in paths]


@dataclass(frozen=True, slots=True)
class Example:
    """A shipped image with its verdict and the JPEG of its Grad-CAM overlay."""

    look: Look
    overlay: bytes


def example(model: Predictor, source: Source) -> Example | Refused:
    """Verdict and overlay of a shipped image, made once for all sessions."""
    return _example(model.hash, source.key, model, source)


@st.cache_data(max_entries=64, show_spinner=False)
def _example(checkpoint: str, key: str, _model: Predictor, _source: Source) -> Example | Refused:  # noqa: ARG001
    seen = _first_look(_model, _source)
    if isinstance(seen, Refused):
        return seen
    found = _model.explain(_source.read(), MAPS[0], seen.prediction.pred)
    return Example(seen, _jpeg(panel(_model, seen, found, Style()).picture))


def thumbnail(source: Source) -> bytes | Refused:
    """A small JPEG of an image of a data set, made once for all sessions."""
    return _thumbnail(source.key, source)


@st.cache_data(max_entries=5000, show_spinner=False)
def _thumbnail(key: str, _source: Source) -> bytes | Refused:  # noqa: ARG001
    try:
        return _jpeg(render.thumbnail(_source.read(), _THUMBNAIL))
    except ImageError as error:
        return Refused(str(error))


# What is carried away -------------------------------------------------------------------------------------------------


def report_png(model: Predictor, source: Source, seen: Look, maps: Sequence[Attribution], style: Style) -> bytes:
    """The report on one image as a PNG."""
    return report.report_png(model, source.read(), seen.prediction, maps, style.opacity, style.threshold)


def report_json(model: Predictor, seen: Look, maps: Sequence[Attribution]) -> bytes:
    """The report on one image in numbers."""
    return _json(report.result_json(model, seen.prediction, maps))


def verdicts_json(model: Predictor, looks: Sequence[tuple[Source, Look | Refused]]) -> bytes:
    """All verdicts, and a sentence for each file that was not read."""
    results = [
        {"file": source.name, "error": seen.sentence} if isinstance(seen, Refused) else seen.prediction.to_json()
        for source, seen in looks
    ]
    said = {"checkpoint": model.hash, "checkpoint_name": model.card.name, "warnings": list(model.card.warnings)}
    return _json(said | {"results": results})


def verdicts_csv(looks: Sequence[tuple[Source, Look | Refused]]) -> bytes:
    """The same as a table, one row a file. A cell that a spreadsheet would take for a formula gets an apostrophe."""
    rows = []
    for source, seen in looks:
        if isinstance(seen, Refused):
            rows.append({"file": source.name, "error": seen.sentence})
            continue
        told = seen.prediction.to_json()
        probs = {f"p({name})": round(p, 6) for name, p in told.pop("probs").items()}
        rows.append(told | {"confidence": round(seen.prediction.confidence, 6)} | probs | {"error": ""})
    table = pd.DataFrame(rows).map(lambda cell: escape_formula(cell) if isinstance(cell, str) else cell)
    return table.to_csv(index=False).encode("utf-8-sig")  # the mark lets spreadsheets read accents


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _jpeg(picture: render.Picture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def _stamp(path: Path) -> int:
    """Changes when a file, or a folder's list of entries, does."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# Evaluation -----------------------------------------------------------------------------------------------------------

ANY = "any"
"""Stands for every class where a cell of a confusion matrix is asked for."""

EVALUATION_PARTS = PARTS
TRIAGE = FINDINGS[:-1]
"""What a person may find about an image; without "open", which takes it back."""

_SECONDS_AN_IMAGE = 0.08  # to decode, predict and measure, until it was timed here


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody cancelled the work."""


class _NotStored(Exception):  # noqa: N818
    """Nobody has made this evaluation yet. Raised, because what a cached function raises is not kept."""


class Evaluating:
    """An evaluation that a worker makes; all sessions that look at the same model and data share it.

    Attributes:
        done: images looked at.
        total: their number.
        made: gives the evaluation.
    """

    def __init__(self, model: Predictor, index: DatasetIndex) -> None:
        self.done, self.total = 0, len(index)
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self.made: Future[Evaluation] = _evaluators().submit(stored_evaluation, model, index, None, self._count)

    @property
    def seconds_left(self) -> float | None:
        """Judged by the images so far; None before the first ones."""
        return (time.monotonic() - self._begun) / self.done * (self.total - self.done) if self.done else None

    def cancel(self) -> None:
        """Stop after the images that are being looked at."""
        self._stop.set()
        self.made.cancel()

    def _count(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        self.done, self.total = done, total


@functools.cache
def _evaluators() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")


@st.cache_resource(show_spinner=False)
def _in_work() -> dict[tuple[str, str], Evaluating]:
    return {}


def evaluating(model: Predictor, data: str) -> Evaluating | None:
    """The evaluation of a model on a data set that is being made, if one is."""
    return _in_work().get((model.hash, data))


def start_evaluation(model: Predictor, data: str) -> None:
    """Let a worker make an evaluation, unless one is at it."""
    if not evaluating(model, data):
        _in_work()[model.hash, data] = Evaluating(model, dataset(data))


def cancel_evaluation(model: Predictor, data: str) -> None:
    """Stop the worker; what it found so far is lost."""
    if job := _in_work().pop((model.hash, data), None):
        job.cancel()


def seconds_to_evaluate(data: str) -> float:
    """How long an evaluation will take, roughly."""
    return len(dataset(data)) * _SECONDS_AN_IMAGE


def evaluation(model: Predictor, data: str, part: str = "all") -> Evaluation | None:
    """What the model said of a part of a data set; None where nobody has computed it yet.

    Raises:
        SteelError: a worker could not make it, or the part is unknown.
    """
    if (job := evaluating(model, data)) and job.made.done():
        if job.made.exception():
            _in_work().pop((model.hash, data), None)
        job.made.result()
    try:
        folder = datasets()[data]
        whole = _evaluation(model.hash, _data_key(folder, _stamp(folder)), model, data)
    except _NotStored:
        return None
    _in_work().pop((model.hash, data), None)
    return _part(whole, part)


def evaluation_part(whole: Evaluation, part: str) -> Evaluation:
    """A part of an evaluation of all images."""
    return _part(whole, part)


@st.cache_data(max_entries=8, ttl=60, show_spinner=False)
def _data_key(folder: Path, stamp: int) -> str:
    return data_key(_dataset(folder, stamp))


@st.cache_resource(max_entries=4, show_spinner=False)
def _evaluation(checkpoint: str, key: str, _model: Predictor, _data: str) -> Evaluation:  # noqa: ARG001
    if found := find_evaluation(_model, dataset(_data)):
        return found
    if job := evaluating(_model, _data):  # made, though it could not be stored
        with contextlib.suppress(TimeoutError):
            return job.made.result(0)
    raise _NotStored


_SAME: dict[str | type[Any], Callable[[Any], Any]] = {
    Evaluation: lambda found: (found.checkpoint_hash, found.data_key, found.part)
}


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def _part(whole: Evaluation, part: str) -> Evaluation:
    return whole.select(part)


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def cells(found: Evaluation, outcomes: bool) -> pd.DataFrame:
    """The cells of the confusion matrix, see `Evaluation.confusion`."""
    return found.confusion(outcomes)


def confused(found: Evaluation) -> pd.DataFrame:
    """The wrong cells that hold images, the fullest first."""
    return most_confused(cells(found, False))


def in_cell(found: Evaluation, actual: str, predicted: str, outcomes: bool = False) -> pd.DataFrame:
    """The labelled images of one cell by falling loss; `ANY` takes a whole row or column."""
    table = found.top_losses()
    said = table["outcome" if outcomes else "pred"]
    return table[((table["label"] == actual) | (actual == ANY)) & ((said == predicted) | (predicted == ANY))]


@st.cache_resource(max_entries=8, show_spinner="Counting", hash_funcs=_SAME)
def by_label(found: Evaluation) -> dict[str, dict[str, Figure]]:
    """The figures of each class, see `Evaluation.per_class`."""
    return found.per_class()


@st.cache_resource(max_entries=8, show_spinner="Drawing", hash_funcs=_SAME)
def evaluation_figures(found: Evaluation) -> dict[str, go.Figure]:
    """Every plot of an evaluation by its heading: the same as in its report."""
    return evaluation_plots(found)


def alternative(figure: go.Figure) -> str:
    """What a figure shows, for those who cannot see it."""
    return plots.alternative(figure)


@st.cache_resource(max_entries=8, show_spinner="Looking for weak spots", hash_funcs=_SAME)
def segments(found: Evaluation) -> pd.DataFrame:
    """Ranges and groups in which the model errs more often, see `Evaluation.segments`."""
    return found.segments()


def both_heads(found: Evaluation, file: str) -> pd.DataFrame:
    """Softmax beside sigmoid for one image: columns label, softmax, sigmoid."""
    row = int(np.flatnonzero(found.table["file"] == file)[0])
    return curves.both_heads(found.logits[row], found.classes, found.temperature)


def shown(index: DatasetIndex, rows: pd.DataFrame) -> list[tuple[str, Source]]:
    """Path within the data set, and source, of rows of an evaluation's table."""
    return [(str(file), _source(index, int(row))) for file, row in zip(rows["file"], rows["row"], strict=True)]


def small_map(model: Predictor, source: Source) -> bytes | Refused:
    """A small JPEG of the Grad-CAM of the predicted class over an image, made once for all sessions."""
    return _small_map(model.hash, source.key, model, source)


@st.cache_data(max_entries=1000, show_spinner=False)
def _small_map(checkpoint: str, key: str, _model: Predictor, _source: Source) -> bytes | Refused:  # noqa: ARG001
    try:
        image = _source.read()
        found = _model.explain(image, MAPS[0], _model.predict([image])[0].pred)
        small_image = SteelImage(render.thumbnail(image, _THUMBNAIL), image.name, image.sha256)
        return _jpeg(report.panel(_model, small_image, found).picture)
    except SteelError as error:
        return Refused(str(error))


def triaged() -> dict[str, Triage]:
    """The finding that counts for each image, by its hash."""
    return TriageStore().latest()


def triage(found: Evaluation, row: Mapping[Any, Any], finding: str, who: str, should_be: str = "") -> None:
    """Keep what a person found about an image; "open" takes an earlier finding back.

    Raises:
        SteelError: nobody is named, or it cannot be kept.
    """
    said = {name: str(row[name]) for name in ("image_sha256", "file", "label", "pred")}
    TriageStore().add(
        Triage(**said, checkpoint=found.checkpoint_hash, finding=finding, who=who.strip(), should_be=should_be)
    )


def relabelling_csv() -> bytes:
    """The images whose label is wrong or ambiguous."""
    return TriageStore().relabelling_csv().encode("utf-8-sig")


def propose(whole: Evaluation, asked: Costs, mix: Mapping[str, float] | None) -> Choice:
    """The cheapest thresholds on the validation images, tried on the test images, see `propose_thresholds`."""
    return propose_thresholds(whole, asked, mix)


def plant_figures(
    found: Evaluation, thresholds: Mapping[str, float], asked: Costs, mix: Mapping[str, float] | None
) -> pd.DataFrame:
    """Escapes, false calls, referrals and costs under some thresholds, by class, see `decisions.plant_figures`."""
    counted = found.under(thresholds=thresholds).labelled
    said = counted.table["outcome"].to_numpy(object)
    return decisions.plant_figures(said, counted.labels, counted.classes, asked, mix, list(counted.groups))


def threshold_figure(
    found: Evaluation, label: str, asked: Costs, thresholds: Mapping[str, float], mix: Mapping[str, float] | None
) -> go.Figure:
    """What happens as the threshold of one class moves."""
    counted = found.labelled
    decided = np.where(counted.judged[:, None], counted.probs, counted.probs - 2)  # no threshold passes the others
    curve = decisions.threshold_curve(decided, counted.labels, counted.classes, label, asked, thresholds, mix)
    return plots.threshold_costs(curve, label, thresholds.get(label, 0.5))


def keep_thresholds(name: str, thresholds: Mapping[str, float], who: str, reason: str) -> None:
    """Write thresholds into the card of a model; verdicts obey at once.

    Raises:
        SteelError: the model is shipped or cannot be written, or nobody or no reason is named.
    """
    folder = models()[name]
    if folder.is_relative_to(ASSETS):
        raise UsageError(
            f"{name} comes with the program and stays as it is. Copy its folder under another name to where "
            "STEEL_MODELS points to, and set the thresholds of the copy"
        )
    save_thresholds(folder, thresholds, who, reason)


def conformal(whole: Evaluation, coverage: float, method: str) -> tuple[int, bool, dict[str, Figure | float]]:
    """Prediction sets chosen on the validation images: their number, whether they suffice, and what the test finds."""
    val, test = whole.select("val").labelled, whole.select("test").labelled
    quantile = decisions.conformal_quantile(val.probs, val.labels, coverage, method)
    sets = decisions.conformal_sets(test.probs, quantile, method)
    return len(val), math.isfinite(quantile), decisions.coverage_found(sets, test.labels, list(test.groups))


@st.cache_resource(max_entries=4, show_spinner="Comparing", hash_funcs=_SAME)
def comparison(a: Evaluation, b: Evaluation) -> Comparison:
    """How b differs from a on the images that both have not learnt from."""
    return compare(a, b)


def overlaid(a: Evaluation, b: Evaluation, label: str) -> dict[str, go.Figure]:
    """Curves of one class by both models, on the images they share; none where these are all of it or all not."""
    both = set(a.labelled.table["image_sha256"]) & set(b.labelled.table["image_sha256"])
    sides = {}
    for each in (a.labelled, b.labelled):
        one = replace(each, table=each.table[each.table["image_sha256"].isin(both)].reset_index(drop=True))
        k = one.classes.index(label)
        sides[one.checkpoint] = (one.probs[:, k], one.labels == k, list(one.groups))
    if not all(0 < positive.sum() < len(positive) for _, positive, _ in sides.values()):
        return {}
    return {
        "ROC curves": plots.roc({name: curves.roc(*side) for name, side in sides.items()}),
        "Precision and recall": plots.precision_recall(
            {name: curves.precision_recall(*side) for name, side in sides.items()}
        ),
    }


def evaluation_csv(found: Evaluation) -> bytes:
    """Every image with what the model said of it; no cell runs as a formula."""
    return found.to_csv().encode("utf-8-sig")


def evaluation_report(found: Evaluation, model: Predictor, data: str) -> bytes:
    """One self-contained page: figures, plots, worst images with maps, card."""
    return evaluation_html(found, model, dataset(data)).encode()


# Audit ----------------------------------------------------------------------------------------------------------------

QUESTIONS = AUDITS
"""What can be asked of a whole data set, by name."""

STAIN_SHAPES, STAIN_TEXTURES, LARGEST_STAIN = SHAPES, TEXTURES, LARGEST_AREA

in_plain_words, missed, by_severity = audit_report.in_plain_words, audit_report.missed, audit_report.by_severity
compared, dose_response, effect_by_class = audit_report.compared, audit_report.dose_response, audit_report.classes
POSITIONS, SEVERITIES = audit_report.POSITIONS, (audit_report.SHORTCUT, audit_report.SUSPICIOUS, audit_report.QUIET)

_SHOWN_FIRST = "images/sheet-000014.png"  # a shipped sheet that the stain turns; the page says why it comes first
_SECONDS_AN_AUDITED_IMAGE = {"white-stain": 0.7, "edges": 0.15, "properties": 0.3, "discover": 0.3}  # until timed here


@dataclass(frozen=True, slots=True)
class Stain:
    """A stain on one image.

    Attributes:
        area: share of the picture.
        brightness: grey of the film, 0 to 1.
        shape: one of `STAIN_SHAPES`.
        texture: one of `STAIN_TEXTURES`.
        centre: row and column of its middle, 0 to 1; beside the defect if None.
        seed: of its outline and of a place that is not given.
    """

    area: float = 0.05
    brightness: float = 0.92
    shape: str = "blot"
    texture: str = "film"
    centre: tuple[float, float] | None = None
    seed: int = 0

    def made(self) -> WhiteStain:
        """For the library."""
        return WhiteStain(self.shape, 1, self.centre, None, self.brightness, self.texture)


def watched_class(model: Predictor, seen: Look) -> str:
    """The class whose gain is shown: "clear" where the model knows it, else the one it names now."""
    return CLEAR if CLEAR in model.classes else seen.prediction.pred


def defective(index: DatasetIndex, most: int = 200) -> list[str]:
    """Paths of the first sheets that are not clear."""
    labels = index.table["labels"]
    paths = index.table["path"][(labels != CLEAR) & (labels != "")].head(most).tolist()
    return sorted(paths, key=lambda path: path != _SHOWN_FIRST)


def demonstration(model: Predictor) -> str:
    """Name of the shipped model with a planted shortcut, where it is here and another one is chosen; else ""."""
    shown = "strip-mill"
    return shown if shown in models() and model.card.name != shown else ""


def stained(model: Predictor, source: Source, asked: Stain, watched: str) -> tuple[BenchRow, ...]:
    """The image as it is, with the stain, and with each control at the same place.

    Raises:
        SteelError: the image is refused, or the stain is out of range.
    """
    return _stained(model.hash, source.key, asked, watched, model, source)


@st.cache_data(max_entries=24, scope="session", show_spinner=False)
def _stained(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    asked: Stain,
    watched: str,
    _model: Predictor,
    _source: Source,
) -> tuple[BenchRow, ...]:
    defect = _defect(_model, _source)
    return bench(_model, _source.read(), asked.made(), asked.area, defect=defect, watched=watched, seed=asked.seed)


def smallest_stain(model: Predictor, source: Source, asked: Stain) -> SmallestFlip | None:
    """The smallest stain of this kind and place that turns the image; to "clear", where the model knows it."""
    towards = CLEAR if CLEAR in model.classes else ""
    return _smallest(model.hash, source.key, replace(asked, area=0.0), towards, model, source)


@st.cache_data(max_entries=64, scope="session", show_spinner=False)
def _smallest(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    asked: Stain,
    towards: str,
    _model: Predictor,
    _source: Source,
) -> SmallestFlip | None:
    defect = _defect(_model, _source)
    return smallest_flip(_model, _source.read(), asked.made(), defect=defect, towards=towards, seed=asked.seed)


def defect_known(model: Predictor, source: Source) -> bool:
    """Whether a mask or a box tells where the defect of an image is."""
    return _defect(model, source) is not None


def _defect(model: Predictor, source: Source) -> Any:
    """Mask (H, W) of the defect as the network sees it; None where nothing tells."""
    if not isinstance(source.origin, Path):
        return None
    for folder in datasets().values():
        if not source.origin.is_relative_to(folder):
            continue
        index = _dataset(folder, _stamp(folder))
        inside = source.origin.relative_to(folder).as_posix()
        for i in np.flatnonzero(index.table["path"] == inside):
            image = source.read()
            grid, _ = model.card.preprocessing.to_grid(image)
            return defect_mask(index, int(i), (image.height, image.width), grid.shape)
    return None


def bench_map(model: Predictor, row: BenchRow, rows: Sequence[BenchRow]) -> render.Panel:
    """The evidence of one picture of the bench, drawn on it; all its rows have the same scale."""
    scale, _ = scale_of(model, [one.attribution for one in rows])
    return report.panel(model, row.image, row.attribution, scale=scale)


def bench_picture(row: BenchRow) -> render.Picture:
    """One picture of the bench."""
    return render.thumbnail(row.image, _PREVIEW)


def cure_of(model: Predictor) -> dict[str, Any] | None:
    """What the card says of the cure that made this model; None for one that was not cured."""
    return model.card.training.get("cure")


def cured_models(model: Predictor) -> list[str]:
    """Names of the models that were made by curing this one."""
    found = []
    for name, folder in models().items():
        of = _cure_in(folder, _stamp(folder / CARD))
        if of and (of.get("of_hash") == model.hash or of.get("of") == model.card.name):
            found.append(name)
    return found


@st.cache_data(max_entries=100, show_spinner=False)
def _cure_in(folder: Path, stamp: int) -> dict[str, Any] | None:  # noqa: ARG001
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8")).get("training", {}).get("cure")
    except (OSError, ValueError, AttributeError):
        return None  # a damaged card gets its sentence where the model is chosen


class Auditing:
    """An audit that a worker makes. It goes on when the page is left; the link to it holds its name.

    Attributes:
        name: of the run.
        model: name of the model.
        data: name of the data set.
        kinds: what is asked.
        stage: what is being done.
        done: how much of it.
        total: and of how much.
    """

    def __init__(self, model: Predictor, data: str, kinds: tuple[str, ...], part: str, limit: int) -> None:
        self.name, self.model, self.data, self.kinds = new_name(), model.card.name, data, kinds
        self.stage, self.done, self.total = "waiting for another audit", 0, 0
        self._stop = threading.Event()
        self._stage_began = time.monotonic()
        index = dataset(data)
        self.made: Future[AuditRun] = _auditors().submit(self._work, model, index, part, limit)

    @property
    def seconds_left(self) -> float | None:
        """Of this stage, judged by what is done of it; None before its first step."""
        spent = time.monotonic() - self._stage_began
        return spent / self.done * (self.total - self.done) if self.done and self.total else None

    def cancel(self) -> None:
        """Stop at the next step; nothing is kept."""
        self._stop.set()
        self.made.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def _work(self, model: Predictor, index: DatasetIndex, part: str, limit: int) -> AuditRun:
        began = time.monotonic()
        found = audit(model, index, self.kinds, part=part, limit=limit, progress=self._count)
        said = [one.to_json() for one in found]
        return AuditStore().add(self.name, self.data, round(time.monotonic() - began, 1), said)

    def _count(self, stage: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        if stage != self.stage:
            self._stage_began = time.monotonic()
        self.stage, self.done, self.total = stage, done, total


def start_audit(model: Predictor, data: str, kinds: tuple[str, ...], part: str, limit: int) -> str:
    """Let a worker audit a model on a data set; the name of the run."""
    job = Auditing(model, data, kinds, part, limit)
    jobs = _auditing()
    for name in [name for name, old in jobs.items() if old.made.done()]:
        del jobs[name]  # finished ones lie in the store
    jobs[job.name] = job
    return job.name


def auditing(name: str) -> Auditing | None:
    """The job of that name, if this server has it: waiting, at work, failed, or finished not long ago."""
    return _auditing().get(name)


def audits_at_work() -> list[Auditing]:
    """Jobs that are not finished."""
    return [job for job in _auditing().values() if not job.made.done() and not job.cancelled]


@st.cache_resource(show_spinner=False)
def _auditing() -> dict[str, Auditing]:
    return {}


@functools.cache
def _auditors() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")


def audit_run(name: str) -> AuditRun | None:
    """The finished run of that name; None if there is none.

    Raises:
        DataError: its file is damaged.
    """
    return AuditStore().get(name)


def audit_history() -> tuple[list[AuditRun], list[str]]:
    """Every finished run, the newest first, and a sentence for each file that cannot be read."""
    return AuditStore().history()


def seconds_to_audit(kinds: Sequence[str], data: str, limit: int) -> float:
    """How long an audit will take, judged by the last one of the same questions, else by what was measured once."""
    images = min(limit, len(dataset(data)))
    for run in audit_history()[0][:20]:
        if sorted(one["audit"] for one in run.reports) == sorted(kinds) and run.reports[0].get("images"):
            return images * run.seconds / run.reports[0]["images"]
    return images * sum(_SECONDS_AN_AUDITED_IMAGE[kind] for kind in kinds)


def audited(run: AuditRun) -> Predictor | None:
    """The very model of a run; None where it is not here any more, or is another by now."""
    told = run.reports[0]
    if told["model"] not in models():
        return None
    model = predictor(told["model"])
    return model if model.hash == told["model_hash"] else None


def audit_pairs(run: AuditRun, report: dict[str, Any], most: int = 4) -> list[Pair]:
    """The images that the stain moved the most, with and without it; none where model or data are not here."""
    return _audit_pairs(run.name, report["audit"], most, run, report)


@st.cache_data(max_entries=16, show_spinner="Making the pairs of pictures again")
def _audit_pairs(name: str, kind: str, most: int, _run: AuditRun, _report: dict[str, Any]) -> list[Pair]:  # noqa: ARG001
    model = audited(_run)
    if model is None or _run.data not in datasets():
        return []
    return audit_report.pairs(model, dataset(_run.data), _report, most)


def audit_page(run: AuditRun) -> bytes:
    """A run as one self-contained HTML file."""
    model = audited(run)
    index = dataset(run.data) if run.data in datasets() else None
    return audit_html(run.reports, model, index).encode()


def audit_json(run: AuditRun) -> bytes:
    """A run in numbers."""
    return _json(run.to_json())


def click_pad(picture: render.Picture, places: int) -> go.Figure:
    """A picture as a plot with a grid of points that can be clicked; x and y in percent of its sides."""
    return plots.click_pad(picture, places)
