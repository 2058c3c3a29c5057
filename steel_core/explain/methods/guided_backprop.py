"""Guided backpropagation: the fine structures that argue for a class, wherever they lie."""

from torch import Tensor

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query


@EXPLAINERS.register("guided-backprop")
class GuidedBackprop(Explainer):
    """The gradient of the logit, cut at every ReLU to what raises it, summed over channels.

    It draws edges much alike for every class, and hardly changes when the network's weights are randomised (Adebayo et
    al., NeurIPS 2018, arXiv:1810.03292): a picture of what the network can see rather than of what decided.
    """

    info = ExplainerInfo(
        title="Guided backprop",
        plain="Draws the fine lines and edges that the network reacts to; they look much alike whatever the class.",
        source="Springenberg et al., Striving for Simplicity, ICLR Workshop 2015, arXiv:1412.6806",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        signed=False,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return engine.gradients(query.model, query.inputs, query.targets, guided=True)[1]
