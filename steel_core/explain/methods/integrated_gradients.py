"""Integrated gradients: what each pixel adds to the logit, compared with a picture of mean grey."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steel_core.explain.base import EXPLAINERS, ExplainerInfo, Query
from steel_core.explain.expected_gradients import ExpectedGradients


@EXPLAINERS.register("integrated-gradients")
@dataclass(frozen=True)
class IntegratedGradients(ExpectedGradients):
    """Expected gradients with one reference: mean grey, which is zero after normalisation."""

    samples: int = 50

    label = "integrated gradients"
    info = ExplainerInfo(
        title="Integrated gradients",
        plain="Shows how much each spot moves the score for this class up or down on the way from plain grey to it.",
        source="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365",
        needs=frozenset({"gradients", "baseline"}),
        forward=50,
        backward=50,
        additive=True,
        blur=2.0,
    )

    def _references(self, query: Query) -> Tensor:
        return torch.zeros_like(query.inputs[:1])
