"""Guided Grad-CAM: the fine structures inside the regions that Grad-CAM finds for a class."""

from dataclasses import dataclass

from torch import Tensor

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query
from steel_core.explain.methods.grad_cam import captum_cam


@EXPLAINERS.register("guided-grad-cam")
@dataclass(frozen=True)
class GuidedGradCam(Explainer):
    """Guided backpropagation to the pixels times the positive part of Grad-CAM, as in the paper.

    Only regions and paths that argue for the class are kept, so a value's size is its evidence. The sign is the one of
    the guided gradient: positive where a brighter pixel would raise the logit, negative where a darker one would. It is
    kept because the values are raw; `info.signed` is false, so `render.evidence` shows the size alone.
    """

    # dotted name of the module that Grad-CAM reads (`engine.layers` lists them); "" for the last convolutional stage,
    # as in the paper
    layer: str = ""

    info = ExplainerInfo(
        title="Guided Grad-CAM",
        plain="Draws the fine lines and edges that speak for this class; what speaks against it is left out.",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; guided backpropagation: Springenberg et al., "
        "ICLR Workshop 2015, arXiv:1412.6806",
        needs=frozenset({"gradients", "cam layer"}),
        forward=1,
        backward=1,
        signed=False,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        model, inputs, targets, *_ = query
        if engine.supports(model, self.layer):
            explained = engine.explain(model, inputs, targets, layer=self.layer)
            assert explained.guided is not None
            return engine.guided_grad_cam(explained.guided, explained.cam)
        guided = engine.gradients(model, inputs, targets, guided=True)[1]
        return engine.guided_grad_cam(guided, captum_cam(model, inputs, targets, self.layer))
