"""Verdicts: what a page shows of an image at first sight."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image

from dashboard.services import datasets, files
from dashboard.services.cache import cached_data
from steel_core import render
from steel_core.data.readers.manifest import escape_formula
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import TiledPrediction, crop_tile, predict_images
from steel_core.types import Box, Prediction, SteelImage

MOST_FILES = 100  # images that one visitor may have looked at together
PREVIEW = 800  # pixels a side of the picture that a page shows, at most


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What a page shows of one image, of `height` by `width` pixels, at first sight.

    `tiled` is one look or, of a long strip or a very large picture, one a tile; `preview` a JPEG; `part` that of the
    model's data that held this very image ("train", "val", "test"), or "".
    """

    tiled: TiledPrediction
    height: int
    width: int
    preview: bytes
    part: str

    @property
    def prediction(self) -> Prediction:
        return self.tiled.verdict

    @property
    def in_tiles(self) -> bool:
        """Whether the image is so long or large that its verdict is that of its worst tile."""
        return len(self.tiled.tiles) > 1

    def picture(self) -> SteelImage:
        """The preview, decoded, to draw maps on."""
        pixels = np.asarray(Image.open(io.BytesIO(self.preview)))
        return SteelImage(pixels, self.prediction.name, self.prediction.image_sha256)


Looks = Sequence[tuple[datasets.Source, FirstLook | datasets.Refused]]  # or why there is none


def take_first_look(model: Predictor, source: datasets.Source) -> FirstLook | datasets.Refused:
    """The verdict on one image, or why there is none; `first_look` keeps it for its visitor."""
    try:
        image = source.read()
        tiled = predict_images(model, [image])[0]
    except SteelError as error:
        return datasets.Refused(str(error))
    part = model.card.part_of(image)
    return FirstLook(tiled, image.height, image.width, files.jpeg(render.thumbnail(image, PREVIEW)), part)


first_look = cached_data(lambda model, source: (model.hash, source.key), max_entries=500, per_session=True)(
    take_first_look
)


@dataclass(frozen=True)
class Tile(datasets.Source):
    """The worst tile of a strip, as a picture of its own; `place` is what it covers of the strip."""

    place: Box = field(kw_only=True)

    def read(self) -> SteelImage:
        return crop_tile(super().read(), self.place)


def explainable_part(source: datasets.Source, seen: FirstLook) -> tuple[datasets.Source, FirstLook]:
    """What one look can explain: the image, or the worst tile of a strip, whose note tells its place."""
    if not seen.in_tiles:
        return source, seen
    place = seen.tiled.tiles[seen.tiled.worst]
    tile = Tile(source.name, source.key, source.origin, source.labels, source.licence, place=place)
    return tile, _look_at_tile(tile, seen)


@cached_data(lambda tile, seen: (tile.key, seen.prediction.checkpoint), max_entries=100, per_session=True)
def _look_at_tile(tile: Tile, seen: FirstLook) -> FirstLook:
    image = tile.read()
    alone = TiledPrediction((tile.place,), (seen.tiled.decisive,), seen.height, seen.width)
    return FirstLook(alone, image.height, image.width, files.jpeg(render.thumbnail(image, PREVIEW)), seen.part)


@cached_data(lambda seen: seen.prediction.image_sha256, max_entries=1000, per_session=True)
def row_picture(seen: FirstLook) -> bytes:
    """JPEG of an image's preview at the size of a table's row, made once."""
    picture = Image.open(io.BytesIO(seen.preview))
    picture.thumbnail((96, 96))
    return files.jpeg(np.asarray(picture))


def two_likeliest(model: Predictor, seen: FirstLook) -> tuple[str, str]:
    """The predicted class and the next one, or "" where there is no other."""
    ranked = sorted(model.classes, key=lambda name: -seen.prediction.probs[name])
    return ranked[0], ranked[1] if ranked[1:] else ""


def verdicts_json(model: Predictor, looks: Looks) -> bytes:
    """All verdicts, and a sentence for each file that was not read."""
    results = [
        {"file": source.name, "error": seen.sentence}
        if isinstance(seen, datasets.Refused)
        else seen.prediction.to_json()
        for source, seen in looks
    ]
    about = {"checkpoint": model.hash, "checkpoint_name": model.card.name, "warnings": list(model.card.warnings)}
    return files.as_json(about | {"results": results})


def verdicts_csv(looks: Looks) -> bytes:
    """The same as a table, one row a file. A cell that a spreadsheet would take for a formula gets an apostrophe."""
    rows = []
    for source, seen in looks:
        if isinstance(seen, datasets.Refused):
            rows.append({"file": source.name, "error": seen.sentence})
            continue
        row = seen.prediction.to_json()
        probs = {f"p({name})": round(p, 6) for name, p in row.pop("probs").items()}
        rows.append(row | {"confidence": round(seen.prediction.confidence, 6)} | probs | {"error": ""})
    table = pd.DataFrame(rows).map(lambda cell: escape_formula(cell) if isinstance(cell, str) else cell)
    return table.to_csv(index=False).encode("utf-8-sig")  # the mark lets spreadsheets read accents
