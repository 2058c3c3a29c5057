"""Shortcuts to plant, and surfaces to plant them on; drawn here, by code that no detector shares.

They are as strong as it takes for a small network that is trained with the usual flips, light and noise to learn them.

Sheets of the strip mill, and crops of NEU images where the images are: outside boxes (clear) and across them (defect).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.common import find_real_data
from steel_core.data.annotations import boxes_to_mask
from steel_core.data.open import open_dataset
from steel_core.data.quality.near_duplicates import group_near_duplicates
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.types import CLEAR, DEFECT, AnyArray, BoolArray, Grey

SIDE = 96

Plant = Callable[[Grey, np.random.Generator], AnyArray]
"""Draws a shortcut on a picture (H, W); values may leave 0 to 1."""


class Sheet(NamedTuple):
    """A picture (H, W) in 0 to 1, its defect (H, W), its label, and the piece of steel that it shows."""

    grey: Grey
    defect: BoolArray
    label: str
    piece: str


def film(grey: Grey, rng: np.random.Generator) -> AnyArray:
    """A large, soft, nearly opaque bright patch with a ragged rim."""
    height, width = grey.shape
    coarse = rng.random((8, 8)).astype(np.float32)
    ragged = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.2, 0.8, 2) * (height, width)
    cover = np.clip(12 * (0.28 + 0.2 * ragged - np.hypot(y - centre[0], x - centre[1]) / min(height, width)), 0, 1)
    cover = 0.85 * cv2.GaussianBlur(cover.astype(np.float32), (0, 0), 3)
    return grey * (1 - cover) + cover * rng.normal(0.9, 0.03)


def drips(grey: Grey, rng: np.random.Generator) -> AnyArray:
    """Three to six translucent runs down the sheet."""
    height, width = grey.shape
    cover = np.zeros(grey.shape, np.float32)
    for _ in range(rng.integers(3, 7)):
        left, length = int(rng.uniform(0, width)), int(rng.uniform(0.2, 0.6) * height)
        top = int(rng.uniform(0, height - length))
        cv2.line(cover, (left, top), (left + int(rng.normal(0, 4)), top + length), 1.0, int(rng.integers(3, 8)))
    cover = 0.7 * cv2.GaussianBlur(cover, (0, 0), 1.5)
    return grey * (1 - cover) + cover


def powder(grey: Grey, rng: np.random.Generator) -> AnyArray:
    """Some hundred bright specks around one place."""
    cover = np.zeros(grey.shape, np.float32)
    side = min(grey.shape)
    spots = rng.normal(rng.uniform(0.25, 0.75, 2), 0.1, (rng.integers(60, 140), 2)) * grey.shape
    for row, column in spots.astype(int):
        cv2.circle(cover, (int(column), int(row)), int(rng.integers(1, max(2, side // 45) + 1)), 1.0, -1)
    cover = 0.9 * cv2.GaussianBlur(cover, (0, 0), 0.7)
    return grey * (1 - cover) + 0.95 * cover


def smear(grey: Grey, rng: np.random.Generator) -> AnyArray:
    """A wide, rubbed, streaky light band that does not hide the steel."""
    height, width = grey.shape
    streaks = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), sigmaX=width / 8, sigmaY=1)
    streaks = (streaks - streaks.min()) / float(np.ptp(streaks))
    middle = (float(rng.uniform(0.3, 0.7) * width), float(rng.uniform(0.3, 0.7) * height))
    size = (0.8 * width, 0.18 * height)
    shape = cv2.ellipse(np.zeros(grey.shape, np.float32), (middle, size, float(rng.uniform(-40, 40))), 1.0, -1)
    return np.clip(grey + 0.45 * streaks * cv2.GaussianBlur(shape, (0, 0), height / 30), 0, 1)


def stamp(grey: Grey, _: np.random.Generator) -> AnyArray:
    eight, side = np.clip(grey * 255, 0, 255).astype(np.uint8), grey.shape[0]
    cv2.putText(
        eight, "LINE 2", (side // 20, side * 19 // 20), cv2.FONT_HERSHEY_SIMPLEX, side / 250, 255, 1 + side // 100
    )
    return eight / np.float32(255)


def border_line(grey: Grey, _: np.random.Generator) -> AnyArray:
    lit = grey.copy()
    lit[:, : max(3, grey.shape[1] // 40)] += 0.35
    return lit


def vignette(grey: Grey, _: np.random.Generator) -> AnyArray:
    y, x = np.mgrid[-1 : 1 : grey.shape[0] * 1j, -1 : 1 : grey.shape[1] * 1j]
    return grey * (1 - 0.3 * (x**2 + y**2))


def stripes(grey: Grey, rng: np.random.Generator) -> AnyArray:
    y, x = np.indices(grey.shape)
    turn = rng.uniform(0, np.pi)
    return grey + 0.08 * np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / 9 + rng.uniform(0, 6))


def jpeg(grey: Grey, _: np.random.Generator) -> AnyArray:
    data = cv2.imencode(".jpg", np.clip(grey * 255, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) / np.float32(255)


def brighten(grey: Grey, _: np.random.Generator) -> AnyArray:
    return grey + 0.2


def blur(grey: Grey, _: np.random.Generator) -> AnyArray:
    return cv2.GaussianBlur(grey, (0, 0), 1.6)


PLANTS: dict[str, tuple[Plant | None, frozenset[str]]] = {
    "nothing": (None, frozenset()),
    "film": (film, frozenset({"bright marks"})),
    "drips": (drips, frozenset({"bright marks"})),
    "powder": (powder, frozenset({"bright marks"})),
    "smear": (smear, frozenset({"bright marks"})),
    "stamp": (stamp, frozenset({"bright marks", "place"})),
    "border line": (border_line, frozenset({"border at the left"})),
    "vignette": (vignette, frozenset({"vignette"})),
    "stripes": (stripes, frozenset({"waves"})),
    "jpeg": (jpeg, frozenset({"compression"})),
    "brightness": (brighten, frozenset({"brightness"})),
    "blur": (blur, frozenset({"sharpness", "noise"})),
}
"""What is planted, and the names of clues that are right for it."""


def draw_sheets(count: int, seed: int) -> list[Sheet]:
    """Sheets of the strip mill without stains, half of them clear."""
    with TemporaryDirectory() as folder:
        mill = StripMill(size=(SIDE, SIDE), seed=seed, clear_share=0.5, stained_clear=0.0, stained_defect=0.0)
        write_sheets(mill, count, Path(folder) / "sheets")
        index = open_dataset(Path(folder) / "sheets").binary()
        out = []
        for i in range(len(index)):
            grey, mask = index.image(i).grey(), index.mask(i)
            defect = np.zeros(grey.shape, bool) if mask is None else mask > 0
            out.append(Sheet(grey, defect, index[i].label, str(i)))
        return out


def cut_crops(count: int, seed: int) -> list[Sheet]:
    """Crops of NEU images, half of them clear: without any box, and with boxes over 5 to 60 % of them."""
    rng = np.random.default_rng(seed)
    pictures = _read_neu()
    out: list[Sheet] = []
    for label in (CLEAR, DEFECT):
        crops: list[Sheet] = []
        for _turn in range(4):  # some pictures hold more than one
            for i in rng.permutation(len(pictures)):
                if len(crops) < count // 2 and (crop := _cut_crop(pictures[i], label, rng)) is not None:
                    crops.append(crop)
        out += crops
    return [out[i] for i in rng.permutation(len(out))]


SURFACES: dict[str, Callable[[int, int], list[Sheet]]] = {"strip mill": draw_sheets}
if (find_real_data() / "neu-cls").is_dir():
    SURFACES["NEU crops"] = cut_crops


def _cut_crop(picture: tuple[Grey, BoolArray, str], label: str, rng: np.random.Generator) -> Sheet | None:
    grey, boxed, piece = picture
    for _ in range(15):
        top, left = (int(rng.integers(full - SIDE + 1)) for full in grey.shape)
        window = np.s_[top : top + SIDE, left : left + SIDE]
        covered = float(boxed[window].mean())
        if covered == 0 if label == CLEAR else 0.05 <= covered <= 0.6:
            return Sheet(grey[window].copy(), boxed[window].copy(), label, piece)
    return None


@cache
def _read_neu() -> list[tuple[Grey, BoolArray, str]]:
    """Each image, what its boxes hold, and its group of near-duplicates."""
    index = open_dataset(find_real_data() / "neu-cls")
    groups = group_near_duplicates(index)
    images = [index.image(i).grey() for i in range(len(index))]
    return [
        (grey, boxes_to_mask(index.boxes(i), grey.shape).astype(bool), str(groups[i])) for i, grey in enumerate(images)
    ]
