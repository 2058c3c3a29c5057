"""LIME: a linear model of the score near the picture, with superpixels that are shown or hidden as its inputs."""

from dataclasses import dataclass

import numpy as np
import torch
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import Tensor

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query

_KERNEL = 0.25  # width of the kernel over the cosine distance, as in the authors' code


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
