"""Verdicts: what a page shows of an image at first sight."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from dashboard.services import datasets, files
from steel_core import render
from steel_core.data.manifest import escape_formula
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import Judged, cut, judge
from steel_core.types import Box, Prediction, SteelImage

MOST_FILES = 100
"""How many images one visitor may have looked at together."""

PREVIEW = 800
"""Pixels a side of the picture that a page shows, at most."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a page shows of one image at first sight.

    Attributes:
        judged: what the model says, at one look or, of a long strip or a very large picture, tile by tile.
        height: of the image, in pixels.
        width: of the image, in pixels.
        preview: JPEG of at most 800 pixels a side.
        part: the part of the model's data that held this very image ("train", "val", "test"), or "".
    """

    judged: Judged
    height: int
    width: int
    preview: bytes
    part: str

    @property
    def prediction(self) -> Prediction:
        """The verdict."""
        return self.judged.verdict

    @property
    def in_tiles(self) -> bool:
        """Whether the image is so long or large that its verdict is that of its worst tile."""
        return len(self.judged.tiles) > 1

    def picture(self) -> SteelImage:
        """The preview, decoded, to draw maps on."""
        pixels = np.asarray(Image.open(io.BytesIO(self.preview)))
        return SteelImage(pixels, self.prediction.name, self.prediction.image_sha256)


def look(model: Predictor, source: datasets.Source) -> Look | datasets.Refused:
    """The verdict on one image, or why there is none."""
    return _look(model.hash, source.key, model, source)


@st.cache_data(max_entries=500, scope="session", show_spinner=False)
def _look(checkpoint: str, key: str, _model: Predictor, _source: datasets.Source) -> Look | datasets.Refused:  # noqa: ARG001
    return first_look(_model, _source)


def first_look(model: Predictor, source: datasets.Source) -> Look | datasets.Refused:
    """What `look` keeps, made."""
    try:
        image = source.read()
        judged = judge(model, [image])[0]
    except SteelError as error:
        return datasets.Refused(str(error))
    part = model.card.part_of(image.sha256)
    return Look(judged, image.height, image.width, files.jpeg(render.thumbnail(image, PREVIEW)), part)


@dataclass(frozen=True)
class Tile(datasets.Source):
    """The worst tile of a strip, as a picture of its own.

    Attributes:
        place: what it covers of the strip.
    """

    place: Box = field(kw_only=True)

    def read(self) -> SteelImage:
        """The decoded tile.

        Raises:
            ImageError: the strip is refused.
        """
        return cut(super().read(), self.place)


def decisive(model: Predictor, source: datasets.Source, seen: Look) -> tuple[datasets.Source, Look]:
    """What one look can explain: the image, or the worst tile of a strip, whose note tells its place."""
    if not seen.in_tiles:
        return source, seen
    told = seen.judged
    tile = Tile(source.name, source.key, source.origin, source.labels, source.licence, place=told.tiles[told.worst])
    return tile, _decisive(model.hash, source.key, tile, seen)


@st.cache_data(max_entries=100, scope="session", show_spinner=False)
def _decisive(checkpoint: str, key: str, _tile: Tile, _seen: Look) -> Look:  # noqa: ARG001
    image = _tile.read()
    alone = Judged((_tile.place,), (_seen.judged.decisive,), _seen.height, _seen.width)
    return Look(alone, image.height, image.width, files.jpeg(render.thumbnail(image, PREVIEW)), _seen.part)


def small(seen: Look) -> bytes:
    """JPEG of an image's preview at the size of a table's row, made once."""
    return _small(seen.prediction.image_sha256, seen)


@st.cache_data(max_entries=1000, scope="session", show_spinner=False)
def _small(image_sha256: str, _seen: Look) -> bytes:  # noqa: ARG001
    picture = Image.open(io.BytesIO(_seen.preview))
    picture.thumbnail((96, 96))
    return files.jpeg(np.asarray(picture))


def likeliest(model: Predictor, seen: Look) -> tuple[str, str]:
    """The predicted class and the next one, or "" where there is no other."""
    ranked = sorted(model.classes, key=lambda name: -seen.prediction.probs[name])
    return ranked[0], ranked[1] if ranked[1:] else ""


def doubtful(model: Predictor, seen: Look) -> bool:
    """Whether the model stands between two classes, so that their contrast is the question to begin with."""
    return model.default_target(seen.prediction)[1] is not None


def verdicts_json(model: Predictor, looks: Sequence[tuple[datasets.Source, Look | datasets.Refused]]) -> bytes:
    """All verdicts, and a sentence for each file that was not read."""
    results = [
        {"file": source.name, "error": seen.sentence}
        if isinstance(seen, datasets.Refused)
        else seen.prediction.to_json()
        for source, seen in looks
    ]
    said = {"checkpoint": model.hash, "checkpoint_name": model.card.name, "warnings": list(model.card.warnings)}
    return files.as_json(said | {"results": results})


def verdicts_csv(looks: Sequence[tuple[datasets.Source, Look | datasets.Refused]]) -> bytes:
    """The same as a table, one row a file. A cell that a spreadsheet would take for a formula gets an apostrophe."""
    rows = []
    for source, seen in looks:
        if isinstance(seen, datasets.Refused):
            rows.append({"file": source.name, "error": seen.sentence})
            continue
        told = seen.prediction.to_json()
        probs = {f"p({name})": round(p, 6) for name, p in told.pop("probs").items()}
        rows.append(told | {"confidence": round(seen.prediction.confidence, 6)} | probs | {"error": ""})
    table = pd.DataFrame(rows).map(lambda cell: escape_formula(cell) if isinstance(cell, str) else cell)
    return table.to_csv(index=False).encode("utf-8-sig")  # the mark lets spreadsheets read accents
