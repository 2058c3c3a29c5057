"""What is known of the images of a data set, found and counted; and the long work that finds out more."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from dashboard.services import datasets, evaluation, files, jobs, maps
from steel_core import render
from steel_core.data.filters import NAMED, PLACES, Filter, Point, Range, Rows, facts, numbers
from steel_core.data.index import DatasetIndex
from steel_core.data.manifest import write_manifest
from steel_core.data.quality import properties
from steel_core.data.quality.findings import KINDS, Finding, cleaned, findings_csv
from steel_core.errors import DataError, ImageError
from steel_core.evaluation import data_check
from steel_core.files import cache_folder
from steel_core.inference import embedding, tiling
from steel_core.inference.embedding import Embedding
from steel_core.inference.predictor import Predictor, evidence
from steel_core.inference.tiling import Judged
from steel_core.render import data_plots
from steel_core.store.triage import Triage, TriageStore
from steel_core.types import Attribution, Box, SteelImage

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["KINDS", "NAMED", "PLACES", "Filter", "Finding", "Point", "Range"]

AVERAGED = 200
"""Images of a class that its average is made of, at most."""

MANY = 1000
"""Names that a person can choose from in a list, at most; of more, a part is typed."""

TITLES = {
    "clipped": "clipped pixels",
    "defect_area": "defect area",
    "defect_row": "defect, from the top",
    "defect_column": "defect, from the left",
    "map_x": "place on the map, across",
    "map_y": "place on the map, down",
}
"""Words for the numbers whose name is none."""

_SIDE = 128  # pixels of an average
_LONGEST = 3000  # pixels of a strip as a plot shows it
_WIDEST = 1600  # pixels of a part of it
_NUMBERS = ("loss", "confidence")
_QUEUE = "explore"
_SECONDS = {"properties": 0.005, "embedding": 0.02, "check": 0.08}  # an image, roughly


@dataclass(frozen=True, eq=False)
class Collection:
    """A data set with all that is known of its images.

    Attributes:
        name: of the data set.
        index: its samples.
        facts: what is known of each, see `steel_core.data.filters.facts`.
        evaluated: what the chosen model said, where it was asked.
        embedded: the images in the eyes of the chosen model, where they were looked at.
        listed: changes whenever the list of images does.
        key: changes whenever anything of this does.
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
        """The numbers that are known."""
        return numbers(self.facts)

    @functools.cached_property
    def signs(self) -> dict[str, render.Sign]:
        """How outlines of each class are marked."""
        return render.signs(self.index.classes)

    def row(self, row: int) -> dict[str, Any]:
        """What is known of one image."""
        return {str(name): self.facts[name].iat[row] for name in self.facts}

    def names(self, column: str) -> list[str]:
        """The names in a column of the facts; none if the column is not known. A label of several counts as each."""
        if column not in self.facts:
            return []
        found = list(self.facts[column].cat.categories)
        if column == "labels":
            found = sorted({name for cell in found for name in cell.split("|")})
        return found


def collection(name: str, model: Predictor | None) -> Collection:
    """What is known of a data set and, with a model, of what it said of it; gathered once, and anew when more is known.

    Raises:
        DataError: the data set is not here, or cannot be read.
    """
    index = datasets.dataset(name)
    folder = datasets.available()[name]
    places = (properties.kept_in(index), embedding.kept_in(), _evaluations())
    stamps = tuple(files.stamp(place) for place in places)
    made = tuple(kind for kind in _SECONDS if (job := task(kind, model, name)) and job.made.done())
    listed = f"{folder} {files.stamp(folder)}"
    return _collection(f"{listed} {model.hash if model else ''} {stamps} {made}", listed, name, index, model)


@st.cache_resource(max_entries=4, show_spinner="Gathering what is known of the images")
def _collection(key: str, listed: str, name: str, _index: DatasetIndex, _model: Predictor | None) -> Collection:
    measured = _stored_or_made("properties", None, name, properties.find_properties(_index))
    evaluated, embedded = None, None
    if _model and (_worth_a_look(_evaluations(), len(_index)) or evaluation.evaluating(_model, name)):
        evaluated = evaluation.stored(_model, name)
    if _model and _worth_a_look(embedding.kept_in(), len(_index)):
        embedded = embedding.find_embedding(_model, _index)
    embedded = _stored_or_made("embedding", _model, name, embedded)
    said = None
    if evaluated is not None:
        verdict = np.where(evaluated.known, np.where(evaluated.wrong, "wrong", "right"), "")
        said = evaluated.table[["row", "pred", *_NUMBERS]].assign(verdict=verdict)
    places = embedded.find_layout() if embedded else None
    return Collection(name, _index, facts(_index, said, measured, places), evaluated, embedded, listed, key)


def _evaluations() -> Path:
    return cache_folder() / "evaluations"


def _worth_a_look(folder: Path, images: int) -> bool:
    """Whether any file here has a byte an image; else none is about them, and the time of a million files is saved."""
    return folder.is_dir() and any(file.stat().st_size >= images for file in folder.iterdir())


_SAME: dict[str | type[Any], Callable[[Any], Any]] = {Collection: lambda shown: shown.key}


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def rows(shown: Collection, asked: Filter, sort: str = "", falling: bool = False) -> Rows:
    """Row numbers of the images that match, in the order wanted."""
    return asked.rows(shown.facts, sort, falling)


def everything_but_ranges(asked: Filter) -> Filter:
    """The same conditions without those that are drawn in a plot, which shows what they could be."""
    return replace(asked, ranges=(), outline=())


def picture(shown: Collection, row: int, outlines: bool, longest: int = datasets.THUMBNAIL) -> bytes | datasets.Refused:
    """A JPEG of an image with the outlines of its boxes and masks, made once for all sessions."""
    return _picture(_file(shown, row), outlines, longest, shown, row)


@st.cache_data(max_entries=5000, show_spinner=False)
def _picture(
    file: str,  # noqa: ARG001
    outlines: bool,
    longest: int,
    _shown: Collection,
    _row: int,
) -> bytes | datasets.Refused:
    try:
        image = _shown.index.image(_row)
        drawn = render.thumbnail(image, longest)
        if (zoom := longest // max(drawn.shape[:2])) > 1:  # so that outlines are finer than pixels
            drawn = np.asarray(cv2.resize(drawn, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR))
        if outlines:
            masks, boxes = shapes(_shown, _row)
            others = {label for label in (*masks, *(box.label for box in boxes)) if label not in _shown.signs}
            signs = render.signs([*_shown.signs, *sorted(others)])
            drawn = render.annotated(drawn, masks, boxes, (image.height, image.width), signs)
    except ImageError as error:
        return datasets.Refused(str(error))
    return files.jpeg(drawn)


def _file(shown: Collection, row: int) -> str:
    """Changes when an image or the list of its data set does, and not when more is known of it."""
    return f"{shown.listed} {datasets.source(shown.index, row).key}"


def shapes(shown: Collection, row: int) -> tuple[dict[str, npt.NDArray[np.bool_]], list[Box]]:
    """Masks and boxes of an image; boxes of a class that has a mask are left out."""
    try:
        masks = {label: mask for label, mask in shown.index.masks(row).items() if mask.any()}
    except (DataError, ImageError):  # told by `data check`
        masks = {}
    return masks, [box for box in shown.index.boxes(row) if box.label not in masks]


def outlined_classes(shown: Collection, row: int) -> set[str]:
    """Classes that have a box or a mask in an image."""
    return _outlined_classes(_file(shown, row), shown, row)


@st.cache_data(max_entries=5000, show_spinner=False)
def _outlined_classes(file: str, _shown: Collection, _row: int) -> set[str]:  # noqa: ARG001
    masks, boxes = shapes(_shown, _row)
    return {*masks, *(box.label for box in boxes)}


@dataclass(frozen=True, slots=True)
class Average:
    """What the images of a class have in common.

    Attributes:
        mean: mean of their grey, (H, W, 3).
        spread: standard deviation, stretched to its own largest value, (H, W, 3).
        largest: that largest value, 0 to 0.5.
        n: images that it was made of.
    """

    mean: render.Picture
    spread: render.Picture
    largest: float
    n: int


@st.cache_data(max_entries=32, show_spinner="Averaging", hash_funcs=_SAME)
def averages(shown: Collection, asked: Filter) -> dict[str, Average]:
    """The average image of each class among those that match, of images drawn evenly from all of them."""
    return {
        label: average
        for label in shown.names("labels")
        if (average := _average(shown.index, rows(shown, replace(asked, label=label)))) is not None
        and asked.label in (None, label)
    }


def _average(index: DatasetIndex, matching: Rows) -> Average | None:
    chosen = matching[np.unique(np.linspace(0, len(matching) - 1, min(len(matching), AVERAGED)).astype(int))]
    total, squares, n = np.zeros((_SIDE, _SIDE)), np.zeros((_SIDE, _SIDE)), 0
    for row in chosen.tolist():
        try:
            grey = cv2.resize(index.image(row).grey(), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        except ImageError:
            continue
        total, squares, n = total + grey, squares + np.square(grey), n + 1
    if not n:
        return None
    mean = total / n
    spread = np.sqrt(np.maximum(squares / n - mean**2, 0))
    largest = float(spread.max())
    return Average(_grey_picture(mean), _grey_picture(spread / largest if largest else spread), largest, n)


def _grey_picture(grey: npt.NDArray[np.float64]) -> render.Picture:
    return np.repeat((255 * grey).round().astype(np.uint8)[..., None], 3, axis=2)


@st.cache_resource(max_entries=16, show_spinner="Drawing", hash_funcs=_SAME)
def plots(shown: Collection, asked: Filter) -> dict[str, go.Figure]:
    """Counts, distributions and places of the images that match, by heading; what is the same for all is not drawn."""
    table = shown.facts.iloc[rows(shown, asked)]
    labels = _by_class(shown, asked, table)
    found = {}
    if labels:
        found["Images by class"] = data_plots.class_counts({k: len(v) for k, v in labels.items()}, len(table))
    drawn = dict(sorted(labels.items(), key=lambda pair: -len(pair[1]))[: data_plots.CLASSES])
    for name in (*properties.PROPERTIES, *_NUMBERS):
        if (
            name in shown.numbers
            and name not in ("defect_row", "defect_column")
            and table[name].min() < table[name].max()
        ):
            values = table[name].to_numpy(float)
            by = {label: values[mine][np.isfinite(values[mine])] for label, mine in drawn.items()}
            found[title(name)] = data_plots.distributions(by, name, title(name))
    if "defect_row" in shown.numbers and table["defect_row"].notna().any():
        places = (table[name].to_numpy(float) for name in ("defect_row", "defect_column"))
        found["Where defects lie"] = data_plots.defect_places(*places)
    return found


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def class_marks(shown: Collection, asked: Filter) -> dict[str, tuple[str, str]]:
    """Colour and sign of each class in the plots of distributions: the largest classes among the images that match."""
    labels = _by_class(shown, asked, shown.facts.iloc[rows(shown, asked)])
    return dict(zip(sorted(labels, key=lambda label: -len(labels[label])), data_plots.MARKS, strict=False))


def _by_class(shown: Collection, asked: Filter, table: pd.DataFrame) -> dict[str, Rows]:
    """Row numbers in a part of the facts of each class that is there."""
    wanted = [label for label in shown.names("labels") if asked.label in (None, label)]
    found = {label: Filter(label=label).rows(table) for label in wanted}
    return {label: mine for label, mine in found.items() if len(mine)}


def title(name: str) -> str:
    """A number in words."""
    return TITLES.get(name, name)


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def spread(shown: Collection, asked: Filter) -> pd.DataFrame:
    """Quartiles of each number for each class among the images that match."""
    table = shown.facts.iloc[rows(shown, asked)]
    out = []
    for label, rows_of in _by_class(shown, asked, table).items():
        mine = table.iloc[rows_of]
        for name in shown.numbers:
            known = mine[name].dropna()
            if name not in PLACES and len(known):
                low, middle, high = known.quantile([0.25, 0.5, 0.75])
                row = (label or "unlabelled", title(name), len(known), low, middle, high)
                out.append(
                    dict(zip(("Class", "Number", "Images", "Quartile", "Median", "Upper quartile"), row, strict=True))
                )
    return pd.DataFrame(out)


def standing(shown: Collection, row: int) -> pd.DataFrame:
    """Where the numbers of one image lie among all images, and among those of its first class, in percent."""
    label = shown.index[row].label
    mine = rows(shown, Filter(label=label))
    out = []
    for name in shown.numbers:
        value = float(shown.facts[name].to_numpy(float)[row])
        if name in PLACES or not np.isfinite(value):
            continue
        values = shown.facts[name].to_numpy(float)
        shares = (_below(values, value), _below(values[mine], value))
        heads = ("Number", "Value", "Above, of all", f"Above, of {label or 'unlabelled'}", "Images", "Of the class")
        known = (int(np.isfinite(values).sum()), int(np.isfinite(values[mine]).sum()))
        out.append(dict(zip(heads, (title(name), value, *shares, *known), strict=True)))
    return pd.DataFrame(out)


def _below(values: npt.NDArray[np.float64], value: float) -> float:
    """Share of the known values that are smaller; those that are equal count half."""
    known = values[np.isfinite(values)]
    return float(((known < value).sum() + 0.5 * (known == value).sum()) / max(len(known), 1))


@st.cache_resource(max_entries=16, show_spinner="Drawing", hash_funcs=_SAME)
def feature_map(shown: Collection, asked: Filter, colour: str) -> tuple[go.Figure, int]:
    """The map of the images that match, coloured by a column of the facts, and how many are on it."""
    mapped = rows(shown, asked)
    mapped = mapped[shown.facts[PLACES[0]].notna().to_numpy()[mapped]]
    chosen = mapped[np.unique(np.linspace(0, len(mapped) - 1, min(len(mapped), data_plots.DRAWN)).astype(int))]
    table = shown.facts.iloc[chosen]
    names = shown.index.table["path"].iloc[chosen].str.rpartition("/")[2].tolist() if len(chosen) else []
    return data_plots.feature_map(table[list(PLACES)].to_numpy(float), names, table[colour], title(colour)), len(mapped)


def alike(shown: Collection, row: int, count: int) -> list[tuple[int, float]]:
    """Rows of the images most alike one of them, and how alike, the image itself left out.

    Raises:
        DataError: the image could not be read.
    """
    assert shown.embedded is not None
    found = _nearest(shown, shown.embedded.row(row), count + 1)
    return [(other, likeness) for other, likeness in found if other != row][:count]


def alike_to(shown: Collection, model: Predictor, image: SteelImage, count: int) -> list[tuple[int, float]]:
    """Rows of the images most alike any picture, and how alike."""
    return _nearest(shown, embedding.embed_images(model, [image]), count)


def _nearest(shown: Collection, query: embedding.Floats, count: int) -> list[tuple[int, float]]:
    assert shown.embedded is not None
    found, likeness = shown.embedded.nearest(query, count)
    return list(zip(found[0].tolist(), likeness[0].tolist(), strict=True))


def triage_of(sha256: str) -> list[Triage]:
    """What people found about an image, the newest first."""
    return TriageStore().history(sha256)[::-1]


# Long work


@st.cache_resource(show_spinner=False)
def _tasks() -> dict[tuple[str, str, str], jobs.Task[Any]]:
    return {}


def task(kind: str, model: Predictor | None, name: str) -> jobs.Task[Any] | None:
    """The work of a kind ("properties", "embedding", "check", "strip IMAGE") on a data set, if it was started."""
    return _tasks().get((kind, _of(kind, model), name))


def start(kind: str, model: Predictor | None, name: str) -> None:
    """Let a worker do it, unless one is at it."""
    job = task(kind, model, name)
    if job is None or not job.at_work:
        _tasks()[kind, _of(kind, model), name] = jobs.Task(_QUEUE, _work(kind, model, datasets.dataset(name)))


def seconds(kind: str, name: str) -> float:
    """How long the work will take, roughly."""
    return len(datasets.dataset(name)) * _SECONDS[kind]


def _of(kind: str, model: Predictor | None) -> str:
    return model.hash if model and kind != "properties" else ""


def _work(kind: str, model: Predictor | None, index: DatasetIndex) -> Callable[[jobs.Count], Any]:
    def measure(count: jobs.Count) -> pd.DataFrame:
        return properties.properties(index, functools.partial(count, "Measuring pictures"))

    def embed(count: jobs.Count) -> Embedding:
        assert model is not None
        found = embedding.embed(model, index, functools.partial(count, "Looking at pictures"))
        count("Drawing the map", 0, 0)
        found.layout()
        return found

    def look_for_findings(count: jobs.Count) -> list[Finding]:
        return data_check.stored_check(index, model, count)

    return {"properties": measure, "embedding": embed, "check": look_for_findings}[kind]


def _stored_or_made(kind: str, model: Predictor | None, name: str, stored: Any) -> Any:
    """What was found where it is stored; else what finished work gave that could not be stored; or None."""
    job = task(kind, model, name)
    if job is None or not job.made.done():
        return stored
    if stored is not None:
        _tasks().pop((kind, _of(kind, model), name), None)
        return stored
    return None if job.stopped or job.made.exception() else job.made.result()


# Findings


def findings(shown: Collection, model: Predictor | None) -> list[Finding] | None:
    """What is wrong with a data set, see `steel_core.evaluation.data_check`; None where nobody has looked yet."""
    return _findings(f"{shown.key} {files.stamp(data_check.kept_in())}", shown, model)


@st.cache_resource(max_entries=4, show_spinner=False)
def _findings(key: str, _shown: Collection, _model: Predictor | None) -> list[Finding] | None:  # noqa: ARG001
    return _stored_or_made("check", _model, _shown.name, data_check.find_check(_shown.index, _model))


def findings_as_csv(found: Sequence[Finding]) -> bytes:
    """One row for each image of each finding."""
    return findings_csv(found)


def findings_json(shown: Collection, found: Sequence[Finding]) -> bytes:
    """Every finding with its evidence, and how often its kind cries wolf."""
    return files.as_json(
        {
            "data": shown.index.spec.title,
            "images": len(shown.index),
            "false_alarms": KINDS,
            "findings": [one.to_json() for one in found],
        }
    )


def cleaned_manifest(shown: Collection, found: Sequence[Finding]) -> bytes:
    """The data set without what was found, as a manifest whose paths start from the data set's folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cleaned.csv"
        write_manifest(cleaned(shown.index, found), path)
        return path.read_bytes()


# Strips


def is_strip(model: Predictor, shown: Collection, row: int) -> bool:
    """Whether an image is so long or large that the model judges it in tiles; False if it cannot be read."""
    try:
        return tiling.judged_in_tiles(model, *shown.index.size(row))
    except ImageError:
        return False


def judging(model: Predictor, source: datasets.Source) -> jobs.Task[Judged]:
    """The work that judges a strip tile by tile; started when it is first asked for."""
    return _judging(model.hash, source.key, model, source)


def judge_again(model: Predictor, source: datasets.Source) -> None:
    """Begin anew with a strip whose judging was stopped."""
    _judging.clear(model.hash, source.key, model, source)


@st.cache_resource(max_entries=32, show_spinner=False, on_release=jobs.Task.cancel)
def _judging(checkpoint: str, key: str, _model: Predictor, _source: datasets.Source) -> jobs.Task[Judged]:  # noqa: ARG001
    def judge(count: jobs.Count) -> Judged:
        return tiling.judge(_model, [_source.read()], functools.partial(count, "Judging tiles"))[0]

    return jobs.Task(_QUEUE, judge)


def mapping(model: Predictor, source: datasets.Source, target: str) -> jobs.Task[Attribution]:
    """The work that stitches the Grad-CAM of a strip for one class; started when it is first asked for."""
    return _mapping(model.hash, source.key, target, model, source)


def map_again(model: Predictor, source: datasets.Source, target: str) -> None:
    """Begin anew with a map that was stopped."""
    _mapping.clear(model.hash, source.key, target, model, source)


@st.cache_resource(max_entries=4, show_spinner=False, on_release=jobs.Task.cancel)
def _mapping(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    target: str,
    _model: Predictor,
    _source: datasets.Source,
) -> jobs.Task[Attribution]:
    return jobs.Task(
        _QUEUE,
        lambda count: tiling.explain_whole(
            _model, _source.read(), maps.MAPS[0], target, functools.partial(count, "Looking for evidence in tiles")
        ),
    )


def strip_figure(
    model: Predictor, source: datasets.Source, strip: Judged, chosen: int, found: Attribution | None, opacity: float
) -> go.Figure:
    """The whole strip with its tiles marked by their verdicts, under its map if there is one."""
    outcomes = [one.outcome for one in strip.predictions]
    drawn = _whole(source.key, source)
    if found:
        image = SteelImage(drawn, source.name, found.image_sha256)
        drawn = render.overlay(image, evidence(found), model.map_scale(found)[0], opacity, _LONGEST)
    return data_plots.strip_tiles(drawn, (strip.height, strip.width), strip.tiles, outcomes, chosen)


@st.cache_resource(max_entries=4, show_spinner="Drawing")
def _whole(key: str, _source: datasets.Source) -> render.Picture:  # noqa: ARG001
    return render.thumbnail(_source.read(), _LONGEST)


def window(strip: Judged, number: int, breadth: int) -> Box:
    """The part of a strip around a tile that is as many tiles long, or all of it where that is less."""
    tile = strip.tiles[number]
    along, across = (breadth, 1) if strip.width >= strip.height else (1, breadth)
    width = min(strip.width, along * (tile.xmax - tile.xmin))
    height = min(strip.height, across * (tile.ymax - tile.ymin))
    left = min(max((tile.xmin + tile.xmax - width) // 2, 0), strip.width - width)
    top = min(max((tile.ymin + tile.ymax - height) // 2, 0), strip.height - height)
    return Box("", left, top, left + width, top + height)


def close_up(model: Predictor, source: datasets.Source, shown: Box, found: Attribution | None, opacity: float) -> bytes:
    """JPEG of a part of a strip, with its map if there is one."""
    part = tiling.cut(_decoded(source.key, source), shown)
    if not found:
        return files.jpeg(render.thumbnail(part, _WIDEST))
    values = found.values[shown.ymin : shown.ymax, shown.xmin : shown.xmax]
    scale = model.map_scale(found)[0]
    return files.jpeg(render.overlay(part, evidence(replace(found, values=values)), scale, opacity, _WIDEST))


@st.cache_resource(max_entries=2, show_spinner="Reading the strip")
def _decoded(key: str, _source: datasets.Source) -> SteelImage:  # noqa: ARG001
    return _source.read()
