"""What the classical chain makes of one image, step by step: candidates, their features, what these count for.

Legend: H rows, W columns, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core.baselines.methods.classical_chain import ClassicalChain, steps
from steel_core.data.index import DatasetIndex
from steel_core.leaderboard.baselines import Judge, taught
from steel_core.progress import Progress, no_progress
from steel_core.types import SteelImage

NAME = "classical-chain"


@dataclass(frozen=True, eq=False)
class Steps:
    """The intermediate results for one image.

    Attributes:
        grid: (H, W) grey in 0 to 1, as the chain sees it.
        candidates: (H, W) number of the region at each pixel that deviates from its surroundings, 0 for none.
        largest: (H, W) whether a pixel belongs to the largest candidate.
        features: (F,) value by name.
        probs: what it says, by class.
        before: probability of each class before any feature is looked at: the mean over what it learnt from.
        contributions: (F, K) what each feature adds to the probability of each class: SHAP values, which sum to
            `probs` less `before`.
    """

    grid: npt.NDArray[np.float32]
    candidates: npt.NDArray[np.int32]
    largest: npt.NDArray[np.bool_]
    features: pd.Series[float]
    probs: dict[str, float]
    before: dict[str, float]
    contributions: pd.DataFrame


def taught_chain(index: DatasetIndex, classes: tuple[str, ...], progress: Progress = no_progress) -> Judge:
    """The classical chain, as a leaderboard on this data set has it.

    Args:
        index: the data set, with splits; the chain learns from its train split.
        classes: in the order of the probabilities.
        progress: receives what is being done, how much is done, and of how much.

    Raises:
        DataError: there is nothing to learn from.
    """
    return taught(NAME, index, classes, progress)


def looked_into(judge: Judge, image: SteelImage, classes: tuple[str, ...]) -> Steps:
    """The chain's steps for one image.

    Args:
        judge: of `taught_chain`.
        image: the picture.
        classes: those that it was taught with.
    """
    chain = judge.model
    assert isinstance(chain, ClassicalChain)
    grids = judge.seen([image])
    made = steps(grids[0])
    sizes = np.bincount(made.candidates.ravel())
    sizes[0] = 0
    probs = chain.predict(grids)[0]
    counted = pd.DataFrame(
        {name: values[0] for name, values in chain.importances(grids).items()}, index=list(classes)
    ).T
    return Steps(
        grids[0],
        made.candidates,
        (made.candidates == sizes.argmax()) & (made.candidates > 0),
        pd.Series(made.features),
        dict(zip(classes, probs.tolist(), strict=True)),
        dict(zip(classes, (probs - counted.sum().to_numpy()).tolist(), strict=True)),
        counted,
    )
