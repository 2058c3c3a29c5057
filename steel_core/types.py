"""Frozen result types that travel between the library, the command line and the dashboard.

Legend of shapes: N images, C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict  # pydantic needs it below Python 3.12

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating[Any]]
IndexArray = npt.NDArray[np.intp]
Int64Array = npt.NDArray[np.int64]
ObjectArray = npt.NDArray[np.object_]
StrArray = npt.NDArray[np.str_]
UInt16Array = npt.NDArray[np.uint16]
UInt8Array = npt.NDArray[np.uint8]

Grey = Float32Array
"""A picture's luminance: (H, W), 0 (black) to 1."""

Mask = BoolArray
"""Pixels of a picture: (H, W)."""

RunLengths = Int64Array
"""Runs of True in a mask: (R, 2) first pixel, counted from 1 down the columns, and length."""

REFER = "refer"
"""Outcome of a prediction that a person must decide."""

UNFAMILIAR = "unfamiliar"
"""Outcome of an image unlike all that the model has learnt from: no verdict."""

CLEAR = "clear"

DEFECT = "defect"
"""Label of a defective sheet in the binary view."""

# ITU-R BT.601 luma, the weights that Pillow, OpenCV and most cameras use for grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class SteelImage:
    """A decoded picture, scaled to the full range of its type.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) RGB; uint8, or uint16 where the source held more than 8 bits. 0 is black and
            the largest value of the type is white, whatever the bit depth of the source was.
        name: base name of the file, for messages and exports.
        sha256: hash of the file's bytes, in hexadecimal.
        note: what was assumed or done while decoding ("12 bits a pixel assumed", "rotated as its EXIF tag says"),
            empty if nothing.
    """

    pixels: AnyArray
    name: str
    sha256: str
    note: str = ""

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def grey(self) -> Float32Array:
        """Luminance (ITU-R BT.601) as float32 (H, W) in 0 to 1."""
        scaled = self.pixels.astype(np.float32) / np.float32(np.iinfo(self.pixels.dtype).max)
        return scaled if scaled.ndim == 2 else np.asarray(scaled @ _LUMA, dtype=np.float32)

    def display(self) -> UInt8Array:
        """The picture as uint8, (H, W) or (H, W, 3), for a screen."""
        if self.pixels.dtype == np.uint8:
            return self.pixels
        return (self.pixels >> 8).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels, half open: columns xmin to xmax - 1, rows ymin to ymax - 1, counted from 0."""

    label: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a data set's index. Nothing is read from disk until it is asked for.

    Attributes:
        labels: empty if unlabelled, several where an image holds several defect types.
        split: "train", "val", "test", or "" where no split was made.
        group: samples of one group (near-duplicates, crops of one strip) never lie in two splits.
        source: a data set's name, a coil, a camera.
        mask: PNG mask, if any.
        mask_classes: class name of each non-zero mask value.
    """

    path: Path
    labels: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    source: str = ""
    boxes: Path | None = None
    mask: Path | None = None
    mask_classes: dict[int, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The first label, or "" if unlabelled."""
        return self.labels[0] if self.labels else ""


class PredictionJson(TypedDict):
    """What a checkpoint says about one image, as JSON; see `Prediction`."""

    file: str
    pred: str
    outcome: str
    probs: dict[str, float]
    threshold: float
    image_sha256: str
    checkpoint: str
    note: str
    strangeness: float | None
    defects: NotRequired[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a checkpoint says about one image.

    Attributes:
        pred: class with the largest probability.
        outcome: `pred`; "refer" where its probability is below the stored threshold of that class; or "unfamiliar".
            Of a multi-label checkpoint "defect", "clear", "refer" or "unfamiliar": `steel_core.metrics.multi_label`.
        probs: calibrated, in the checkpoint's order.
        logits: (K,) float32, before temperature.
        threshold: the stored threshold of `pred`.
        checkpoint: hash of the checkpoint's weights and card.
        judgeable: whether there is anything to judge: False for a blank, overexposed or tiny picture.
        ood_score: how unlike the familiar images it is; above 1 it is unfamiliar. None if the checkpoint cannot tell.
        defects: of a multi-label checkpoint every class whose probability reaches its threshold, the likeliest first;
            None of any other, which names `pred` alone.
    """

    name: str
    pred: str
    outcome: str
    probs: dict[str, float]
    logits: Float32Array
    threshold: float
    image_sha256: str
    checkpoint: str
    note: str = ""
    judgeable: bool = True
    ood_score: float | None = None
    defects: tuple[str, ...] | None = None

    @property
    def confidence(self) -> float:
        """Calibrated probability of `pred`."""
        return self.probs[self.pred]

    def to_json(self) -> dict[str, Any]:
        renamed = {"file": self.name, "strangeness": self.ood_score}
        names = [name for name in PredictionJson.__annotations__ if name != "defects" or self.defects is not None]
        return {name: renamed[name] if name in renamed else getattr(self, name) for name in names}


class AttributionJson(TypedDict):
    """How a map was made, as JSON; see `Attribution`."""

    method: str
    target: str
    against: str
    noise: float | None
    layer: str
    baseline: str
    parameters: dict[str, Any]
    seed: int | None
    image_sha256: str
    checkpoint: str
    seconds: float
    shape: list[int]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Raw signed evidence for one class in one image, with everything needed to make it again.

    Attributes:
        values: (H, W) float32 on the grid of the model's input, summed over channels. Positive argues for the target,
            negative against it. Never normalised: `render.py` alone turns it into a picture.
        against: class it is contrasted with: what is explained is the difference of the two logits; "" if none.
        noise: the map's own standard error as a share of its norm (both L2); None for a method without sampling.
        layer: layer the method reads, or "" if it reads none.
        baseline: what the method compares with, or "" if nothing.
    """

    values: Float32Array
    method: str
    target: str
    layer: str
    baseline: str
    parameters: dict[str, Any]
    seed: int | None
    image_sha256: str
    checkpoint: str
    seconds: float = 0.0
    against: str = ""
    noise: float | None = None

    def provenance(self) -> dict[str, Any]:
        """All but the values, as a dictionary that `json` can write."""
        rounded = {
            "noise": None if self.noise is None else round(self.noise, 4),
            "seconds": round(self.seconds, 3),
            "shape": list(self.values.shape),
        }
        names = AttributionJson.__annotations__
        return {name: rounded[name] if name in rounded else getattr(self, name) for name in names}
