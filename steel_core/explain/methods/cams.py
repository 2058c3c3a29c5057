"""Grad-CAM, which regions carry the evidence for a class, and Guided Grad-CAM, the fine structures inside them."""

from dataclasses import dataclass

from captum.attr import LayerGradCam
from torch import Tensor

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query, TargetLogit
from steel_core.explain.hooks import isolated
from steel_core.models.base import Classifier


@EXPLAINERS.register("grad-cam")
@dataclass(frozen=True)
class GradCam(Explainer):
    """Feature maps of a layer, weighed by their mean gradient and summed.

    Unlike the paper's, the sum is not cut at zero: what argues against the class is kept, as negative values.
    """

    # dotted name of the module whose output is weighed (`engine.layers` lists them); "" for the last convolutional
    # stage, as in the paper
    layer: str = ""

    info = ExplainerInfo(
        title="Grad-CAM",
        plain="Shows which regions speak for this class and which against it, coarsely: good for where, not for what.",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; signed, without the final ReLU",
        needs=frozenset({"gradients", "cam layer"}),
        forward=1,
        backward=0,  # only through the head
    )

    def _attribute(self, query: Query) -> Tensor:
        model, inputs, targets, *_ = query
        if engine.supports(model, self.layer):
            cam = engine.explain(model, inputs, targets, layer=self.layer, guided=False).cam
        else:
            cam = captum_cam(model, inputs, targets, self.layer)
        return engine.enlarge(cam, inputs.shape[2:])


def captum_cam(model: Classifier, inputs: Tensor, targets: Tensor, layer: str = "") -> Tensor:
    """Signed Grad-CAM (N, 1, h, w) on the grid of any layer of any model, by captum.

    Raises:
        UsageError: what the layer gives is not a map (N, F, h, w).
    """
    with isolated(model) as private:
        module = private.get_submodule(layer or private.config.cam_layer)
        cam = LayerGradCam(TargetLogit(private, targets), module).attribute(inputs.detach().clone()).detach()
    if cam.ndim != 4:
        raise UsageError(f"layer {layer!r}: expected one that gives maps (N, F, h, w), got {cam.ndim} dimensions")
    return cam


@EXPLAINERS.register("guided-grad-cam")
class GuidedGradCam(GradCam):
    """Guided backpropagation to the pixels times the positive part of Grad-CAM, as in the paper.

    Only regions and paths that argue for the class are kept, so a value's size is its evidence. The sign is the one of
    the guided gradient: positive where a brighter pixel would raise the logit, negative where a darker one would. It is
    kept because the values are raw; `info.signed` is false, so `render.evidence` shows the size alone.
    """

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
