"""Images as a model sees them: their map, and which are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dashboard.services.cache import cached_resource
from dashboard.services.explore import Collection, rows, title
from steel_core.data.filters import PLACES, Filter
from steel_core.inference.embedding import embed_images
from steel_core.inference.predictor import Predictor
from steel_core.render import data_plots
from steel_core.types import Float32Array, SteelImage

if TYPE_CHECKING:
    import plotly.graph_objects as go


@cached_resource(lambda collection, asked, colour: (collection.key, asked, colour), max_entries=16, spinner="Drawing")
def feature_map(collection: Collection, asked: Filter, colour: str) -> tuple[go.Figure, int]:
    """The map of the images that match, coloured by a column of the facts, and how many are on it."""
    mapped = rows(collection, asked)
    mapped = mapped[collection.facts[PLACES[0]].notna().to_numpy()[mapped]]
    chosen = mapped[np.unique(np.linspace(0, len(mapped) - 1, min(len(mapped), data_plots.DRAWN)).astype(int))]
    table = collection.facts.iloc[chosen]
    names = collection.index.table["path"].iloc[chosen].str.rpartition("/")[2].tolist() if len(chosen) else []
    return data_plots.feature_map(table[list(PLACES)].to_numpy(float), names, table[colour], title(colour)), len(mapped)


def alike(collection: Collection, row: int, count: int) -> list[tuple[int, float]]:
    """Rows of the images most alike one of them, and how alike, the image itself left out.

    Raises:
        DataError: the image could not be read.
    """
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
