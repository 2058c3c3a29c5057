"""Changes of every pixel where it stands: light, contrast, sharpness, noise, and the compression of an archive."""

from dataclasses import dataclass

import cv2
import numpy as np

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("brightness")
@dataclass(frozen=True)
class Brightness(WholePicture):
    """Adds light, or takes it."""

    sign: int = 1

    info = PerturbationInfo("Brightness", "grey levels added, 0 to 1; `sign` says which way", largest=0.5, usual=0.1)

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + self.sign * severity


@PERTURBATIONS.register("contrast")
@dataclass(frozen=True)
class Contrast(WholePicture):
    """Stretches the grey levels around their mean, or squeezes them."""

    sign: int = 1

    info = PerturbationInfo(
        "Contrast", "natural logarithm of the factor; `sign` says which way", largest=2.0, usual=0.4
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid.mean() + np.exp(self.sign * severity) * (grid - grid.mean())


@PERTURBATIONS.register("sharpness")
@dataclass(frozen=True)
class Sharpness(WholePicture):
    """Adds fine detail, or blurs it away."""

    sign: int = 1

    info = PerturbationInfo(
        "Sharpness",
        "share of the detail finer than 2 pixels that is added (`sign` 1) or taken away (-1)",
        largest=1.0,
        usual=0.5,
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + self.sign * severity * (grid - cv2.GaussianBlur(grid, (0, 0), 2))


@PERTURBATIONS.register("noise")
class Noise(WholePicture):
    """Adds Gaussian noise, the same for the same seed."""

    info = PerturbationInfo("Noise", "standard deviation in grey levels, 0 to 1", largest=0.3, usual=0.04)

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        return grid + severity * np.random.default_rng(seed).standard_normal(grid.shape)


@PERTURBATIONS.register("jpeg")
class Jpeg(WholePicture):
    """Encodes the picture as JPEG and decodes it."""

    info = PerturbationInfo("JPEG", "100 minus the quality of the encoder", largest=99, usual=70)

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        eight = np.clip(np.round(grid * 255), 0, 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, round(100 - severity)])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) / np.float32(255)
