"""DeepSHAP: DeepLIFT against each of several reference images, and the mean of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.explain.expected_gradients import check_background, evenly
from steel_core.explain.rescale import contributions
from steel_core.models.base import Classifier


@EXPLAINERS.register("deep-shap")
@dataclass(frozen=True)
class DeepShap(Explainer):
    """Mean, over reference images, of DeepLIFT with the rescale rule.

    The values of an image sum to its logit minus the mean logit of the reference images that were used. Each of them
    costs a forward and a backward pass of image and reference together, so their number is limited.

    Attributes:
        references: most reference images to use, evenly spread over the background; at least 1.
    """

    references: int = 20

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="DeepSHAP",
        plain="Shows how much each spot moves the score up or down compared with ordinary sheets, by a quick rule.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874, section 4.2; DeepLIFT: Shrikumar et al., ICML 2017, "
        "arXiv:1704.02685",
        needs=frozenset({"gradients", "background"}),
        forward=40,
        backward=40,
        class_dependent=True,
        additive=True,
        blur=2.0,
    )

    def __post_init__(self) -> None:
        if self.references < 1:
            raise UsageError(f"DeepSHAP references: expected at least 1, got {self.references}")

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        used = evenly(check_background(inputs, background), self.references)
        maps = [
            contributions(model, image.expand_as(used), used, target.expand(len(used), *target.shape[1:])).mean(dim=0)
            for image, target in zip(inputs.split(1), targets.split(1), strict=True)
        ]
        return torch.stack(maps).sum(dim=1, keepdim=True)
