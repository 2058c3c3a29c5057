"""Controls, which do not know the model: random blobs, and the edges of the picture."""

import zlib

import torch
from scipy.ndimage import gaussian_filter
from skimage.filters import sobel
from torch import Tensor

from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query

_WIDTH = 1 / 16  # of random blobs, by the shorter side: about as wide as those of Grad-CAM


@EXPLAINERS.register("random")
class RandomControl(Explainer):
    """White noise smoothed to blobs, mean about 0 and standard deviation 1.

    Smooth, because a real map is: what a real method does better then is not the mere size of its regions. The pixels
    enter only as part of the seed, so each image has a map of its own and chance averages out over a data set.
    """

    info = ExplainerInfo(
        title="Control: random",
        plain="Random blobs that know neither model nor picture: a map worth reading must beat them.",
        source="Control as in Hooker et al., NeurIPS 2019, arXiv:1806.10758; here smooth",
        needs=frozenset({"seed"}),
        forward=0,
        backward=0,
        class_dependent=False,
        control=True,
    )

    def _attribute(self, query: Query) -> Tensor:
        return torch.stack([_blobs(image, query.seed) for image in query.inputs])


def _blobs(image: Tensor, seed: int) -> Tensor:
    """(1, H, W) for an image (C, H, W)."""
    height, width = image.shape[1:]
    own_seed = zlib.crc32(image.float().cpu().contiguous().numpy().tobytes(), seed % 2**32)
    noise = torch.randn(height, width, generator=torch.Generator().manual_seed(own_seed), dtype=torch.float64)
    blobs = torch.from_numpy(gaussian_filter(noise.numpy(), _WIDTH * min(height, width), mode="reflect"))
    return (blobs / blobs.std())[None]


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
