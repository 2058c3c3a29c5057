"""Grad-CAM: which regions carry the evidence for a class, and which speak against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor
from typing_extensions import override

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, TargetLogit, check_batch
from steel_core.explain.hooks import isolated
from steel_core.models.base import Classifier


@EXPLAINERS.register("grad-cam")
@dataclass(frozen=True)
class GradCam(Explainer):
    """Feature maps of the last convolutional stage, weighed by their mean gradient and summed.

    Unlike the paper's, the sum is not cut at zero: what argues against the class is kept, as negative values.
    """

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Grad-CAM",
        plain="Shows which regions speak for this class and which against it, coarsely: good for where, not for what.",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; signed, without the final ReLU",
        needs=frozenset({"gradients", "cam layer"}),
        forward=1,
        backward=1,
        class_dependent=True,
    )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        with isolated(model) as private:
            grid = LayerGradCam(TargetLogit(private, targets), private.cam_layer).attribute(inputs.detach().clone())
            return LayerAttribution.interpolate(grid, tuple(inputs.shape[2:]), interpolate_mode="bilinear").detach()
