"""What SHAP and its like compare a picture with: reference images in which there is nothing to see."""

import functools
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core.data.strip_mill import StripMill
from steel_core.data.transforms import Preprocessing
from steel_core.errors import UsageError
from steel_core.models.card import Card
from steel_core.types import CLEAR, UInt8Array

DRAWN_SHEETS = 20

DRAWN_TITLE = f"{DRAWN_SHEETS} clear sheets drawn by the program, as bright and rich in contrast as the training images"


class Backgrounds:
    """Those of one checkpoint, by name in `titles`, the usual one first; `stored` images (B, H, W) came with it."""

    def __init__(self, card: Card, stored: UInt8Array | None) -> None:
        self._card, self._stored = card, stored
        titles = {} if stored is None else {"stored": card.background or "stored with the checkpoint"}
        self.titles = titles | {"drawn": DRAWN_TITLE, "grey": "one plain sheet of mean grey"}

    def choose(self, name: str, shape: tuple[int, ...], needs: frozenset[str]) -> tuple[str, Tensor | None]:
        """Title and grey images (B, H, W) in 0 to 1, like `shape` (H, W): the first if no name, or a method's own.

        UsageError where the name is unknown.
        """
        if name and name not in self.titles:
            raise UsageError(f"unknown background {name!r}; there are: {', '.join(self.titles)}")
        if "background" not in needs:
            return "mean grey" if "baseline" in needs else "", None
        name = name or next(iter(self.titles))
        if name == "grey":
            return self.titles[name], torch.full((1, *shape), self._card.mean)
        sized = replace(self._card.preprocessing, input_size=(shape[0], shape[1]))
        grids = torch.tensor(self._stored if name == "stored" else draw_background(sized)).float() / 255
        if grids.shape[1:] != shape:
            grids = F.interpolate(grids[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]
        return self.titles[name], grids


@functools.lru_cache(maxsize=8)
def draw_background(preprocessing: Preprocessing, seed: int = 0) -> UInt8Array:
    """Reference images (B, H, W): clear sheets of the strip mill, as bright and contrasty as training."""
    mill = StripMill(size=preprocessing.input_size, seed=seed)
    sheets = np.stack([mill.render(i, CLEAR).pixels for i in range(DRAWN_SHEETS)]).astype(np.float32) / 255
    alike = (sheets - sheets.mean()) / sheets.std() * preprocessing.std + preprocessing.mean
    drawn = (alike.clip(0, 1) * 255).round().astype(np.uint8)
    drawn.flags.writeable = False  # it is shared by all who ask
    return drawn
