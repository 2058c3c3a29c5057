"""What predicts the label in the images of a data set: asked once for each, and marked on its pictures."""

import functools

import cv2
import numpy as np

from dashboard.services import datasets, files, jobs
from dashboard.services.cache import cached_data
from steel_core import render
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import CELLS, FILE_FACTS, MARKS, PLACE, describe_file, find_marks
from steel_core.errors import DataError, ImageError
from steel_core.evaluation.label_clues import LEAST, LabelClue, find_label_clues
from steel_core.progress import Progress
from steel_core.render import data_plots
from steel_core.render.plots import Figure
from steel_core.types import Box

__all__ = ["FILE_FACTS", "MARKS", "LabelClue"]

CLUES: jobs.Kind[list[LabelClue]] = jobs.Kind("clues", queue="clues")

_DRAWN = 5  # clues in a plot


def ask(data: str, again: bool = False) -> jobs.Job[list[LabelClue]]:
    """The work that finds what predicts the label, begun where nobody has asked of this list of images."""
    key = (data, files.stamp(datasets.available()[data]))
    job = jobs.board().get(CLUES, key)
    if job is None or again:
        job = jobs.board().start(CLUES, key, functools.partial(_find, datasets.dataset(data)))
    return job


def _find(index: DatasetIndex, progress: Progress) -> list[LabelClue]:
    return find_label_clues(index, progress=progress)


def strengths(clues: list[LabelClue]) -> Figure:
    """The strongest of them, and the line above which one alarms."""
    shown = sorted(clues, key=lambda clue: (not clue.alarming, -clue.strength))[:_DRAWN]
    return data_plots.clue_strengths(
        [f"{clue.name}: {clue.label}" for clue in shown],
        np.array([clue.strength for clue in shown]),
        np.array([clue.interval for clue in shown]),
        np.array([clue.alarming for clue in shown]),
        LEAST,
    )


def fact(data: str, row: int, clue: LabelClue) -> str:
    """What the clue is in this image, where it is a fact of the file; else nothing."""
    if clue.name not in FILE_FACTS:
        return ""
    try:
        return describe_file(datasets.dataset(data).path(row).read_bytes()).get(clue.name, "")
    except (OSError, DataError):
        return ""


@cached_data(
    lambda data, row, clue: (datasets.source(datasets.dataset(data), row).key, clue.name, clue.where), max_entries=2000
)
def picture(data: str, row: int, clue: LabelClue) -> bytes | datasets.Refused:
    """A JPEG of an image on which the clue is outlined where it has an outline: a mark, a place."""
    try:
        image = datasets.dataset(data).image(row)
        drawn = render.thumbnail(image, datasets.THUMBNAIL)
        if (zoom := datasets.THUMBNAIL // max(drawn.shape[:2])) > 1:  # so that outlines are finer than pixels
            drawn = np.asarray(cv2.resize(drawn, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR))
        if clue.name in MARKS:
            mark = find_marks(image.grey())[MARKS.index(clue.name)]
            drawn = render.draw_outline(drawn, mark)
        elif clue.clue is PLACE and clue.where:
            row_cell, column_cell = (int(share * CELLS) for share in clue.where)
            box = Box("", column_cell, row_cell, column_cell + 1, row_cell + 1)
            drawn = render.draw_boxes(drawn, [box], (CELLS, CELLS))
    except (ImageError, DataError) as error:
        return datasets.Refused(str(error))
    return files.jpeg(drawn)
