"""Plain gradient: how the logit would react to a small change of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("gradient")
@dataclass(frozen=True)
class Gradient(Explainer):
    """The gradient of the logit with respect to the pixels, summed over channels. Its size is called saliency."""

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Gradient (saliency)",
        plain="Shows which pixels would change the score for this class most if they were a little brighter or darker.",
        source="Simonyan et al., Deep Inside Convolutional Networks, ICLR Workshop 2014, arXiv:1312.6034",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        class_dependent=True,
        signed=False,
        blur=1.0,
    )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        return engine.gradients(model, inputs, targets)[1].sum(dim=1, keepdim=True)
