"""All models and baselines on the same images, compared by a worker."""

from collections.abc import Sequence
from typing import NamedTuple

from dashboard.services import datasets, evaluation, files, jobs, models
from steel_core.baselines.base import BASELINES
from steel_core.leaderboard.checkpoints import PARTS, build_leaderboard
from steel_core.leaderboard.table import CAUTION, ESTIMATES, Entry, Leaderboard
from steel_core.models.checkpoint import CARD
from steel_core.progress import Progress
from steel_core.render import evaluation_plots
from steel_core.render.plots import Figure
from steel_core.types import CLEAR

__all__ = ["CAUTION", "ESTIMATES", "PARTS", "Entry", "Leaderboard"]

COMPARISON: jobs.Kind[Leaderboard] = jobs.Kind("comparison", queue="leaderboard")


class ComparisonRequest(NamedTuple):
    """What to compare on: one of `PARTS` of a data set; if `binary`, all defect types are one class."""

    data: str
    part: str
    baselines: bool
    binary: bool = False


def _state(data: str) -> tuple[object, ...]:
    folders = models.available()
    return files.stamp(datasets.available()[data]), *((name, files.stamp(folders[name] / CARD)) for name in folders)


def is_outdated(asked: ComparisonRequest, comparison: jobs.Job[Leaderboard]) -> bool:
    """Whether the data set or a model has changed, come or gone since it was asked for."""
    return bool(comparison.about != _state(asked.data))


def start(asked: ComparisonRequest) -> None:
    """Let a worker compare all models on a data set. Evaluations that are finished when it is stopped are kept."""
    index = datasets.dataset(asked.data)

    def work(progress: Progress) -> Leaderboard:
        names = list(models.available())
        images = index.binary() if asked.binary else index
        return build_leaderboard(images, names, asked.part, baselines=asked.baselines, progress=progress)

    jobs.board().start(COMPARISON, asked, work, about=_state(asked.data))


def seconds_to_compare(asked: ComparisonRequest) -> float:
    """How long a comparison will take at the most, roughly: where no evaluation is stored yet."""
    contenders = len(models.available()) + (len(BASELINES) if asked.baselines else 0)
    return contenders * evaluation.seconds_to_evaluate(asked.data)


def tells_types(data: str) -> bool:
    """Whether a data set knows clear sheets and several types of defects, so that two questions can be asked of it."""
    classes = datasets.dataset(data).classes
    return CLEAR in classes and len(classes) > 2


def dots(board: Leaderboard, metric: str) -> Figure:
    """One metric of every row with its interval."""
    values = {}
    for entry in board.entries:
        value, interval = getattr(entry.report, metric), entry.report.intervals[metric]
        if value is not None and interval is not None:
            values[entry.name] = (value, *interval)
    return evaluation_plots.dots(values, ESTIMATES[metric], [entry.name for entry in board.entries if entry.baseline])


def overlaid_curves(entries: Sequence[Entry], label: str) -> dict[str, Figure]:
    """Curves of one class by several models on the same images; none where these are all of it or all not."""
    sides = {}
    for entry in entries:
        k = entry.evaluation.classes.index(label)
        sides[entry.name] = (entry.evaluation.probs[:, k], entry.evaluation.labels == k, list(entry.evaluation.groups))
    return evaluation.draw_curves(sides)
