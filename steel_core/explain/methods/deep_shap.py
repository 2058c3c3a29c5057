"""DeepSHAP: DeepLIFT against each of several reference images, and the mean of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query
from steel_core.explain.expected_gradients import evenly
from steel_core.explain.rescale import contributions


@EXPLAINERS.register("deep-shap")
@dataclass(frozen=True)
class DeepShap(Explainer):
    """Mean, over reference images, of DeepLIFT with the rescale rule.

    The values of an image sum to its logit minus the mean logit of the reference images that were used. Each of them
    costs a forward and a backward pass of image and reference together, so their number is limited.
    """

    references: int = 20  # most reference images to use, evenly spread over the background; at least 1

    info = ExplainerInfo(
        title="DeepSHAP",
        plain="Shows how much each spot moves the score up or down compared with ordinary sheets, by a quick rule.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874, section 4.2; DeepLIFT: Shrikumar et al., ICML 2017, "
        "arXiv:1704.02685",
        needs=frozenset({"gradients", "background"}),
        forward=40,
        backward=40,
        additive=True,
        blur=2.0,
    )

    def __post_init__(self) -> None:
        if self.references < 1:
            raise UsageError(f"DeepSHAP references: expected at least 1, got {self.references}")

    def _attribute(self, query: Query) -> Tensor:
        used = evenly(query.background, self.references)
        each = (contributions(query.model, image, used, target) for image, target in query.images())
        return torch.stack([values.mean(dim=0) for values in each])
