"""Guided gradient times deviation: what stands out from the sheet's own grey and argues for a class."""

from torch import Tensor

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query


@EXPLAINERS.register("guided-input")
class GuidedInput(Explainer):
    """Guided backpropagation times the difference of each pixel to the median of its image, summed over channels.

    The product says what the guided gradient alone leaves open: whether the pixel deviates in the direction that raises
    the logit. The sheet's own median takes the place of black as what a pixel is compared with. Of the maps that were
    tried it finds defects best, when chosen on one half of NEU-Seg and judged on the other (docs/quality.md).
    """

    info = ExplainerInfo(
        title="Guided gradient x deviation",
        plain="Shows what stands out from the sheet's own grey and raises the score for this class: good for outlines.",
        source="Gradient times input: Shrikumar et al., arXiv:1605.01713, 2016; guided backpropagation: Springenberg "
        "et al., arXiv:1412.6806; with the image's median as reference",
        needs=frozenset({"gradients"}),
        forward=1,
        backward=1,
        blur=2.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        slopes = engine.gradients(query.model, query.inputs, query.targets, guided=True)[1]
        median = query.inputs.flatten(2).median(dim=2).values[..., None, None]
        return slopes * (query.inputs - median)
