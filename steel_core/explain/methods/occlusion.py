"""Occlusion: how much the score falls when a window of the picture is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.explain.masking import masked_scores
from steel_core.models.base import Classifier


@EXPLAINERS.register("occlusion")
@dataclass(frozen=True)
class Occlusion(Explainer):
    """A window of mean grey slides over the picture; a pixel's value is the mean fall of the logit under it.

    The windows overlap by half, and their sides are the same share of the picture's, so every picture costs the same.

    Attributes:
        steps: places of the window along each side, at least 1; it covers 2 / (steps + 1) of the side.
    """

    steps: int = 12

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Occlusion",
        plain="Hides one part after the other behind grey and shows how much the score for this class falls or rises.",
        source="Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901",
        needs=frozenset({"baseline"}),
        forward=145,
        backward=0,
        class_dependent=True,
    )

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"occlusion steps: expected at least 1, got {self.steps}")

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        height, width = inputs.shape[2:]
        windows = [*product(_windows(height, self.steps), _windows(width, self.steps))]
        values, covered = torch.zeros_like(inputs[:, :1]), torch.zeros_like(inputs[0, :1])
        for rows, columns in windows:
            covered[:, rows, columns] += 1
        for image, target, value in zip(inputs.split(1), targets.split(1), values, strict=True):
            whole, *hidden = masked_scores(model, image, target, _masks(image, windows))
            for (rows, columns), score in zip(windows, hidden, strict=True):
                value[:, rows, columns] += whole - score
        return values / covered


def _windows(length: int, steps: int) -> list[slice]:
    """Stretches of a side, each overlapping the next by half, that leave nothing out."""
    edges = [round(i * length / (steps + 1)) for i in range(steps + 2)]
    return [slice(*ends) for ends in zip(edges, edges[2:], strict=False)]


def _masks(image: Tensor, windows: list[tuple[slice, slice]]) -> Iterator[Tensor]:
    """The whole picture, then one mask for each window, in batches (M, H, W)."""
    places = [(slice(0), slice(0)), *windows]
    size = batch_size(image.device)
    for start in range(0, len(places), size):
        batch = places[start : start + size]
        masks = image.new_ones(len(batch), *image.shape[2:])
        for mask, place in zip(masks, batch, strict=True):
            mask[place] = 0
        yield masks
