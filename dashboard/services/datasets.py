"""Data sets, their images, and what a visitor brings along."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from streamlit.runtime.uploaded_file_manager import UploadedFile

from dashboard.services import files, models
from dashboard.services.cache import cached_data, cached_resource
from steel_core import render
from steel_core.data.images.read import FORMATS, MAX_BYTES, MAX_PIXELS, read_image
from steel_core.data.index import DatasetIndex
from steel_core.data.open import describe_dataset, find_datasets, open_dataset
from steel_core.errors import DataError, ImageError
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import ASSETS
from steel_core.types import CLEAR, SteelImage

__all__ = ["DatasetIndex", "describe_dataset"]

LIMITS = f"{', '.join(FORMATS)}; up to {MAX_PIXELS // 10**6} megapixels and {MAX_BYTES // 10**6} MB each"
SHIPPED = ASSETS / "demo"
_TRIES = 25  # images of a label that are read to find one that the model has not learnt from
THUMBNAIL = 240  # pixels a side of a gallery's picture, at most


@dataclass(frozen=True)
class Source:
    """An image that can be inspected. Its bytes, for which `key` stands, are read when they are needed, and not kept.

    `licence` says what is allowed where the image may not be passed on.
    """

    name: str
    key: str
    origin: Path | UploadedFile
    labels: tuple[str, ...] = ()
    licence: str = ""

    def read(self) -> SteelImage:
        """The decoded image; `ImageError` where it is refused."""
        if isinstance(self.origin, Path):
            return read_image(self.origin)
        return read_image(self.origin.getvalue(), name=self.name)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an image was not read, in one sentence."""

    sentence: str


def available() -> dict[str, Path]:
    """Name and folder of every data set: the shipped one, and what $STEEL_DATA points to (one, or a folder of them)."""
    mine = os.environ.get("STEEL_DATA")
    folders: dict[str, Path] = {}
    for place in (SHIPPED, *([Path(mine)] if mine else [])):
        for folder in datasets_in(place.absolute()):
            folders.setdefault(folder.name, folder)
    return folders


def nothing_of_yours() -> str:
    """Name of the place that $STEEL_DATA points to, if no data set was found there; else ""."""
    mine = Path(os.environ["STEEL_DATA"]).absolute() if os.environ.get("STEEL_DATA") else None
    return mine.name if mine and not datasets_in(mine) else ""


def _as_of_now(folder: Path) -> tuple[Path, int]:
    return folder, files.stamp(folder)


@cached_data(_as_of_now, max_entries=8, ttl=60)
def datasets_in(folder: Path) -> list[Path]:
    return find_datasets(folder)


def dataset(name: str) -> DatasetIndex:
    """The index of the data set of that name; `DataError` where there is none, or it cannot be read."""
    folder = available().get(name)
    if folder is None:
        raise DataError(f"data set {name!r}: expected one of {', '.join(available()) or 'none here'}")
    return open_folder(folder)


@cached_resource(_as_of_now, max_entries=4, ttl=3600, spinner="Listing the data set")
def open_folder(folder: Path) -> DatasetIndex:
    """The index of a folder, anew where its list of entries has changed."""
    return open_dataset(folder)


def find(index: DatasetIndex, path: str) -> Source:
    """The sample with this path within the data set; see `row_of`."""
    return source(index, row_of(index, path))


def row_of(index: DatasetIndex, path: str) -> int:
    """Number of the sample with this path within the data set, or with this base name, where only one has it.

    The path is looked up in the index, never opened.

    Raises:
        DataError: there is no such sample, or several have this base name.
    """
    paths = index.table["path"]
    rows = np.flatnonzero(paths == path)
    if not len(rows) and "/" not in path:
        rows = np.flatnonzero(paths.str.endswith(f"/{path}"))
    if not len(rows):
        raise DataError(f"{index.spec.title} holds no image of this name: {Path(path).name[:80]}")
    if len(rows) > 1:
        raise DataError(f"{index.spec.title} holds {len(rows)} images named {path[:80]}: name its folder, too")
    return int(rows[0])


def source(index: DatasetIndex, i: int) -> Source:
    """Sample number `i` of a data set."""
    sample = index[i]
    licence = "" if index.spec.redistributable else index.spec.licence
    return Source(sample.path.name, f"{sample.path}:{files.stamp(sample.path)}", sample.path, sample.labels, licence)


def begin_with(model: str | None, data: str | None) -> tuple[str, str] | None:
    """A model and a data set for a visitor who named one of them at most; None where there is nothing to choose.

    The model learnt from the data. The last ones in both lists, a plant's own, go first, and models that have learnt
    something before others. A plant's own data from which no model has learnt is shown all the same.
    """
    everything = list(reversed(available().items()))
    yours = [(name, folder) for name, folder in everything if not folder.is_relative_to(SHIPPED)]
    names = [model] if model else list(reversed(models.available()))
    learnt_from = {name: card.data.get("name") for name in names if (card := models.card(name))}

    def pair(offered: list[tuple[str, Path]]) -> tuple[str, str] | None:
        pairs = [
            (name, one)
            for one, folder in offered
            for name, learnt in learnt_from.items()
            if learnt in (one, _stated_name(folder))
        ]
        return next((each for each in pairs if models.has_learnt(each[0])), pairs[0] if pairs else None)

    offered = [one for one in everything if one[0] == data] if data else everything if model else yours or everything
    first = pair(offered) or pair(everything)
    return (first[0], first[1] if first[1] in dict(offered) else offered[0][0]) if first and offered else None


def _stated_name(place: Path) -> str:
    """The name that a data set gives itself, by which a card knows it; "" where it has none, or is damaged."""
    beside = place / "dataset.json" if place.is_dir() else place.with_name("dataset.json")
    try:
        return str(json.loads(beside.read_text("utf-8"))["name"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


@cached_resource(
    lambda name, model, count: (name, model.hash, count), max_entries=16, ttl=600, spinner="Looking for samples"
)
def samples(name: str, model: Predictor, count: int) -> list[tuple[str, Source]]:
    """Images of a data set to try, of each label in turn, none that the model has learnt from: path, and source.

    A sound sheet comes first; with a model that has no class for it, there is none.
    """
    index = dataset(name)
    labels, split = (index.table[column].to_numpy(dtype=str) for column in ("labels", "split"))
    offered = np.isin(split, ["test", ""]) if (split == "test").any() else np.full(len(split), True)
    if not model.card.clears:
        offered &= labels != CLEAR
    each = sorted(set(labels[offered]), key=lambda label: (label != CLEAR, label))[:count]
    picked: list[int] = []
    for label in each:
        rows = np.flatnonzero(offered & (labels == label))
        spread = rows[np.linspace(0, len(rows) - 1, min(len(rows), _TRIES)).astype(int)].tolist()
        unknown = (row for row in spread if _unknown_to(model, source(index, row)))
        picked += itertools.islice(unknown, max(1, count // len(each)))
    return [(str(index.table["path"].iat[row]), source(index, row)) for row in picked]


def unlearnt(model: Predictor) -> str:
    """What is known of the samples, to follow "images of …": nothing where a card does not tell what it learnt from."""
    return " that this model has not learnt from" if model.card.split.files else ""


def _unknown_to(model: Predictor, one: Source) -> bool:
    try:
        return model.card.part_of(one.read()) not in ("train", "val")
    except ImageError:
        return False


def uploaded(file: UploadedFile) -> Source:
    """A visitor's own image."""
    return Source(file.name, file.file_id, file)


def named(data: str, names: Sequence[str]) -> list[tuple[str, Source]]:
    """Path within a data set, and source, of images by their base names; left out where none or several have it."""
    if data not in available():
        return []
    index = dataset(data)
    by_name = index.table["path"].set_axis(index.table["path"].str.rpartition("/")[2])
    paths = by_name[~by_name.index.duplicated(keep=False)].to_dict()
    return [(paths[name], find(index, paths[name])) for name in names if name in paths]


@cached_data(lambda source: source.key, max_entries=5000)
def thumbnail(source: Source) -> bytes | Refused:
    """A small JPEG of an image of a data set, made once for all sessions."""
    try:
        return files.jpeg(render.thumbnail(source.read(), THUMBNAIL))
    except ImageError as error:
        return Refused(str(error))
