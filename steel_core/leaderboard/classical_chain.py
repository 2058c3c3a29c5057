"""What the classical chain makes of one image, step by step: candidates, F features, what these count for K classes.

Legend: H rows, W columns, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from steel_core.baselines.methods.classical_chain import ClassicalChain, measure_regions
from steel_core.data.index import DatasetIndex
from steel_core.leaderboard.baselines import FittedBaseline, fit_baseline
from steel_core.progress import Progress, no_progress
from steel_core.types import BoolArray, Float32Array, SteelImage

NAME = "classical-chain"


@dataclass(frozen=True, eq=False)
class ChainSteps:
    """The intermediate results for one image.

    Attributes:
        grid: (H, W) grey in 0 to 1, as the chain sees it.
        candidates: (H, W) number of the region at each pixel that deviates from its surroundings, 0 for none.
        largest: (H, W) whether a pixel belongs to the largest candidate.
        features: (F,) value by name.
        before: probability of each class before any feature is looked at: the mean over what it learnt from.
        contributions: (F, K) what each feature adds to each class: SHAP values, which sum to `probs` less `before`.
    """

    grid: Float32Array
    candidates: npt.NDArray[np.int32]
    largest: BoolArray
    features: pd.Series[float]
    probs: dict[str, float]
    before: dict[str, float]
    contributions: pd.DataFrame


def fit_chain(index: DatasetIndex, classes: tuple[str, ...], progress: Progress = no_progress) -> FittedBaseline:
    """The classical chain, as a leaderboard on this data set has it: learnt from the train split.

    Raises:
        DataError: there is nothing to learn from.
    """
    return fit_baseline(NAME, index, classes, progress)


def explain_chain(baseline: FittedBaseline, image: SteelImage, classes: tuple[str, ...]) -> ChainSteps:
    """The chain's steps for one image; `classes` are those that it was taught with."""
    chain = baseline.model
    assert isinstance(chain, ClassicalChain)
    grids = baseline.to_grids([image])
    chain_steps = measure_regions(grids[0])
    sizes = np.bincount(chain_steps.candidates.ravel())
    sizes[0] = 0
    probs = chain.predict(grids)[0]
    contributions = pd.DataFrame(
        {name: values[0] for name, values in chain.importances(grids).items()}, index=list(classes)
    ).T
    return ChainSteps(
        grids[0],
        chain_steps.candidates,
        (chain_steps.candidates == sizes.argmax()) & (chain_steps.candidates > 0),
        pd.Series(chain_steps.features),
        dict(zip(classes, probs.tolist(), strict=True)),
        dict(zip(classes, (probs - contributions.sum().to_numpy()).tolist(), strict=True)),
        contributions,
    )
