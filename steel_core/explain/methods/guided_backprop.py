"""Guided backpropagation: the fine structures that argue for a class, wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("guided-backprop")
@dataclass(frozen=True)
class GuidedBackprop(Explainer):
    """The gradient of the logit, cut at every ReLU to what raises it, summed over channels.

    It draws edges much alike for every class, and hardly changes when the network's weights are randomised (Adebayo et
    al., NeurIPS 2018, arXiv:1810.03292): a picture of what the network can see rather than of what decided.
    """

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Guided backprop",
        plain="Draws the fine lines and edges that the network reacts to; they look much alike whatever the class.",
        source="Springenberg et al., Striving for Simplicity, ICLR Workshop 2015, arXiv:1412.6806",
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
        return engine.gradients(model, inputs, targets, guided=True)[1].sum(dim=1, keepdim=True)
