"""Long strips and very large pictures: judged and explained tile by tile, beside the page."""

from dataclasses import replace

from dashboard.services import datasets, files, jobs, maps
from dashboard.services.cache import cached_resource
from dashboard.services.explore import Collection
from steel_core import render
from steel_core.errors import ImageError
from steel_core.inference import tiling
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.inference.tiling import TiledPrediction
from steel_core.progress import Progress
from steel_core.render import data_plots
from steel_core.render.plots import Figure
from steel_core.types import Attribution, Box, SteelImage, UInt8Array

__all__ = ["TiledPrediction"]

_VERDICTS: jobs.Kind[TiledPrediction] = jobs.Kind("strip", queue="explore", kept=32, abandoned=True)
_MAPS: jobs.Kind[Attribution] = jobs.Kind("map of a strip", queue="explore", kept=4, abandoned=True)
_LONGEST = 3000  # pixels of a strip as a plot shows it
_WIDEST = 1600  # pixels of a part of it


def is_strip(model: Predictor, collection: Collection, row: int) -> bool:
    """Whether an image is so long or large that the model judges it in tiles; False if it cannot be read."""
    try:
        return tiling.needs_tiling(model, *collection.index.size(row))
    except ImageError:
        return False


def judge(model: Predictor, source: datasets.Source) -> jobs.Job[TiledPrediction]:
    """The work that judges a strip tile by tile; started when it is first asked for."""

    def work(progress: Progress) -> TiledPrediction:
        return tiling.predict_images(model, [source.read()], progress)[0]

    key = (model.hash, source.key)
    return jobs.board().get(_VERDICTS, key) or jobs.board().start(_VERDICTS, key, work)


def judge_again(model: Predictor, source: datasets.Source) -> None:
    """Begin anew with a strip whose judging was stopped."""
    jobs.board().forget(_VERDICTS, (model.hash, source.key))


def explain(model: Predictor, source: datasets.Source, target: str) -> jobs.Job[Attribution]:
    """The work that stitches the Grad-CAM of a strip for one class; started when it is first asked for."""

    def work(progress: Progress) -> Attribution:
        return tiling.explain_tiled(model, source.read(), maps.MAPS[0], target, progress)

    key = (model.hash, source.key, target)
    return jobs.board().get(_MAPS, key) or jobs.board().start(_MAPS, key, work)


def explain_again(model: Predictor, source: datasets.Source, target: str) -> None:
    """Begin anew with a map that was stopped."""
    jobs.board().forget(_MAPS, (model.hash, source.key, target))


def plot(
    model: Predictor,
    source: datasets.Source,
    strip: TiledPrediction,
    chosen: int,
    stitched: Attribution | None,
    opacity: float,
) -> Figure:
    """The whole strip with its tiles marked by their verdicts, under its map if there is one."""
    outcomes = [one.outcome for one in strip.predictions]
    drawn = _thumbnail(source)
    if stitched:
        image = SteelImage(drawn, source.name, stitched.image_sha256)
        drawn = render.overlay(image, map_evidence(stitched), model.map_scale(stitched)[0], opacity, _LONGEST)
    return data_plots.strip_tiles(drawn, (strip.height, strip.width), strip.tiles, outcomes, chosen)


@cached_resource(lambda source: source.key, max_entries=4, spinner="Drawing")
def _thumbnail(source: datasets.Source) -> UInt8Array:
    return render.thumbnail(source.read(), _LONGEST)


def window(strip: TiledPrediction, number: int, breadth: int) -> Box:
    """The part of a strip around a tile that is as many tiles long, or all of it where that is less."""
    tile = strip.tiles[number]
    along, across = (breadth, 1) if strip.width >= strip.height else (1, breadth)
    width = min(strip.width, along * (tile.xmax - tile.xmin))
    height = min(strip.height, across * (tile.ymax - tile.ymin))
    left = min(max((tile.xmin + tile.xmax - width) // 2, 0), strip.width - width)
    top = min(max((tile.ymin + tile.ymax - height) // 2, 0), strip.height - height)
    return Box("", left, top, left + width, top + height)


def close_up(
    model: Predictor, source: datasets.Source, shown: Box, stitched: Attribution | None, opacity: float
) -> bytes:
    """JPEG of a part of a strip, with its map if there is one."""
    part = tiling.crop_tile(_decoded(source), shown)
    if not stitched:
        return files.jpeg(render.thumbnail(part, _WIDEST))
    values = map_evidence(replace(stitched, values=stitched.values[shown.ymin : shown.ymax, shown.xmin : shown.xmax]))
    return files.jpeg(render.overlay(part, values, model.map_scale(stitched)[0], opacity, _WIDEST))


@cached_resource(lambda source: source.key, max_entries=2, spinner="Reading the strip")
def _decoded(source: datasets.Source) -> SteelImage:
    return source.read()
