"""The only caller of the library: what pages may ask for, cached, and nothing of how it looks.

Caches are bounded. What comes from a visitor's own images is cached for that visitor's session only and goes with it.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image
from streamlit.runtime.uploaded_file_manager import UploadedFile

from steel_core import render, report
from steel_core.data.describe import describe
from steel_core.data.index import DatasetIndex, find_datasets, open_dataset
from steel_core.data.manifest import escape_formula
from steel_core.data.pixels import FORMATS, MAX_BYTES, MAX_PIXELS, read_image
from steel_core.errors import DataError, ImageError, SteelError
from steel_core.explain.base import EXPLAINERS, ExplainerInfo
from steel_core.inference import Predictor
from steel_core.models.checkpoint import ASSETS, CARD, list_checkpoints
from steel_core.types import CLEAR, Attribution, Prediction, SteelImage

CAUTION = report.CAUTION

LIMITS = f"{', '.join(FORMATS)}; up to {MAX_PIXELS // 10**6} megapixels and {MAX_BYTES // 10**6} MB each"
"""What an image may be, in words."""

MAPS = ("grad-cam", "guided-grad-cam", "shap")
"""The explainers that Inspect shows, cheap ones first."""

TARGETS = {"accuracy": 0.98, "macro_recall": 0.99, "auc": 0.99, "ece": 0.03}
"""What we ask of a model before its verdicts are used; an upper limit for `ece`, lower limits for the others."""

_SHIPPED = ASSETS / "demo"
_PREVIEW, _THUMBNAIL = 800, 240
_FIRST_GUESS = {"grad-cam": 1.0, "guided-grad-cam": 2.0, "shap": 5.0}


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


def explain(model: Predictor, seen: Look, read: Callable[[], SteelImage], method: str, target: str) -> Attribution:
    """The raw map of one method for one class.

    Args:
        model: the model to explain.
        seen: the first look at the image.
        read: gives the decoded image; called only if the map is not cached.
        method: one of `MAPS`.
        target: the class to explain.
    """
    found = _explain(model.hash, seen.prediction.image_sha256, method, target, model, read)
    _seconds()[method] = found.seconds
    return found


@st.cache_data(max_entries=48, scope="session", show_spinner=False)
def _explain(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    method: str,
    target: str,
    _model: Predictor,
    _read: Callable[[], SteelImage],
) -> Attribution:
    return _model.explain(_read(), method, target)


def method(name: str) -> ExplainerInfo:
    """What an explainer is, in words."""
    return EXPLAINERS[name].info


def expected_seconds(name: str) -> float:
    """How long a map of this method takes: as the last one that was made here."""
    return _seconds().get(name, _FIRST_GUESS.get(name, 10.0))


@st.cache_resource(show_spinner=False)
def _seconds() -> dict[str, float]:
    return {}


def panel(model: Predictor, seen: Look, found: Attribution, opacity: float) -> render.Panel:
    """A map drawn over the preview, with the sentence that says where its evidence lies."""
    return report.panel(model, seen.picture(), found, opacity)


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
    return Example(seen, _jpeg(panel(_model, seen, found, 0.6).picture))


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


def report_png(model: Predictor, source: Source, seen: Look, maps: Sequence[Attribution], opacity: float) -> bytes:
    """The report on one image as a PNG."""
    return report.report_png(model, source.read(), seen.prediction, maps, opacity)


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
