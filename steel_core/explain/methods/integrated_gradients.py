"""Integrated gradients: what each pixel adds to the logit, compared with a picture of mean grey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from steel_core.errors import UsageError
from steel_core.explain import expected_gradients
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Refined, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("integrated-gradients")
@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """Mean of gradient times difference over the line from mean grey, which is zero after normalisation, to the image.

    The values of an image sum to its logit minus that of mean grey, up to the error of the quadrature by midpoints.

    Attributes:
        samples: points on the line, at least 1.
    """

    samples: int = 50

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Integrated gradients",
        plain="Shows how much each spot moves the score for this class up or down on the way from plain grey to it.",
        source="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365",
        needs=frozenset({"gradients", "baseline"}),
        forward=50,
        backward=50,
        class_dependent=True,
        additive=True,
        blur=2.0,
    )

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"integrated gradients samples: expected at least 1, got {self.samples}")

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        return expected_gradients.attribute(model, inputs, targets, torch.zeros_like(inputs[:1]), self.samples)

    @override
    def refine(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Iterator[Refined]:
        check_batch(inputs, targets)
        yield from expected_gradients.refine(model, inputs, targets, torch.zeros_like(inputs[:1]), self.samples)
