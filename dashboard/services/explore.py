"""What is known of the images of a data set, gathered; the long work that finds out more, and what it leads to."""

import functools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dashboard.services import datasets, evaluation, files, jobs
from dashboard.services.cache import cached_data, cached_resource
from steel_core import render
from steel_core.data.filters import PLACES, Filter, Point, Range, collect_facts, number_columns
from steel_core.data.index import DatasetIndex
from steel_core.data.quality import properties
from steel_core.data.quality.findings import KINDS, DataFinding, findings_to_csv, without_findings
from steel_core.data.readers.manifest import write_manifest
from steel_core.errors import DataError, ImageError
from steel_core.evaluation import data_check
from steel_core.files import cache_folder
from steel_core.inference import embedding
from steel_core.inference.embedding import Embedding, embed_images
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress
from steel_core.render import data_plots
from steel_core.render.plots import Figure
from steel_core.store.triage import TriageStore
from steel_core.types import BoolArray, Box, Float32Array, IndexArray, SteelImage

__all__ = ["PLACES", "Filter", "Point", "Range", "TriageStore", "findings_to_csv"]

MANY = 1000  # names that a person can choose from in a list, at most; of more, a part is typed

TITLES = {
    "clipped": "clipped pixels",
    "defect_area": "defect area",
    "defect_row": "defect, from the top",
    "defect_column": "defect, from the left",
    "map_x": "place on the map, across",
    "map_y": "place on the map, down",
}
"""Words for the numbers whose name is none."""

NUMBERS_OF_VERDICTS = ("loss", "confidence")

_SECONDS = {"properties": 0.005, "embedding": 0.02, "check": 0.08}  # that each kind of work takes an image, roughly
_KINDS: dict[str, jobs.Kind[Any]] = {kind: jobs.Kind(kind, queue="explore") for kind in _SECONDS}


@dataclass(frozen=True, eq=False)
class Collection:
    """A data set, `facts` on its images (`steel_core.data.filters.collect_facts`), and what the model says of them.

    `listed` changes whenever the list of images does, `key` whenever anything of this does.
    """

    name: str
    index: DatasetIndex
    facts: pd.DataFrame
    evaluated: evaluation.Evaluation | None
    embedded: Embedding | None
    listed: str
    key: str

    @functools.cached_property
    def numbers(self) -> list[str]:
        return number_columns(self.facts)

    @functools.cached_property
    def signs(self) -> dict[str, render.Sign]:
        """How outlines of each class are marked."""
        return render.assign_signs(self.index.classes)

    def row(self, row: int) -> dict[str, Any]:
        return {str(name): self.facts[name].iat[row] for name in self.facts}

    def names(self, column: str) -> list[str]:
        """The names in a column of the facts; none if the column is not known. A label of several counts as each."""
        if column not in self.facts:
            return []
        categories = list(self.facts[column].cat.categories)
        if column == "labels":
            categories = sorted({name for cell in categories for name in cell.split("|")})
        return categories


def open_collection(name: str, model: Predictor | None) -> Collection:
    """What is known of a data set, and what a model said of it; gathered once, and anew when more is known."""
    index = datasets.dataset(name)
    folder = datasets.available()[name]
    places = (properties.PROPERTY_TABLE.folder(index), embedding.embeddings_folder(), _evaluations())
    stamps = tuple(files.stamp(place) for place in places)
    ended = tuple(kind for kind in _KINDS if (job := work(kind, model, name)) and job.future.done())
    listed = f"{folder} {files.stamp(folder)}"
    return _gather(f"{listed} {model.hash if model else ''} {stamps} {ended}", listed, name, index, model)


@cached_resource(lambda key: key, max_entries=4, spinner="Gathering what is known of the images")
def _gather(key: str, listed: str, name: str, index: DatasetIndex, model: Predictor | None) -> Collection:
    measured = stored_or_finished("properties", None, name, properties.PROPERTY_TABLE.load(index))
    evaluated, embedded = None, None
    if model and (_worth_a_look(_evaluations(), len(index)) or evaluation.running(model, name)):
        evaluated = evaluation.find(model, name)
    if model and _worth_a_look(embedding.embeddings_folder(), len(index)):
        embedded = embedding.find_embedding(model, index)
    embedded = stored_or_finished("embedding", model, name, embedded)
    predictions = None
    if evaluated is not None:
        verdict = np.where(evaluated.has_truth, np.where(evaluated.wrong, "wrong", "right"), "")
        predictions = evaluated.table[["row", "pred", *NUMBERS_OF_VERDICTS]].assign(verdict=verdict)
    places = embedded.find_layout() if embedded else None
    gathered = collect_facts(index, predictions, measured, places)
    return Collection(name, index, gathered, evaluated, embedded, listed, key)


def _evaluations() -> Path:
    return cache_folder() / "evaluations"


def _worth_a_look(folder: Path, images: int) -> bool:
    """Whether any file here has a byte an image; else none is about them, and the time of a million files is saved."""
    return folder.is_dir() and any(file.stat().st_size >= images for file in folder.iterdir())


@cached_resource(lambda collection, asked, sort, falling: (collection.key, asked, sort, falling), max_entries=16)
def rows(collection: Collection, asked: Filter, sort: str = "", falling: bool = False) -> IndexArray:
    return asked.rows(collection.facts, sort, falling)


def everything_but_ranges(asked: Filter) -> Filter:
    """The same conditions without those that are drawn in a plot, which shows what they could be."""
    return replace(asked, ranges=(), outline=())


def _image_key(collection: Collection, row: int) -> tuple[str, str]:
    """Changes when an image or the list of its data set does, and not when more is known of it."""
    return collection.listed, datasets.source(collection.index, row).key


@cached_data(
    lambda collection, row, outlines, longest: (*_image_key(collection, row), outlines, longest), max_entries=5000
)
def picture(
    collection: Collection, row: int, outlines: bool, longest: int = datasets.THUMBNAIL
) -> bytes | datasets.Refused:
    """A JPEG of an image with the outlines of its boxes and masks, made once for all sessions."""
    try:
        image = collection.index.image(row)
        drawn = render.thumbnail(image, longest)
        if (zoom := longest // max(drawn.shape[:2])) > 1:  # so that outlines are finer than pixels
            drawn = np.asarray(cv2.resize(drawn, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR))
        if outlines:
            masks, boxes = shapes(collection, row)
            others = {label for label in (*masks, *(box.label for box in boxes)) if label not in collection.signs}
            signs = render.assign_signs([*collection.signs, *sorted(others)])
            drawn = render.draw_annotations(drawn, masks, boxes, (image.height, image.width), signs)
    except ImageError as error:
        return datasets.Refused(str(error))
    return files.jpeg(drawn)


def shapes(collection: Collection, row: int) -> tuple[dict[str, BoolArray], list[Box]]:
    """Masks and boxes of an image; boxes of a class that has a mask are left out."""
    try:
        masks = {label: mask for label, mask in collection.index.masks(row).items() if mask.any()}
    except (DataError, ImageError):  # told by `data check`
        masks = {}
    return masks, [box for box in collection.index.boxes(row) if box.label not in masks]


@cached_data(_image_key, max_entries=5000)
def _outlined_classes(collection: Collection, row: int) -> set[str]:
    masks, boxes = shapes(collection, row)
    return {*masks, *(box.label for box in boxes)}


def outlined_classes(collection: Collection, rows: Iterable[int]) -> set[str]:
    return {label for row in rows for label in _outlined_classes(collection, row)}


def title(name: str) -> str:
    return TITLES.get(name, name)


def work(kind: str, model: Predictor | None, name: str) -> jobs.Job[Any] | None:
    """The work of a kind ("properties", "embedding", "check") on a data set, if it was started."""
    return jobs.board().get(_KINDS[kind], _place(kind, model, name))


def start(kind: str, model: Predictor | None, name: str) -> None:
    steps = functools.partial(_work, kind, model, datasets.dataset(name))
    jobs.board().start(_KINDS[kind], _place(kind, model, name), steps)


def seconds(kind: str, name: str) -> float:
    return len(datasets.dataset(name)) * _SECONDS[kind]


def _place(kind: str, model: Predictor | None, name: str) -> tuple[str, str]:
    return name, model.hash if model and kind != "properties" else ""


def _work(kind: str, model: Predictor | None, index: DatasetIndex, progress: Progress) -> Any:
    if kind == "properties":
        return properties.PROPERTY_TABLE.load_or_measure(index, progress)
    if kind == "check":
        return data_check.load_or_check(index, model, progress)
    assert model is not None
    embedded = embedding.load_or_embed(model, index, progress)
    progress("Drawing the map", 0, 0)
    embedded.layout()
    return embedded


def stored_or_finished(kind: str, model: Predictor | None, name: str, stored: Any) -> Any:
    """What was made where it is stored; else what finished work gave that could not be stored; or None."""
    job = work(kind, model, name)
    if job is None or not job.future.done():
        return stored
    if stored is not None:
        jobs.board().forget(_KINDS[kind], _place(kind, model, name))
        return stored
    return None if job.stopped or job.future.exception() else job.future.result()


@cached_resource(
    lambda collection, model: (collection.key, model and model.hash, files.stamp(data_check.checks_folder())),
    max_entries=4,
)
def findings(collection: Collection, model: Predictor | None) -> list[DataFinding] | None:
    """What is wrong with a data set, see `steel_core.evaluation.data_check`; None where nobody has looked yet."""
    return stored_or_finished("check", model, collection.name, data_check.find_check(collection.index, model))


def findings_json(collection: Collection, findings: Sequence[DataFinding]) -> bytes:
    """Every finding with its evidence, and how often its kind cries wolf."""
    return files.as_json(
        {
            "data": collection.index.spec.title,
            "images": len(collection.index),
            "false_alarms": KINDS,
            "findings": [one.to_json() for one in findings],
        }
    )


def cleaned_manifest(collection: Collection, findings: Sequence[DataFinding]) -> bytes:
    """The data set without what is wrong, as a manifest whose paths start from the data set's folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cleaned.csv"
        write_manifest(without_findings(collection.index, findings), path)
        return path.read_bytes()


@cached_resource(lambda collection, asked, colour: (collection.key, asked, colour), max_entries=16, spinner="Drawing")
def feature_map(collection: Collection, asked: Filter, colour: str) -> tuple[Figure, int]:
    """The map of the images that match, coloured by a column of the facts, and how many are on it."""
    mapped = rows(collection, asked)
    mapped = mapped[collection.facts[PLACES[0]].notna().to_numpy()[mapped]]
    chosen = mapped[np.unique(np.linspace(0, len(mapped) - 1, min(len(mapped), data_plots.DRAWN)).astype(int))]
    table = collection.facts.iloc[chosen]
    names = collection.index.table["path"].iloc[chosen].str.rpartition("/")[2].tolist() if len(chosen) else []
    return data_plots.feature_map(table[list(PLACES)].to_numpy(float), names, table[colour], title(colour)), len(mapped)


def alike(collection: Collection, row: int, count: int) -> list[tuple[int, float]]:
    """Rows of the images most alike one of them, and how alike, the image itself left out."""
    assert collection.embedded is not None
    nearest = _nearest(collection, collection.embedded.row(row), count + 1)
    return [(other, likeness) for other, likeness in nearest if other != row][:count]


def alike_to(collection: Collection, model: Predictor, image: SteelImage, count: int) -> list[tuple[int, float]]:
    """Rows of the images most alike any picture, and how alike."""
    return _nearest(collection, embed_images(model, [image]), count)


def _nearest(collection: Collection, query: Float32Array, count: int) -> list[tuple[int, float]]:
    assert collection.embedded is not None
    near, likeness = collection.embedded.nearest(query, count)
    return list(zip(near[0].tolist(), likeness[0].tolist(), strict=True))
