"""Occlusion: how much the score falls when a window of the picture is hidden."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query


@EXPLAINERS.register("occlusion")
@dataclass(frozen=True)
class Occlusion(Explainer):
    """A window of mean grey slides over the picture; a pixel's value is the mean fall of the logit under it.

    The windows overlap by half, and their sides are the same share of the picture's, so every picture costs the same.
    """

    steps: int = 12  # places of the window along each side, at least 1; it covers 2 / (steps + 1) of the side

    info = ExplainerInfo(
        title="Occlusion",
        plain="Hides one part after the other behind grey and shows how much the score for this class falls or rises.",
        source="Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901",
        needs=frozenset({"baseline"}),
        forward=145,
        backward=0,
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"occlusion steps: expected at least 1, got {self.steps}")

    def _attribute(self, query: Query) -> Tensor:
        windows = [*product(*(_windows(side, self.steps) for side in query.inputs.shape[2:]))]
        values, covered = torch.zeros_like(query.inputs[:, :1]), torch.zeros_like(query.inputs[0, :1])
        for rows, columns in windows:
            covered[:, rows, columns] += 1
        for (image, target), value in zip(query.images(), values, strict=True):
            whole, *hidden = engine.masked_scores(query.model, image, target, _masks(image, windows))
            for (rows, columns), score in zip(windows, hidden, strict=True):
                value[:, rows, columns] += whole - score
        return values / covered


def _windows(length: int, steps: int) -> list[slice]:
    edges = [round(i * length / (steps + 1)) for i in range(steps + 2)]
    return [slice(*ends) for ends in zip(edges, edges[2:], strict=False)]


def _masks(image: Tensor, windows: list[tuple[slice, ...]]) -> Iterator[Tensor]:
    """The whole picture, then one mask (H, W) for each window."""
    for place in [(slice(0), slice(0)), *windows]:
        mask = image.new_ones(image.shape[2:])
        mask[place] = 0
        yield mask
