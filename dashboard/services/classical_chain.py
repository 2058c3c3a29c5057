"""Inside the classical chain: taught beside the page, then looked into for any image."""

from __future__ import annotations

import secrets
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from dashboard.services import datasets, jobs
from dashboard.services.leaderboard import Asked, Leaderboard
from steel_core import render
from steel_core.errors import SteelError
from steel_core.leaderboard.baselines import Judge
from steel_core.leaderboard.classical_chain import NAME, Steps, looked_into, taught_chain
from steel_core.leaderboard.table import BASELINE

NAMED = f"{NAME}{BASELINE}"
"""Its row in a leaderboard."""

LARGEST, OTHERS = "largest candidate", "other candidates"

_SECONDS_AN_IMAGE = 0.02  # to read, segment and measure it
_KEPT = 4  # chains that have learnt
_SIDE = 400  # pixels that a picture's shorter side is enlarged to, so that outlines are thin


class Teaching(jobs.Task[Judge]):
    """A chain that learns as the one of a leaderboard did; all sessions share it, also when it is finished."""

    def __init__(self, board: Leaderboard) -> None:
        self.board = board
        self.key = secrets.token_hex(8)
        super().__init__("leaderboard", partial(taught_chain, board.told, board.classes))


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[Asked, Teaching]:
    return {}


def teaching(asked: Asked, board: Leaderboard) -> Teaching | None:
    """The chain of this leaderboard, at work or finished; None if nobody asked for it, or somebody stopped it."""
    job = _jobs().get(asked)
    return job if job and job.board is board and not job.stopped else None


def start(asked: Asked, board: Leaderboard) -> None:
    """Let a worker teach the chain."""
    jobs = _jobs()
    for key in [key for key, old in list(jobs.items()) if old.made.done()][:-_KEPT]:
        jobs.pop(key, None)
    jobs[asked] = Teaching(board)


def forget(asked: Asked) -> None:
    """Forget a chain, so that it can be asked for again."""
    _jobs().pop(asked, None)


def seconds_to_teach(board: Leaderboard) -> float:
    """How long it will learn, roughly."""
    return _SECONDS_AN_IMAGE * int((board.told.table["split"] == "train").sum())


def images(board: Leaderboard, most: int) -> dict[str, str]:
    """Images that were counted, by path, with what the chain said of them; those it named wrong first."""
    found = next(entry.evaluation for entry in board.entries if entry.name == NAMED)
    table = found.table.assign(wrong=found.wrong).sort_values("wrong", ascending=False, kind="stable").head(most)
    return {
        path: f"{path.rpartition('/')[2]}: {label}" + (f", called {pred}" if wrong else "")
        for path, label, pred, wrong in zip(table["file"], table["label"], table["pred"], table["wrong"], strict=True)
    }


def source(board: Leaderboard, path: str) -> datasets.Source:
    """The image with this path within the data set."""
    return datasets.find(board.told, path)


def inside(job: Teaching, source: datasets.Source) -> Steps | datasets.Refused:
    """What the chain makes of an image, or why it is not read."""
    return _inside(job.key, source.key, job, source)


@st.cache_data(max_entries=20, scope="session", show_spinner="Looking inside")
def _inside(teaching: str, key: str, _job: Teaching, _source: datasets.Source) -> Steps | datasets.Refused:  # noqa: ARG001
    try:
        return looked_into(_job.made.result(), _source.read(), _job.board.classes)
    except SteelError as error:
        return datasets.Refused(str(error))


def outlined(found: Steps) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The picture as the chain sees it, and the same with its candidates outlined: number 1 is the largest."""
    height, width = found.grid.shape
    zoom = max(1, round(_SIDE / min(height, width)))
    grey = np.rint(cv2.resize(found.grid, (width * zoom, height * zoom), interpolation=cv2.INTER_NEAREST) * 255)
    picture = np.ascontiguousarray(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2))
    regions = {OTHERS: (found.candidates > 0) & ~found.largest, LARGEST: found.largest}
    signs = render.signs((LARGEST, OTHERS))
    return picture, render.annotated(picture, regions, [], (height, width), signs)


def weighed(found: Steps, label: str, most: int) -> pd.DataFrame:
    """The features that count most for or against a class: Feature, Value, Adds (to its probability); then the rest."""
    adds = found.contributions[label]
    first = adds.abs().sort_values(ascending=False, kind="stable").index[:most]
    table = pd.DataFrame({"Feature": first, "Value": found.features[first].to_numpy(), "Adds": adds[first].to_numpy()})
    rest = adds.drop(first)
    last = pd.DataFrame({"Feature": [f"the other {len(rest)}"], "Value": [np.nan], "Adds": [float(rest.sum())]})
    return pd.concat([table, last], ignore_index=True) if len(rest) else table
