"""Inside the classical chain: taught beside the page, then looked into for any image."""

import functools

import cv2
import numpy as np
import pandas as pd

from dashboard.services import datasets, jobs
from dashboard.services.cache import cached_data
from dashboard.services.leaderboard import ComparisonRequest, Leaderboard
from steel_core import render
from steel_core.errors import SteelError
from steel_core.leaderboard.baselines import NAME, ChainSteps, FittedBaseline, explain_chain, fit_baseline
from steel_core.leaderboard.table import BASELINE
from steel_core.types import UInt8Array

NAMED = f"{NAME}{BASELINE}"  # its row in a leaderboard

CHAIN: jobs.Kind[FittedBaseline] = jobs.Kind("classical chain", queue="leaderboard", kept=4)

LARGEST, OTHERS = "largest candidate", "other candidates"

_SECONDS_AN_IMAGE = 0.02  # to read, segment and measure it
_SIDE = 400  # pixels that a picture's shorter side is enlarged to, so that outlines are thin


def teaching(asked: ComparisonRequest, board: Leaderboard) -> jobs.Job[FittedBaseline] | None:
    """The chain of this leaderboard, which learns as that one did, or has learnt; None if nobody asked for it."""
    job = jobs.board().get(CHAIN, asked)
    return job if job and job.about is board and not job.stopped else None


def start(asked: ComparisonRequest, board: Leaderboard) -> None:
    jobs.board().forget(CHAIN, asked)
    jobs.board().start(CHAIN, asked, functools.partial(fit_baseline, NAME, board.index, board.classes), about=board)


def seconds_to_teach(board: Leaderboard) -> float:
    return _SECONDS_AN_IMAGE * int((board.index.table["split"] == "train").sum())


def images(board: Leaderboard, most: int) -> dict[str, str]:
    """Images that were counted, by path, with what the chain said of them; those it named wrong first."""
    evaluation = next(entry.evaluation for entry in board.entries if entry.name == NAMED)
    table = evaluation.table.assign(wrong=evaluation.wrong).sort_values("wrong", ascending=False, kind="stable")
    return {
        row["file"]: f"{row['file'].rpartition('/')[2]}: {row['label']}" + f", called {row['pred']}" * row["wrong"]
        for row in table.head(most).to_dict("records")
    }


@cached_data(lambda job, source: (job.number, source.key), max_entries=20, per_session=True, spinner="Looking inside")
def inside(job: jobs.Job[FittedBaseline], source: datasets.Source) -> ChainSteps | datasets.Refused:
    """What the chain makes of an image, or why it is not read."""
    try:
        return explain_chain(job.future.result(), source.read(), job.about.classes)
    except SteelError as error:
        return datasets.Refused(str(error))


def outlined(steps: ChainSteps) -> tuple[UInt8Array, UInt8Array]:
    """The picture as the chain sees it, and the same with its candidates outlined: number 1 is the largest."""
    height, width = steps.grid.shape
    zoom = max(1, round(_SIDE / min(height, width)))
    grey = np.rint(cv2.resize(steps.grid, (width * zoom, height * zoom), interpolation=cv2.INTER_NEAREST) * 255)
    picture = np.ascontiguousarray(np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2))
    regions = {OTHERS: (steps.candidates > 0) & ~steps.largest, LARGEST: steps.largest}
    signs = render.assign_signs((LARGEST, OTHERS))
    return picture, render.draw_annotations(picture, regions, [], (height, width), signs)


def contributions(steps: ChainSteps, label: str, most: int) -> pd.DataFrame:
    """The features that count most for or against a class: Feature, Value, Adds (to its probability); then the rest."""
    adds = steps.contributions[label]
    first = adds.abs().sort_values(ascending=False, kind="stable").index[:most]
    table = pd.DataFrame({"Feature": first, "Value": steps.features[first].to_numpy(), "Adds": adds[first].to_numpy()})
    rest = adds.drop(first)
    last = pd.DataFrame({"Feature": [f"the other {len(rest)}"], "Value": [np.nan], "Adds": [float(rest.sum())]})
    return pd.concat([table, last], ignore_index=True) if len(rest) else table
