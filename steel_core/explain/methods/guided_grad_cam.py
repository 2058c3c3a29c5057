"""Guided Grad-CAM: the fine structures inside the regions that Grad-CAM finds for a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.explain.methods.grad_cam import captum_cam
from steel_core.models.base import Classifier


@EXPLAINERS.register("guided-grad-cam")
@dataclass(frozen=True)
class GuidedGradCam(Explainer):
    """Guided backpropagation to the pixels times the positive part of Grad-CAM, as in the paper.

    Only regions and paths that argue for the class are kept, so a value's size is its evidence. The sign is the one of
    the guided gradient: positive where a brighter pixel would raise the logit, negative where a darker one would. It is
    kept because the values are raw; `info.signed` is false, so `render.evidence` shows the size alone.

    Attributes:
        layer: dotted name of the module that Grad-CAM reads (`engine.layers` lists them); "" for the last
            convolutional stage, as in the paper.
    """

    layer: str = ""

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Guided Grad-CAM",
        plain="Draws the fine lines and edges that speak for this class; what speaks against it is left out.",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; guided backpropagation: Springenberg et al., "
        "ICLR Workshop 2015, arXiv:1412.6806",
        needs=frozenset({"gradients", "cam layer"}),
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
        if engine.supports(model, self.layer):
            found = engine.explain(model, inputs, targets, layer=self.layer)
            assert found.guided is not None
            return engine.guided_grad_cam(found.guided, found.cam)
        _, guided = engine.gradients(model, inputs, targets, guided=True)
        return engine.guided_grad_cam(guided, captum_cam(model, inputs, targets, self.layer))
