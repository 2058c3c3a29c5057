"""Grad-CAM: which regions carry the evidence for a class, and which speak against it."""

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
