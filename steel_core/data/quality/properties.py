"""Numbers that describe a picture (H, W) in 0 to 1 without any model: of its light, detail, noise, size and defect.

Legend: H rows, W columns.
"""

import math
from contextlib import suppress

import cv2
import numpy as np

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.data.quality.measured_table import MeasuredTable
from steel_core.errors import DataError, ImageError
from steel_core.types import BoolArray, Grey

_COARSE = 2.0  # pixels; detail that a lens out of focus leaves standing


def brightness(grey: Grey) -> float:
    """Mean, 0 (black) to 1 (white)."""
    return float(grey.mean())


def contrast(grey: Grey) -> float:
    """Standard deviation, 0 to 0.5."""
    return float(grey.std())


def sharpness(grey: Grey) -> float:
    """Fine detail as a share of coarse detail: what a lens out of focus takes away, and light and steel do not.

    Root mean square of the gradient (Scharr), divided by that of the picture blurred by 2 pixels. Usual measures (the
    variance of the Laplacian) call every uniform plate blurry, because they grow with contrast; this ratio does not.
    A blank picture has 0.
    """
    fine, coarse = _rms_gradient(grey), _rms_gradient(np.asarray(cv2.GaussianBlur(grey, (0, 0), _COARSE), np.float32))
    return fine / coarse if coarse > 1e-6 else 0.0


def noise(grey: Grey) -> float:
    """Standard deviation of pixel noise. Source: J. Immerkær, Fast Noise Variance Estimation, CVIU 64(2), 1996."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    inner = cv2.filter2D(grey, cv2.CV_32F, kernel)[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(inner).mean()) if inner.size else 0.0


def clipped(grey: Grey) -> float:
    """Share of the pixels that are pure black or pure white, to half a grey level of 8 bits."""
    return float(np.count_nonzero((grey < 0.5 / 255) | (grey > 254.5 / 255))) / grey.size


_OF_PIXELS = (brightness, contrast, sharpness, noise, clipped)

_OF_DEFECT = ("defect_area", "defect_row", "defect_column")

PROPERTIES = (*(measure.__name__ for measure in _OF_PIXELS), "height", "width", *_OF_DEFECT)
"""The columns of `PROPERTY_TABLE`, all numbers; those of the defect are NaN where nothing tells them."""


def picture_properties(grey: Grey) -> dict[str, float]:
    """The properties of the pixels of one grey picture (H, W) in 0 to 1."""
    return {measure.__name__: measure(grey) for measure in _OF_PIXELS}


def defect_properties(mask: BoolArray) -> dict[str, float]:
    """Share of the picture (H, W) that is defective, and its centre, 0 (top, left) to 1; NaN where there is none."""
    places = [axis.mean() + 0.5 if axis.size else math.nan for axis in np.nonzero(mask)]
    row, column = (float(place) / side for place, side in zip(places, mask.shape, strict=True))
    return dict(zip(_OF_DEFECT, (np.count_nonzero(mask) / mask.size, row, column), strict=True))


def _measure_sample(index: DatasetIndex, i: int) -> dict[str, float]:
    try:
        grey = index.image(i).grey()
    except (ImageError, DataError):
        return {}
    row = {**picture_properties(grey), "height": float(grey.shape[0]), "width": float(grey.shape[1])}
    defect = read_defect(index, i, grey.shape)
    return row if defect is None else row | defect_properties(defect)


def read_defect(index: DatasetIndex, i: int, shape: tuple[int, int]) -> BoolArray | None:
    """Where masks, or else boxes, say that sample `i` is defective: (H, W), or None where nothing tells."""
    with suppress(DataError):  # a mask that cannot be read tells nothing
        defect = index.mask(i)
        if defect is not None:
            return defect > 0 if defect.shape == shape else None
        if boxes := index.boxes(i):
            return np.asarray(boxes_to_mask(boxes, shape), bool)
    return None


PROPERTY_TABLE = MeasuredTable("properties", PROPERTIES, _measure_sample)
"""The properties of every sample. A picture that is refused has missing values (NaN) throughout; the defect's are
missing where a sample has neither mask nor boxes."""


def _rms_gradient(grey: Grey) -> float:
    across, down = (cv2.Scharr(grey, cv2.CV_32F, dx, dy, scale=1 / 32) for dx, dy in ((1, 0), (0, 1)))
    return math.sqrt(float(np.mean(across**2 + down**2)))
