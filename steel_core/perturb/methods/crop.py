"""The middle of the picture, enlarged: is the verdict about the steel or about its frame?"""

import cv2

from steel_core.perturb.base import PERTURBATIONS, PerturbationInfo, WholePicture
from steel_core.types import AnyArray, Grey


@PERTURBATIONS.register("crop")
class Crop(WholePicture):
    """Cuts the severity off each side and enlarges what is left."""

    info = PerturbationInfo(
        "Crop",
        "Cuts off the border and enlarges the rest.",
        "share of each side that is cut off",
        largest=0.4,
        usual=0.1,
    )

    def redraw(self, grid: Grey, severity: float, seed: int) -> AnyArray:
        height, width = grid.shape
        rows, columns = round(severity * height), round(severity * width)
        inside = grid[rows : height - rows, columns : width - columns]
        return cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)
