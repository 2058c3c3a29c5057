"""Plain gradient: how the logit would react to a small change of each pixel."""

from torch import Tensor

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query


@EXPLAINERS.register("gradient")
class Gradient(Explainer):
    """The gradient of the logit with respect to the pixels, summed over channels. Its size is called saliency."""

    info = ExplainerInfo(
        title="Gradient (saliency)",
        plain="Shows which pixels would change the score for this class most if they were a little brighter or darker.",
        source="Simonyan et al., Deep Inside Convolutional Networks, ICLR Workshop 2014, arXiv:1312.6034",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        signed=False,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        return engine.gradients(query.model, query.inputs, query.targets)[1]
