"""Sobel edges: a yardstick that knows the picture but not the model."""

import torch
from skimage.filters import sobel
from torch import Tensor

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query


@EXPLAINERS.register("sobel")
class SobelControl(Explainer):
    """Magnitude of the grey picture's gradient by Sobel's operator; never negative."""

    info = ExplainerInfo(
        title="Control: edges",
        plain="Edges of the picture, drawn without asking the model: a map worth reading must beat them.",
        source="Sobel & Feldman, 1968; as a control: Hooker et al., NeurIPS 2019, arXiv:1806.10758",
        forward=0,
        backward=0,
        class_dependent=False,
        signed=False,
        control=True,
        blur=1.0,
    )

    def _attribute(self, query: Query) -> Tensor:
        greys = query.inputs.mean(dim=1).cpu().double().numpy()
        return torch.stack([torch.from_numpy(sobel(grey)) for grey in greys])[:, None]
