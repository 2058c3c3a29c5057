"""JPEG compression, as a camera or an archive applies it."""

import cv2
import numpy as np

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("jpeg")
class Jpeg(WholePicture):
    """Encodes the picture as JPEG and decodes it."""

    info = PerturbationInfo(
        "JPEG", "Compresses the picture as JPEG.", "100 minus the quality of the encoder", largest=99, usual=70
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        eight = np.clip(np.round(grid * 255), 0, 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, round(100 - severity)])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) / np.float32(255)
