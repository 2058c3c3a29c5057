"""The Predictor: load a checkpoint once, then predict and explain many images, from any number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core import render
from steel_core.data.base import Progress
from steel_core.device import batch_size, choose_device, tune_memory
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.metrics import probabilities
from steel_core.models.base import Classifier
from steel_core.models.batch_norm import folded_for_inference
from steel_core.models.checkpoint import Checkpoint, load_checkpoint
from steel_core.types import REFER, Attribution, Prediction, SteelImage

_SMALLEST = 16  # pixels a side
_BLANK = 1 / 255  # one grey level of 8 bits
_CLIPPED = 0.95  # share of the picture


class Predictor:
    """A checkpoint on a device.

    It holds no state that a call changes, and explainers work on a private copy of the network's structure, so one
    object serves every browser session at once.

    Args:
        checkpoint: what `load_checkpoint` returned.
        device: "auto", "cpu", "cuda" or "mps".
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        tune_memory()
        self.device = choose_device(device)
        self.card = checkpoint.card
        self.hash = checkpoint.hash
        model: Classifier = folded_for_inference(checkpoint.model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self._background = checkpoint.background
        self._preprocessing = checkpoint.card.preprocessing

    @classmethod
    def load(cls, name_or_path: str | Path, device: str = "auto") -> Predictor:
        """Load a checkpoint by name or folder; see `load_checkpoint` for what is refused."""
        return cls(load_checkpoint(name_or_path), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return self.card.classes

    def predict(self, images: Sequence[SteelImage], progress: Progress | None = None) -> list[Prediction]:
        """One prediction for each image, of any size, in the same order."""
        seen = [self._preprocessing.to_grid(image) for image in images]
        logits = self.logits([grid for grid, _ in seen], progress)
        probs = probabilities(logits.astype(np.float64), self.card.head, self.card.temperature)
        return [
            self._prediction(image, row, p, note, nothing_to_see(image, grid))
            for image, row, p, (grid, note) in zip(images, logits, probs, seen, strict=True)
        ]

    def logits(
        self, grids: Sequence[npt.NDArray[np.float32]], progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits (N, K) of grey images (H, W) in 0 to 1 at the size the network sees; sizes may differ."""
        out = np.empty((len(grids), len(self.classes)), dtype=np.float32)
        done = 0
        for rows in _batches([grid.shape for grid in grids], batch_size(self.device)):
            with torch.inference_mode():
                out[rows] = self.model(self._inputs([grids[i] for i in rows])).float().cpu().numpy()
            done += len(rows)
            if progress:
                progress(done, len(grids))
        return out

    def explain(
        self, image: SteelImage, method: str, target: str | None = None, *, seed: int = 0, **parameters: Any
    ) -> Attribution:
        """Evidence for `target` (the predicted class if None) in one image.

        Args:
            image: any size.
            method: a name in `EXPLAINERS`.
            target: a class of this checkpoint.
            seed: of the method's random numbers.
            parameters: the method's settings, where they shall differ from its defaults.

        Raises:
            UsageError: unknown method, class or parameter, or the checkpoint lacks what the method needs.
        """
        target = self.predict([image])[0].pred if target is None else target
        if target not in self.classes:
            raise UsageError(f"unknown class {target!r}; this checkpoint knows {', '.join(self.classes)}")
        kind = EXPLAINERS[method]
        try:
            explainer = kind(**parameters)
        except TypeError:
            known = ", ".join(kind.__dataclass_fields__) or "none"
            raise UsageError(f"{method}: expected parameters out of {known}, got {', '.join(parameters)}") from None
        started = time.perf_counter()
        grid, _ = self._preprocessing.to_grid(image)
        needs_background = "background" in kind.info.needs
        values = explainer.attribute(
            self.model,
            self._inputs([grid]),
            torch.tensor([self.classes.index(target)], device=self.device),
            background=self._background_inputs(grid.shape) if needs_background else None,
            seed=seed,
        )
        return Attribution(
            values=values[0, 0].cpu().numpy(),
            method=method,
            target=target,
            layer=self.model.config.cam_layer if "cam layer" in kind.info.needs else "",
            baseline=self.card.background if needs_background else "",
            parameters=explainer.parameters(),
            seed=seed if "seed" in kind.info.needs else None,
            image_sha256=image.sha256,
            checkpoint=self.hash,
            seconds=time.perf_counter() - started,
        )

    def map_scale(self, found: Attribution) -> tuple[float, bool]:
        """The evidence that gets the full colour, and whether it was fixed on the validation split.

        A checkpoint without a scale for the method (an imported one) has the map scaled by itself.
        """
        if fixed := self.card.map_scale.get(found.method):
            return fixed, True
        shown = evidence(found)
        return (render.evidence_scale([shown]) if shown.any() else 1.0), False

    def _prediction(
        self, image: SteelImage, logits: npt.NDArray[np.float32], probs: npt.NDArray[np.float64], note: str, blank: str
    ) -> Prediction:
        best = int(probs.argmax())
        pred, threshold = self.classes[best], self.card.threshold(self.classes[best])
        return Prediction(
            name=image.name,
            pred=pred,
            outcome=pred if probs[best] >= threshold and not blank else REFER,
            probs=dict(zip(self.classes, map(float, probs), strict=True)),
            logits=logits,
            threshold=threshold,
            image_sha256=image.sha256,
            checkpoint=self.hash,
            note="; ".join(part for part in (image.note, note, blank) if part),
        )

    def _inputs(self, grids: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(grids))[:, None].to(self.device)
        return self._preprocessing.normalise(stacked)

    def _background_inputs(self, shape: tuple[int, ...]) -> Tensor | None:
        if self._background is None:
            return None
        grids = torch.from_numpy(self._background)[:, None].to(self.device).float() / 255
        if grids.shape[2:] != shape:
            grids = F.interpolate(grids, size=shape, mode="bilinear", align_corners=False)
        return self._preprocessing.normalise(grids)


def nothing_to_see(image: SteelImage, grid: npt.NDArray[np.float32]) -> str:
    """Why no model can judge a picture, whatever its probabilities say: too small, blank, black or overexposed; or "".

    Args:
        image: as it was decoded.
        grid: (H, W) grey in 0 to 1 at the size the network sees.
    """
    if min(image.height, image.width) < _SMALLEST:
        return f"only {image.width} x {image.height} pixels: too small to judge"
    if float(grid.std()) < _BLANK:
        return "every pixel is nearly alike: nothing to judge"
    if float(((grid <= _BLANK) | (grid >= 1 - _BLANK)).mean()) > _CLIPPED:
        return "almost all of it is pure black or pure white: nothing to judge"
    return ""


def evidence(found: Attribution) -> npt.NDArray[np.float32]:
    """What a person should read in a map (H, W): positive for the class, smoothed as its method asks."""
    info = EXPLAINERS[found.method].info
    return render.evidence(found.values, info.signed, info.blur)


def _batches(shapes: Sequence[tuple[int, ...]], size: int) -> Iterable[list[int]]:
    """Row numbers in batches of one shape each."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
