"""The scale of each explainer's maps: the evidence that gets the full colour, fixed on validation images."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from steel_core import render
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.progress import Progress
from steel_core.training.images import ImageTable
from steel_core.types import Float32Array, SteelImage

IMAGES = 12
"""How many images a scale is taken from, at the most."""

_FEWEST, _PASSES = 4, 1_000  # SHAP and LIME ask the network hundreds of times for one image


def map_scales(predictor: Predictor, images: Sequence[SteelImage], progress: Progress) -> dict[str, float]:
    """For each explainer that finds any evidence in these images, the value for `Card.map_scale`.

    A dear explainer is asked about the first few of them: their scale is that of all their pixels.
    """
    asked = [(method, image) for method in EXPLAINERS for image in images[: images_asked(method)]]
    maps: dict[str, list[Float32Array]] = {}
    for done, (method, image) in enumerate(asked):
        progress("scale of the maps", done, len(asked))
        maps.setdefault(method, []).append(map_evidence(predictor.explain(image, method)))
    progress("scale of the maps", len(asked), len(asked))
    return {method: render.evidence_scale(some) for method, some in maps.items() if any(map(np.any, some))}


def images_asked(method: str) -> int:
    """How many images the scale of a method is taken from: about a thousand passes of the network, 4 to 12 images."""
    info = EXPLAINERS[method].info
    return min(IMAGES, max(_FEWEST, _PASSES // max(info.forward + 2 * info.backward, 1)))


def some_images(table: ImageTable, rows: Tensor) -> list[SteelImage]:
    """Up to `IMAGES` of the images at those positions of a table, spread evenly, on the grid that the network sees."""
    chosen = rows[:: max(1, len(rows) // IMAGES)][:IMAGES]
    grids = [table.grids[i, 0].float().numpy() for i in chosen.tolist()]
    return [SteelImage((grid * 65535).astype(np.uint16), "", "") for grid in grids]


def validation_images(predictor: Predictor, index: DatasetIndex, seed: int = 0) -> list[SteelImage]:
    """Up to `IMAGES` images that served to validate the checkpoint, by the hash of their bytes; DataError if none."""
    images: list[SteelImage] = []
    for row in np.random.default_rng(seed).permutation(len(index)):
        try:
            image = index.image(int(row))
        except ImageError:
            continue
        if predictor.card.part_of(image) == "val":
            images.append(image)
        if len(images) == IMAGES:
            break
    if not images:
        raise DataError(f"expected validation images of {predictor.card.name}; {index.spec.title} holds none of them")
    return images
