"""LIME: a linear model of the score near the picture, with superpixels that are shown or hidden as its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from torch import Tensor
from typing_extensions import override

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.explain.masking import masked_scores
from steel_core.models.base import Classifier

_KERNEL = 0.25  # width of the kernel over the cosine distance, as in the authors' code


@EXPLAINERS.register("lime")
@dataclass(frozen=True)
class Lime(Explainer):
    """Weight of each superpixel in a ridge regression of the logit on which superpixels are shown.

    Each is hidden behind mean grey in half of the samples. Samples count by their likeness to the whole picture, and
    the ridge's penalty is 1, as in the authors' code. All pixels of a superpixel get its weight.

    Attributes:
        samples: pictures with hidden parts that the model is asked about, the whole one among them; at least 2.
        superpixels: about how many, at least 1; SLIC finds them on the grey picture.
    """

    samples: int = 300
    superpixels: int = 60

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="LIME",
        plain="Hides patches that look alike, many at a time, and shows how much each moves the score for this class.",
        source="Ribeiro et al., Why Should I Trust You?, KDD 2016, arXiv:1602.04938; superpixels: Achanta et al., "
        "IEEE TPAMI 34(11), 2012",
        needs=frozenset({"baseline", "seed"}),
        forward=300,
        backward=0,
        class_dependent=True,
    )

    def __post_init__(self) -> None:
        if self.samples < 2 or self.superpixels < 1:
            raise UsageError(
                f"LIME: expected at least 2 samples and 1 superpixel, got {self.samples} and {self.superpixels}"
            )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        maps = [
            self._map(model, image, target, torch.Generator().manual_seed(seed))
            for image, target in zip(inputs.split(1), targets.split(1), strict=True)
        ]
        return torch.stack(maps)[:, None].to(inputs)

    def _map(self, model: Classifier, image: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """(H, W) of one image (1, C, H, W)."""
        segments = torch.from_numpy(self._segments(image[0].mean(dim=0).cpu().double().numpy()))
        shown = torch.rand(self.samples, int(segments.max()) + 1, generator=generator) < 0.5
        shown[0] = True
        masks = (rows[:, segments] for rows in shown.split(batch_size(image.device)))
        scores = masked_scores(model, image, target, masks).cpu().double().numpy()
        known = shown.double().numpy()
        distance = 1 - np.sqrt(known.mean(axis=1))  # of a 0-1 vector to all ones, in terms of its cosine
        weights = np.sqrt(np.exp(-((distance / _KERNEL) ** 2)))
        return torch.from_numpy(Ridge(alpha=1.0).fit(known, scores, sample_weight=weights).coef_)[segments]

    def _segments(self, grey: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Number of the superpixel (H, W), from 0, of each pixel."""
        found = slic(grey, n_segments=self.superpixels, compactness=0.1, sigma=1.0, start_label=0, channel_axis=None)
        return np.unique(found, return_inverse=True)[1].reshape(grey.shape)
