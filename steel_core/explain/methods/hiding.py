"""What happens to the score when parts of the picture are hidden: a sliding window, or superpixels, many at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import Tensor

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query

_KERNEL = 0.25  # width of LIME's kernel over the cosine distance, as in the authors' code


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


@EXPLAINERS.register("lime")
@dataclass(frozen=True)
class Lime(Explainer):
    """Weight of each superpixel in a ridge regression of the logit on which superpixels are shown.

    Each is hidden behind mean grey in half of the samples. Samples count by their likeness to the whole picture, and
    the ridge's penalty is 1, as in the authors' code. All pixels of a superpixel get its weight.
    """

    samples: int = 300  # pictures with hidden parts that the model is asked about, the whole one among them; at least 2
    superpixels: int = 60  # about how many, at least 1; SLIC finds them on the grey picture

    info = ExplainerInfo(
        title="LIME",
        plain="Hides patches that look alike, many at a time, and shows how much each moves the score for this class.",
        source="Ribeiro et al., Why Should I Trust You?, KDD 2016, arXiv:1602.04938; superpixels: Achanta et al., "
        "IEEE TPAMI 34(11), 2012",
        needs=frozenset({"baseline", "seed"}),
        forward=300,
        backward=0,
    )

    def __post_init__(self) -> None:
        if self.samples < 2 or self.superpixels < 1:
            raise UsageError(
                f"LIME: expected at least 2 samples and 1 superpixel, got {self.samples} and {self.superpixels}"
            )

    def _attribute(self, query: Query) -> Tensor:
        return torch.stack([self._map(query, *image) for image in query.images()])[:, None]

    def _map(self, query: Query, image: Tensor, target: Tensor) -> Tensor:
        """(H, W) of one image (1, C, H, W)."""
        grey = image[0].mean(dim=0).cpu().double().numpy()
        labels = slic(grey, n_segments=self.superpixels, compactness=0.1, sigma=1.0, start_label=0, channel_axis=None)
        segments = torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(grey.shape))
        generator = torch.Generator().manual_seed(query.seed)
        shown = torch.rand(self.samples, int(segments.max()) + 1, generator=generator) < 0.5
        shown[0] = True
        masks = (row[segments] for row in shown)
        scores = engine.masked_scores(query.model, image, target, masks).cpu().double().numpy()
        presence = shown.double().numpy()
        distance = 1 - np.sqrt(presence.mean(axis=1))  # of a 0-1 vector to all ones, in terms of its cosine
        weights = np.sqrt(np.exp(-((distance / _KERNEL) ** 2)))
        return torch.from_numpy(Ridge(alpha=1.0).fit(presence, scores, sample_weight=weights).coef_)[segments]
