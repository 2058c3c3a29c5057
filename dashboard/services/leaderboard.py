"""All models and baselines on the same images, compared by a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from dashboard.services import datasets, evaluation, files, jobs, models
from steel_core.baselines.base import BASELINES
from steel_core.leaderboard.checkpoints import PARTS, leaderboard
from steel_core.leaderboard.table import CAUTION, FIGURES, Entry, Leaderboard
from steel_core.metrics import curves
from steel_core.models.checkpoint import CARD
from steel_core.render import plots
from steel_core.types import CLEAR

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["CAUTION", "FIGURES", "PARTS", "Entry", "Leaderboard"]

_KEPT = 8  # finished comparisons


class Asked(NamedTuple):
    """What to compare on.

    Attributes:
        data: name of the data set.
        part: one of `PARTS`.
        baselines: whether the baselines compete.
        binary: whether all defect types are one class.
    """

    data: str
    part: str
    baselines: bool
    binary: bool = False


class Comparing(jobs.Task[Leaderboard]):
    """A comparison that a worker makes; all sessions that ask for the same share it, also when it is finished.

    Evaluations that are finished when it is stopped are kept.
    """

    def __init__(self, asked: Asked) -> None:
        self._made_of = _state(asked.data)
        self._data = asked.data
        index = datasets.dataset(asked.data)
        super().__init__(
            "leaderboard",
            lambda count: leaderboard(
                index.binary() if asked.binary else index,
                list(models.available()),
                asked.part,
                baselines=asked.baselines,
                progress=count,
            ),
        )

    @property
    def outdated(self) -> bool:
        """Whether the data set or a model has changed, come or gone since it was asked for."""
        return self._made_of != _state(self._data)


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[Asked, Comparing]:
    return {}


def _state(data: str) -> tuple[object, ...]:
    """Changes when the data set or any model does."""
    folders = models.available()
    return files.stamp(datasets.available()[data]), *((name, files.stamp(folders[name] / CARD)) for name in folders)


def comparing(asked: Asked) -> Comparing | None:
    """The comparison that was asked for, at work or finished; None if nobody asked, or somebody stopped it."""
    job = _jobs().get(asked)
    return None if job is None or job.stopped else job


def start(asked: Asked) -> None:
    """Let a worker compare all models on a data set."""
    jobs = _jobs()
    for key in [key for key, old in list(jobs.items()) if old.made.done()][:-_KEPT]:
        jobs.pop(key, None)
    jobs[asked] = Comparing(asked)


def forget(asked: Asked) -> None:
    """Forget a comparison, so that it can be asked for again."""
    _jobs().pop(asked, None)


def seconds_to_compare(asked: Asked) -> float:
    """How long a comparison will take at the most, roughly: where no evaluation is stored yet."""
    contenders = len(models.available()) + (len(BASELINES) if asked.baselines else 0)
    return contenders * evaluation.seconds_to_evaluate(asked.data)


def tells_types(data: str) -> bool:
    """Whether a data set knows clear sheets and several types of defects, so that two questions can be asked of it."""
    classes = datasets.dataset(data).classes
    return CLEAR in classes and len(classes) > 2


def dots(board: Leaderboard, figure: str) -> go.Figure:
    """One figure of every row with its interval."""
    found = {}
    for entry in board.entries:
        value, interval = getattr(entry.report, figure), entry.report.intervals[figure]
        if value is not None and interval is not None:
            found[entry.name] = (value, *interval)
    return plots.dots(found, FIGURES[figure], [entry.name for entry in board.entries if entry.baseline])


def overlaid(entries: Sequence[Entry], label: str) -> dict[str, go.Figure]:
    """Curves of one class by several models on the same images; none where these are all of it or all not."""
    sides = {}
    for entry in entries:
        k = entry.evaluation.classes.index(label)
        sides[entry.name] = (entry.evaluation.probs[:, k], entry.evaluation.labels == k, list(entry.evaluation.groups))
    if not all(0 < positive.sum() < len(positive) for _, positive, _ in sides.values()):
        return {}
    return {
        "ROC curves": plots.roc({name: curves.roc(*side) for name, side in sides.items()}),
        "Precision and recall": plots.precision_recall(
            {name: curves.precision_recall(*side) for name, side in sides.items()}
        ),
    }


def csv(board: Leaderboard) -> bytes:
    """The rows in numbers; no cell runs as a formula."""
    return board.to_csv().encode("utf-8-sig")
