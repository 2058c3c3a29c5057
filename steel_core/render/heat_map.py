"""From raw attributions to pictures. The only place that normalises; no torch.

Every panel of one method is drawn on one symmetric scale, fixed on the validation split, so that colours can be
compared between images: a sheet without evidence stays cold instead of being stretched until its noise glows.

The way of a map: `evidence` -> `evidence_scale` on the validation split, once -> `overlay`, `legend`, `summarise_map`.

Legend of shapes: H, W rows and columns of the attribution, H', W' of the picture it is drawn on.
"""

import functools
from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image, ImageDraw

from steel_core.errors import UsageError
from steel_core.render.fonts import load_default_font
from steel_core.types import AnyArray, Float32Array, FloatArray, SteelImage, UInt8Array

FAINT = 0.1  # share of the scale below which a value counts as no evidence, in words as in colours

_SCALE_PERCENTILE = 99.5

# Blue, grey, red: Moreland, "Diverging Color Maps for Scientific Visualization", ISVC 2009. Both ends are equally dark,
# told apart by colour-blind people, and the middle is a grey that stands out neither on white nor on black.
_ANCHORS = ((59, 76, 192), (124, 159, 249), (221, 221, 221), (244, 154, 123), (180, 4, 38))

# Words under the colour bar, and the bar's ends as shares of the scale.
_LEGENDS = {True: (("against", "none", "for"), -1.0), False: (("none", "for"), 0.0)}


def evidence(values: FloatArray, signed: bool = True, blur: float = 0.0) -> Float32Array:
    """What a person should read in a raw attribution (H, W): positive for the class, negative against it.

    `signed` and `blur` are those of the method's `ExplainerInfo`: where it is not signed, a value's size is its
    evidence for the class; blur, in pixels, keeps the total and moves evidence to neighbours.
    """
    shown = (check_map(values) if signed else np.abs(check_map(values))).astype(np.float32)
    if not blur:
        return shown
    return np.asarray(cv2.GaussianBlur(shown, (0, 0), blur, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def evidence_scale(maps: Iterable[FloatArray]) -> float:
    """The value that is drawn in full colour: the 99.5th percentile of the magnitudes of all maps together.

    A percentile, because a single pixel must not decide; of all maps (H, W) of a method on the validation split
    together, because a map's own maximum would make every sheet look equally suspicious.

    Raises:
        UsageError: there is no map, or no evidence in any of them.
    """
    magnitudes = [np.abs(check_map(values)).ravel() for values in maps]
    scale = float(np.percentile(np.concatenate(magnitudes), _SCALE_PERCENTILE)) if magnitudes else 0.0
    if scale <= 0:
        raise UsageError("a scale needs evidence: expected maps that are not all zero")
    return scale


def colour(values: FloatArray, scale: float) -> UInt8Array:
    """Evidence (H, W) as colours (H, W, 3): red for the class, blue against it, grey none; cut at plus, minus scale."""
    share = np.clip(check_map(values) / check_scale(scale), -1, 1)
    table = _colours()
    middle = len(table) // 2
    return table[np.rint(share * middle).astype(np.intp) + middle]


def overlay(
    image: SteelImage,
    values: FloatArray,
    scale: float,
    opacity: float = 0.6,
    longest: int = 800,
    threshold: float = FAINT,
) -> UInt8Array:
    """The map laid over the picture, (H', W', 3); where there is no evidence the steel shows unchanged.

    The map covers the whole picture on any grid (H, W). `opacity` (0 to 1) is that of the strongest evidence; up to
    `threshold`, a share of the scale below 1, none is drawn. A picture longer than `longest` pixels is shrunk.
    """
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity: expected 0 to 1, got {opacity}")
    if not 0 <= threshold < 1:
        raise UsageError(f"threshold: expected 0 to less than 1, got {threshold}")
    steel = thumbnail(image, longest)
    height, width = steel.shape[:2]
    spread = resize_picture(check_map(values).astype(np.float32), width, height)
    strength = np.clip(np.abs(spread) / check_scale(scale), 0, 1)[..., None]
    # From the threshold to 1 the colour grows steadily: no edge where it begins, none where it is full.
    ramp = np.clip((strength - threshold) / (1 - threshold), 0, 1)
    alpha = opacity * ramp * (2 - ramp)
    # Half way from the middle at least: a weak colour is made by a low opacity, not by grey on the steel.
    tint = colour(np.sign(spread) * (0.5 + 0.5 * strength[..., 0]), 1.0)
    return np.rint(steel * (1 - alpha) + tint * alpha).astype(np.uint8)


def thumbnail(image: SteelImage, longest: int = 800) -> UInt8Array:
    """The picture as RGB (H', W', 3) with its longest side at most `longest` pixels; never enlarged."""
    shown = image.display()
    factor = min(1.0, longest / max(shown.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in shown.shape[:2])
    shown = resize_picture(shown, width, height)
    return np.ascontiguousarray(np.broadcast_to(shown[..., None], (height, width, 3)) if shown.ndim == 2 else shown)


def legend(width: int = 320, height: int = 44, dark: bool = False, signed: bool = True) -> UInt8Array:
    """A colour bar with words below, (height, width, 4) RGBA on a transparent ground; unsigned, it starts at none."""
    words, start = _LEGENDS[signed]
    sheet = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    sheet.paste(Image.fromarray(colour(np.tile(np.linspace(start, 1, width), (height * 2 // 5, 1)), 1.0)), (0, 0))
    draw = ImageDraw.Draw(sheet)
    ink = (235, 235, 235, 255) if dark else (60, 60, 60, 255)
    places = np.linspace(0, width - 1, len(words))
    anchors = ("ls", "ms", "rs") if signed else ("ls", "rs")
    font = load_default_font(max(8, height * 2 // 5))
    for word, x, anchor in zip(words, places, anchors, strict=True):
        draw.text((float(x), height - 1 - height // 9), word, fill=ink, font=font, anchor=anchor)
    return np.asarray(sheet)


@functools.cache
def _colours() -> UInt8Array:
    """511 colours (511, 3) from blue to red, evenly spaced in CIELAB between the anchors."""
    anchors = np.array([_ANCHORS], dtype=np.float32) / 255
    lab = cv2.cvtColor(anchors, cv2.COLOR_RGB2Lab)[0]
    at = np.linspace(0, len(_ANCHORS) - 1, 511)
    mixed = np.stack([np.interp(at, np.arange(len(_ANCHORS)), channel) for channel in lab.T], axis=-1)
    rgb = cv2.cvtColor(mixed[None].astype(np.float32), cv2.COLOR_Lab2RGB)[0]
    return np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)


def resize_picture(array: AnyArray, width: int, height: int) -> AnyArray:
    """Bilinear where it grows, the mean of what falls together where it shrinks."""
    if array.shape[:2] == (height, width):
        return array
    shrinks = width <= array.shape[1] and height <= array.shape[0]
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def check_map(values: FloatArray) -> FloatArray:
    """The map, if it is (H, W) finite numbers; else UsageError."""
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise UsageError(f"expected a map (H, W) of finite numbers, got shape {values.shape}")
    return values


def check_scale(scale: float) -> float:
    """The scale, if it is positive; else UsageError."""
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"scale: expected a positive number, got {scale}")
    return scale
