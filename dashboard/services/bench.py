"""The live bench: one image with and without a stain, and the controls beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dashboard.services import datasets, maps, models
from dashboard.services.cache import cached_data
from steel_core.audit.bench import BenchRow, SmallestFlip, find_smallest_flip, run_bench
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.audit.stains import cut_stain, make_stain
from steel_core.data.index import DatasetIndex
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA, SHAPES, TEXTURES
from steel_core.render import Panel
from steel_core.reports.image_report import draw_panel
from steel_core.types import CLEAR, Mask

__all__ = ["LARGEST_AREA", "SHAPES", "TEXTURES", "BenchRow", "StainSettings"]

_SHOWN_FIRST = "images/sheet-000014.png"  # a shipped sheet that the stain turns; the page says why it comes first


@dataclass(frozen=True, slots=True)
class Stain:
    """A stain on one image; one that was cut out of an image keeps its own brightness, shape and texture.

    `area` is a share of the picture, `brightness` 0 to 1, `centre` row and column, 0 to 1; beside the defect if None.
    """

    kind: StainSettings
    area: float = 0.05
    brightness: float = 0.92
    centre: tuple[float, float] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others of its size."""
        return self.kind.to_json(), self.brightness, self.centre

    def perturbation(self) -> WhiteStain:
        return make_stain(self.kind.replace(brightness=self.brightness), self.centre)


@cached_data(lambda source, box: (source.key, box), max_entries=8, per_session=True)
def cut_out(source: datasets.Source, box: tuple[int, int, int, int]) -> StainSettings | datasets.Refused:
    """The stain that a box marks in an image (left, top, width, height; pixels), or why there is none."""
    try:
        return cut_stain(source.read(), box, StainSettings())
    except SteelError as error:
        return datasets.Refused(str(error))


def defective_sheets(index: DatasetIndex, most: int = 200) -> list[str]:
    """Paths of the first sheets that are not clear."""
    labels = index.table["labels"]
    paths = index.table["path"][(labels != CLEAR) & (labels != "")].head(most).tolist()
    return sorted(paths, key=lambda path: path != _SHOWN_FIRST)


def is_shown_for_its_effect(source: datasets.Source) -> bool:
    """Whether this is the sheet that `defective_sheets` puts first because a stain turns it."""
    return isinstance(source.origin, Path) and source.origin.as_posix().endswith(_SHOWN_FIRST)


def perhaps_stained(index: DatasetIndex, most: int = 200) -> list[str]:
    """Paths of images to cut a stain out of: the clear ones, where they are known, before all others."""
    table = index.table
    return table.sort_values("labels", kind="stable", key=lambda labels: labels != CLEAR)["path"].head(most).tolist()


def demonstration(model: Predictor) -> str:
    """Name of the shipped model with a planted shortcut, where it is here and another one is chosen; else ""."""
    shown = "strip-mill"
    return shown if shown in models.available() and model.card.name != shown else ""


@cached_data(
    lambda model, source, stain, watched: (model.hash, source.key, stain.area, stain.key, watched),
    max_entries=24,
    per_session=True,
)
def rows(model: Predictor, source: datasets.Source, stain: Stain, watched: str) -> tuple[BenchRow, ...]:
    """The image as it is, with the stain, and with each control at the same place."""
    defect, image = defect_mask(model, source), source.read()
    return run_bench(
        model, image, stain.perturbation(), stain.area, defect=defect, watched=watched, seed=stain.kind.seed
    )


@cached_data(lambda model, source, stain: (model.hash, source.key, stain.key), max_entries=64, per_session=True)
def smallest_stain(model: Predictor, source: datasets.Source, stain: Stain) -> SmallestFlip | None:
    """The smallest stain of this kind and place that turns the image; to "clear", where the model knows it."""
    towards = CLEAR if CLEAR in model.classes else ""
    defect, image = defect_mask(model, source), source.read()
    return find_smallest_flip(model, image, stain.perturbation(), defect=defect, towards=towards, seed=stain.kind.seed)


def defect_mask(model: Predictor, source: datasets.Source) -> Mask | None:
    """Where the defect of an image is, as the network sees it; None where neither a mask nor a box tells."""
    if not isinstance(source.origin, Path):
        return None
    for folder in datasets.available().values():
        if not source.origin.is_relative_to(folder):
            continue
        index = datasets.open_folder(folder)
        inside = source.origin.relative_to(folder).as_posix()
        for i in np.flatnonzero(index.table["path"] == inside):
            image = source.read()
            grid, _ = model.card.preprocessing.to_grid(image)
            return read_defect_mask(index, int(i), (image.height, image.width), grid.shape)
    return None


def draw_map(model: Predictor, row: BenchRow, rows: Sequence[BenchRow]) -> Panel:
    """The evidence of one picture of the bench, drawn on it; all its rows have the same scale."""
    scale, _ = maps.scale_of(model, [one.attribution for one in rows])
    return draw_panel(model, row.image, row.attribution, scale=scale)
