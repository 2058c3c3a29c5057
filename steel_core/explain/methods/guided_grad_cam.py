"""Guided Grad-CAM: the fine structures inside the regions that Grad-CAM finds for a class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from torch import Tensor
from typing_extensions import override

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, TargetLogit, check_batch
from steel_core.explain.hooks import isolated
from steel_core.models.base import Classifier

# Captum warns at each call that it sets hooks; here they are set on a private copy.
warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU", category=UserWarning)


@EXPLAINERS.register("guided-grad-cam")
@dataclass(frozen=True)
class GuidedGradCam(Explainer):
    """Guided backpropagation to the pixels times the positive part of Grad-CAM, as in the paper.

    Only regions and paths that argue for the class are kept, so a value's size is its evidence. The sign is the one of
    the guided gradient: positive where a brighter pixel would raise the logit, negative where a darker one would. It is
    kept because the values are raw; `info.signed` is false, so `render.evidence` shows the size alone.
    """

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Guided Grad-CAM",
        plain="Draws the fine lines and edges that speak for this class; what speaks against it is left out.",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; guided backpropagation: Springenberg et al., "
        "ICLR Workshop 2015, arXiv:1412.6806",
        needs=frozenset({"gradients", "cam layer"}),
        forward=2,
        backward=2,
        class_dependent=True,
        signed=False,
        blur=1.0,
    )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        with isolated(model) as private:
            method = CaptumGuidedGradCam(TargetLogit(private, targets), private.cam_layer)
            values = method.attribute(inputs.detach().clone().requires_grad_(), interpolate_mode="bilinear")
            return values.detach().sum(dim=1, keepdim=True)
