"""The Predictor: load a checkpoint once, then predict and explain many images, from any number of threads."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core import render
from steel_core.data.strip_mill import StripMill
from steel_core.data.transforms import Preprocessing
from steel_core.device import batch_size, choose_device, in_parallel, tune_memory
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer
from steel_core.inference.onnx_forward import BulkForward
from steel_core.metrics import multi_label, probabilities
from steel_core.models.base import Classifier
from steel_core.models.batch_norm import folded_for_inference
from steel_core.models.checkpoint import Checkpoint, load_checkpoint
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, REFER, UNFAMILIAR, Attribution, Patch, Prediction, SteelImage

Found = TypeVar("Found")

DRAWN_SHEETS = 20
"""Clear sheets that the program draws for SHAP to compare with."""

DRAWN_TITLE = f"{DRAWN_SHEETS} clear sheets drawn by the program, as bright and rich in contrast as the training images"

LOW_MARGIN = 0.2
"""Difference of the two largest probabilities below which the better question is why one and not the other."""

_SMALLEST = 16  # pixels a side
_BLANK = 1 / 255  # one grey level of 8 bits
_CLIPPED = 0.95  # share of the picture
_MANY = 64  # images from which a network is worth translating


class Predictor:
    """A checkpoint on a device.

    It holds no state that a call changes, and explainers work on a private copy of the network's structure, so one
    object serves every browser session at once.

    Attributes:
        device: where it runs.
        card: the checkpoint's.
        hash: of the checkpoint.
        model: the network, ready to predict.
        forward: logits and averaged features of many batches of normalised images, see `BulkForward`.
        gate: what tells unfamiliar images, or None.

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
        self.forward = BulkForward(self.model)
        self.gate = checkpoint.gate
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

    def predict(self, images: Sequence[SteelImage], progress: Progress = no_progress) -> list[Prediction]:
        """One prediction for each image, of any size, in the same order."""
        seen = [self._preprocessing.to_grid(image) for image in images]
        logits, features = self._look([grid for grid, _ in seen], progress)
        return self._predictions(images, seen, logits, features)

    def features(self, images: Sequence[SteelImage], progress: Progress = no_progress) -> npt.NDArray[np.float32]:
        """What the network makes of each image before its head (N, F), averaged over the last grid."""
        return self._look([self._preprocessing.to_grid(image)[0] for image in images], progress)[1]

    def logits(
        self, grids: Sequence[npt.NDArray[np.float32]], progress: Progress = no_progress
    ) -> npt.NDArray[np.float32]:
        """Logits (N, K) of grey images (H, W) in 0 to 1 at the size the network sees; sizes may differ."""
        return self._look(grids, progress, bulk=True)[0]

    def _look(
        self, grids: Sequence[npt.NDArray[np.float32]], progress: Progress = no_progress, *, bulk: bool = False
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits (N, K) and averaged features (N, F) of one pass."""
        logits = np.empty((len(grids), len(self.classes)), dtype=np.float32)
        averaged = np.empty((len(grids), 0), dtype=np.float32)
        work = self.forward if bulk or len(grids) >= _MANY else partial(engine.predict, self.model)
        for rows, (out, means) in self._by_batch(work, grids, progress):
            if averaged.shape[1] != means.shape[1]:
                averaged = np.empty((len(grids), means.shape[1]), dtype=np.float32)
            logits[rows], averaged[rows] = out.float().cpu().numpy(), means.float().cpu().numpy()
        return logits, averaged

    def _by_batch(
        self,
        work: Callable[[Tensor], Found],
        grids: Sequence[npt.NDArray[np.float32]],
        progress: Progress,
    ) -> Iterator[tuple[list[int], Found]]:
        """Rows, and what `work` makes of their network inputs, for batches of grids (H, W) of one size each."""
        batches = list(_batches([grid.shape for grid in grids], batch_size(self.device)))
        made = in_parallel(lambda rows: work(self._inputs([grids[i] for i in rows])), batches, self.device)
        done = 0
        for rows, found in zip(batches, made, strict=True):
            yield rows, found
            done += len(rows)
            progress("predicting", done, len(grids))

    def predict_and_explain(
        self, images: Sequence[SteelImage], progress: Progress = no_progress
    ) -> list[tuple[Prediction, dict[str, Attribution]]]:
        """Prediction, and Grad-CAM and Guided Grad-CAM of the predicted class, from one pass over many images.

        The maps are those of `explain`, in a fraction of the time. They stay in memory: ask for some hundreds at once.
        """
        seen = [self._preprocessing.to_grid(image) for image in images]
        found: dict[int, tuple[Prediction, dict[str, Attribution]]] = {}
        for rows, (logits, features, maps, seconds) in self._by_batch(
            self._one_pass, [grid for grid, _ in seen], progress
        ):
            predictions = self._predictions([images[i] for i in rows], [seen[i] for i in rows], logits, features)
            for at, (i, prediction) in enumerate(zip(rows, predictions, strict=True)):
                attributions = {
                    method: self._attribution(
                        images[i], method, EXPLAINERS[method](), values[at], prediction.pred, seconds=seconds
                    )
                    for method, values in maps.items()
                }
                found[i] = prediction, attributions
        return [found[i] for i in range(len(images))]

    def predict_variants(
        self, grid: npt.NDArray[np.float32], variants: Iterable[Sequence[Patch]]
    ) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (M, K) of M variants of one picture, each with patches pasted on it.

        Args:
            grid: grey (H, W) in 0 to 1 at the size the network sees, as `card.preprocessing.to_grid` gives it.
            variants: the patches of each variant, in the order in which they are pasted; drawn one batch at a time, so
                a generator of thousands takes no memory.
        """
        pending = iter(variants)
        batches = iter(lambda: list(islice(pending, batch_size(self.device))), [])

        def work(batch: list[Sequence[Patch]]) -> npt.NDArray[np.float32]:
            pictures = np.repeat(grid[None], len(batch), axis=0)
            for picture, patches in zip(pictures, batch, strict=True):
                for patch in patches:
                    patch.paste_on(picture)
            return self.forward(self._normalised(torch.from_numpy(pictures)))[0].numpy()

        none = np.empty((0, len(self.classes)), dtype=np.float32)
        logits = [none, *in_parallel(work, batches, self.device)]
        return probabilities(np.concatenate(logits).astype(np.float64), self.card.head, self.card.temperature)

    def explain(
        self,
        image: SteelImage,
        method: str,
        target: str | None = None,
        *,
        against: str | None = None,
        background: str = "",
        seed: int = 0,
        **parameters: Any,
    ) -> Attribution:
        """Evidence for `target` (the predicted class if None) in one image.

        Args:
            image: any size.
            method: a name in `EXPLAINERS`.
            target: a class of this checkpoint.
            against: another class, to explain why `target` and not this one; `default_target` tells when to ask so.
            background: what to compare with: a name in `backgrounds`, the first of them if empty.
            seed: of the method's random numbers.
            parameters: the method's settings, where they shall differ from its defaults.

        Raises:
            UsageError: unknown method, class, background or parameter.
        """
        *_, last = self.refine(image, method, target, against=against, background=background, seed=seed, **parameters)
        return last

    def refine(
        self,
        image: SteelImage,
        method: str,
        target: str | None = None,
        *,
        against: str | None = None,
        background: str = "",
        seed: int = 0,
        **parameters: Any,
    ) -> Iterator[Attribution]:
        """What `explain` returns, in steps: a first map at once, then better ones; arguments and errors as there."""
        kind = EXPLAINERS[method]
        try:
            explainer = kind(**parameters)
        except TypeError:
            known = ", ".join(kind.__dataclass_fields__) or "none"
            raise UsageError(f"{method}: expected parameters out of {known}, got {', '.join(parameters)}") from None
        target = self.predict([image])[0].pred if target is None else target
        weights = self._weights(target, against)
        grid, _ = self._preprocessing.to_grid(image)
        title, references = self._compared_with(background, grid.shape, kind.info.needs)

        def steps() -> Iterator[Attribution]:
            taken, resumed = 0.0, time.perf_counter()
            for step in explainer.refine(self.model, self._inputs([grid]), weights, background=references, seed=seed):
                taken += time.perf_counter() - resumed
                yield self._attribution(
                    image,
                    method,
                    explainer,
                    step.values[0, 0].cpu().numpy(),
                    target,
                    against=against or "",
                    noise=None if step.noise is None else float(step.noise[0]),
                    baseline=title,
                    seed=seed if "seed" in kind.info.needs else None,
                    seconds=taken,
                )
                resumed = time.perf_counter()

        return steps()

    def default_target(self, prediction: Prediction) -> tuple[str, str | None]:
        """What to explain of a prediction, unless told otherwise: the class, and the class it is contrasted with.

        A refused image, and one whose two likeliest classes are close, asks why the one and not the other; not where
        both can be there.
        """
        if self.card.multi_label:
            return prediction.pred, None
        ranked = sorted(self.classes, key=lambda name: -prediction.probs[name])[:2]
        margin = prediction.probs[ranked[0]] - prediction.probs[ranked[-1]]
        if len(ranked) > 1 and (prediction.outcome in (REFER, UNFAMILIAR) or margin < LOW_MARGIN):
            return prediction.pred, ranked[1]
        return prediction.pred, None

    @property
    def backgrounds(self) -> dict[str, str]:
        """Name and title of what SHAP can compare with; the first is used unless told otherwise."""
        stored = (
            {"stored": self.card.background or "stored with the checkpoint"} if self._background is not None else {}
        )
        return stored | {
            "drawn": f"{DRAWN_SHEETS} clear sheets drawn by the program, as bright and rich in contrast as the "
            "training images",
            "grey": "one plain sheet of mean grey",
        }

    def layers(self, size: tuple[int, int] | None = None) -> dict[str, tuple[int, int]]:
        """The layers that Grad-CAM can read, with rows and columns of their grids.

        Args:
            size: rows and columns of the image as the network sees it; those of the trained input if None.
        """
        return engine.layers(self.model, size or self.card.input_size)

    @functools.cached_property
    def stride(self) -> int:
        """Pixels of the input from one cell of the network's last grid to the next: a power of two, as in most."""
        grids = self.layers()
        rows, _ = grids.get(self.model.config.cam_layer, self.card.input_size)
        return int(2 ** round(math.log2(self.card.input_size[0] / rows)))

    def map_scale(self, found: Attribution) -> tuple[float, bool]:
        """The evidence that gets the full colour, and whether it was fixed on the validation split.

        A checkpoint without a scale for the method (an imported one) has the map scaled by itself, and so has a map of
        another layer than the usual one.
        """
        usual = found.layer in ("", self.model.config.cam_layer)
        if (fixed := self.card.map_scale.get(found.method)) and usual:
            return fixed, True
        shown = evidence(found)
        return (render.evidence_scale([shown]) if shown.any() else 1.0), False

    def _predictions(
        self,
        images: Sequence[SteelImage],
        seen: Sequence[tuple[npt.NDArray[np.float32], str]],
        logits: npt.NDArray[np.float32],
        features: npt.NDArray[np.float32],
    ) -> list[Prediction]:
        """One for each image, of its grid and note, its logits (N, K) and its averaged features (N, F)."""
        probs = probabilities(logits.astype(np.float64), self.card.head, self.card.temperature)
        strange = self.gate.strangeness(features) if self.gate and len(images) else [None] * len(images)
        return [
            self._prediction(image, row, p, note, nothing_to_see(image, grid), s)
            for image, row, p, (grid, note), s in zip(images, logits, probs, seen, strange, strict=True)
        ]

    def _prediction(
        self,
        image: SteelImage,
        logits: npt.NDArray[np.float32],
        probs: npt.NDArray[np.float64],
        note: str,
        blank: str,
        strangeness: float | None,
    ) -> Prediction:
        best = int(probs.argmax())
        pred, threshold = self.classes[best], self.card.threshold(self.classes[best])
        defects = None
        if self.card.multi_label:
            named = multi_label.named(probs, self.classes, self.card.thresholds)
            defects = tuple(self.classes[k] for k in np.argsort(-probs, kind="stable") if named[k])
            outcome = str(multi_label.outcomes(probs[None], self.classes, self.card.thresholds)[0])
        else:
            outcome = pred if probs[best] >= threshold else REFER
        if blank:
            outcome = REFER
        if not blank and strangeness is not None and strangeness > 1:
            outcome = UNFAMILIAR
        return Prediction(
            name=image.name,
            pred=pred,
            outcome=outcome,
            probs=dict(zip(self.classes, map(float, probs), strict=True)),
            logits=logits,
            threshold=threshold,
            image_sha256=image.sha256,
            checkpoint=self.hash,
            note="; ".join(part for part in (image.note, note, blank) if part),
            judgeable=not blank,
            strangeness=None if strangeness is None else float(strangeness),
            defects=defects,
        )

    def _one_pass(
        self, inputs: Tensor
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]], float]:
        """Logits (N, K), averaged features (N, F), each method's maps (N, H, W), and seconds spent on each image."""
        started = time.perf_counter()
        if engine.supports(self.model):
            logits, features, cam, guided, _ = engine.explain(self.model, inputs)
            assert guided is not None
            maps = {
                "grad-cam": engine.enlarge(cam, inputs.shape[2:]),
                "guided-grad-cam": engine.guided_grad_cam(guided, cam),
            }
        else:
            logits, features = engine.predict(self.model, inputs)
            winners = logits.argmax(dim=1)
            maps = {
                method: EXPLAINERS[method]().attribute(self.model, inputs, winners)
                for method in ("grad-cam", "guided-grad-cam")
            }
        shown = {method: values[:, 0].cpu().numpy() for method, values in maps.items()}
        seconds = (time.perf_counter() - started) / len(inputs)
        return logits.float().cpu().numpy(), features.float().cpu().numpy(), shown, seconds

    def _attribution(
        self,
        image: SteelImage,
        method: str,
        explainer: Explainer,
        values: npt.NDArray[np.float32],
        target: str,
        *,
        against: str = "",
        noise: float | None = None,
        baseline: str = "",
        seed: int | None = None,
        seconds: float,
    ) -> Attribution:
        parameters = explainer.parameters()
        reads_layer = "cam layer" in explainer.info.needs
        return Attribution(
            values=values,
            method=method,
            target=target,
            against=against,
            noise=noise,
            layer=(parameters.pop("layer", "") or self.model.config.cam_layer) if reads_layer else "",
            baseline=baseline,
            parameters=parameters,
            seed=seed,
            image_sha256=image.sha256,
            checkpoint=self.hash,
            seconds=seconds,
        )

    def _weights(self, target: str, against: str | None) -> Tensor:
        """The weights of the logits (1, K) that the question stands for."""
        weights = torch.zeros(1, len(self.classes), device=self.device)
        for name, weight in ((target, 1.0), (against, -1.0)):
            if name and name not in self.classes:
                raise UsageError(f"unknown class {name!r}; this checkpoint knows {', '.join(self.classes)}")
            if name:
                weights[0, self.classes.index(name)] += weight
        if target == against:
            raise UsageError(f"target and against: expected two classes, got {target!r} twice")
        return weights

    def _compared_with(
        self, background: str, shape: tuple[int, ...], needs: frozenset[str]
    ) -> tuple[str, Tensor | None]:
        """Title and normalised images (B, 3, H, W) of a background, or of what a method makes itself."""
        if background and background not in self.backgrounds:
            raise UsageError(f"unknown background {background!r}; there are: {', '.join(self.backgrounds)}")
        if "background" not in needs:
            return "mean grey" if "baseline" in needs else "", None
        name = background or next(iter(self.backgrounds))
        if name == "grey":
            grids = torch.full((1, *shape), self.card.mean)
        else:
            size = (shape[0], shape[1])
            stored = name == "stored"
            greys = self._background if stored else drawn_background(replace(self._preprocessing, input_size=size))
            grids = torch.tensor(greys).float() / 255
        if grids.shape[1:] != shape:
            grids = F.interpolate(grids[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]
        return self.backgrounds[name], self._normalised(grids)

    def _inputs(self, grids: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        return self._normalised(torch.from_numpy(np.stack(grids)))

    def _normalised(self, grids: Tensor) -> Tensor:
        return self._preprocessing.normalise(grids[:, None].to(self.device))


@functools.lru_cache(maxsize=8)
def drawn_background(preprocessing: Preprocessing, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Reference images for SHAP (B, H, W): clear sheets of the strip mill, as bright and contrasty as training."""
    mill = StripMill(size=preprocessing.input_size, seed=seed)
    sheets = np.stack([mill.render(i, CLEAR).pixels for i in range(DRAWN_SHEETS)]).astype(np.float32) / 255
    alike = (sheets - sheets.mean()) / sheets.std() * preprocessing.std + preprocessing.mean
    drawn = (alike.clip(0, 1) * 255).round().astype(np.uint8)
    drawn.flags.writeable = False  # it is shared by all who ask
    return drawn


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
