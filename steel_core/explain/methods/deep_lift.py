"""DeepLIFT: what each pixel adds to the logit, compared with a picture of mean grey."""

import torch
from torch import Tensor

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query
from steel_core.explain.rescale import contributions


@EXPLAINERS.register("deep-lift")
class DeepLift(Explainer):
    """DeepLIFT with the rescale rule, against mean grey, which is zero after normalisation.

    The values of an image sum to its logit minus that of mean grey.
    """

    info = ExplainerInfo(
        title="DeepLIFT",
        plain="Shows how much each spot moves the score for this class up or down, compared with a plain grey sheet.",
        source="Shrikumar et al., ICML 2017, arXiv:1704.02685; rescale rule",
        needs=frozenset({"gradients", "baseline"}),
        forward=2,
        backward=1,
        additive=True,
        blur=2.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return contributions(query.model, query.inputs, torch.zeros_like(query.inputs[:1]), query.targets)
