"""DeepLIFT: what each pixel adds to the logit, compared with a picture of mean grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.explain.rescale import contributions
from steel_core.models.base import Classifier


@EXPLAINERS.register("deep-lift")
@dataclass(frozen=True)
class DeepLift(Explainer):
    """DeepLIFT with the rescale rule, against mean grey, which is zero after normalisation.

    The values of an image sum to its logit minus that of mean grey.
    """

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="DeepLIFT",
        plain="Shows how much each spot moves the score for this class up or down, compared with a plain grey sheet.",
        source="Shrikumar et al., ICML 2017, arXiv:1704.02685; rescale rule",
        needs=frozenset({"gradients", "baseline"}),
        forward=2,
        backward=1,
        class_dependent=True,
        additive=True,
        blur=2.0,
    )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        return contributions(model, inputs, torch.zeros_like(inputs[:1]), targets).sum(dim=1, keepdim=True)
