"""JPEG compression, as a camera or an archive applies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from steel_core.perturb.base import PERTURBATIONS, Grey, Mask, Perturbation, PerturbationInfo, Perturbed


@PERTURBATIONS.register("jpeg")
@dataclass(frozen=True)
class Jpeg(Perturbation):
    """Encodes the picture as JPEG and decodes it."""

    info: ClassVar[PerturbationInfo] = PerturbationInfo(
        title="JPEG",
        plain="Compresses the picture as JPEG.",
        severity="100 minus the quality of the encoder",
        largest=99,
        usual=70,
    )

    @override
    def perturb(
        self, grid: Grey, severity: float, seed: int, *, avoid: Mask | None = None, donor: Grey | None = None
    ) -> Perturbed:
        self.check(grid, severity, avoid)
        if severity == 0:
            return Perturbed(grid.copy(), np.zeros(grid.shape, bool))
        eight = np.clip(np.round(grid * 255), 0, 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, round(100 - severity)])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
        return Perturbed(np.asarray(image / np.float32(255), dtype=np.float32), np.full(grid.shape, severity > 0))
