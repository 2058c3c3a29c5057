"""Sobel edges: a yardstick that knows the picture but not the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from skimage.filters import sobel
from torch import Tensor
from typing_extensions import override

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("sobel")
@dataclass(frozen=True)
class SobelControl(Explainer):
    """Magnitude of the grey picture's gradient by Sobel's operator; never negative."""

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="Control: edges",
        plain="Edges of the picture, drawn without asking the model: a map worth reading must beat them.",
        source="Sobel & Feldman, 1968; as a control: Hooker et al., NeurIPS 2019, arXiv:1806.10758",
        needs=frozenset(),
        forward=0,
        backward=0,
        class_dependent=False,
        signed=False,
        control=True,
        blur=1.0,
    )

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        greys = inputs.detach().mean(dim=1).cpu().double().numpy()
        return torch.stack([torch.from_numpy(sobel(grey)) for grey in greys])[:, None].to(inputs)
