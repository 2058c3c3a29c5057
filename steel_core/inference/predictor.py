"""The Predictor: load a checkpoint once, then predict and explain many images, from any number of threads."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from steel_core import render
from steel_core.device import batch_size, choose_device, in_parallel, tune_memory
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer
from steel_core.inference.backgrounds import Backgrounds
from steel_core.inference.onnx_forward import BulkForward
from steel_core.inference.verdict import decide_predictions
from steel_core.models.base import Classifier
from steel_core.models.batch_norm import fold_for_inference
from steel_core.models.checkpoint import Checkpoint, load_checkpoint
from steel_core.progress import Progress, no_progress
from steel_core.types import (
    REFER,
    UNFAMILIAR,
    Attribution,
    Float32Array,
    Int64Array,
    Prediction,
    SteelImage,
)

Result = TypeVar("Result")

LOW_MARGIN = 0.2
"""Difference of the two largest probabilities below which the better question is why one and not the other."""

_MANY = 64  # images from which a network is worth translating


class Predictor:
    """A checkpoint on a device.

    No call changes its state, and explainers work on a private copy of the network's structure, so one object serves
    every browser session at once. `forward` is for many batches; `gate` tells unfamiliar images; `backgrounds` are name
    and title of what SHAP can compare with, the usual one first.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        tune_memory()
        self.device = choose_device(device)
        self.card = checkpoint.card
        self.hash = checkpoint.hash
        model: Classifier = fold_for_inference(checkpoint.model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.forward = BulkForward(self.model)
        self.gate = checkpoint.gate
        self._backgrounds = Backgrounds(checkpoint.card, checkpoint.background)
        self.backgrounds = self._backgrounds.titles
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
        grids = [self._preprocessing.to_grid(image) for image in images]
        logits, features = self._forward_grids([grid for grid, _ in grids], progress)
        return decide_predictions(self.card, self.hash, self.gate, images, grids, logits, features)

    def features(self, images: Sequence[SteelImage], progress: Progress = no_progress) -> Float32Array:
        """What the network makes of each image before its head (N, F), averaged over the last grid."""
        return self._forward_grids([self._preprocessing.to_grid(image)[0] for image in images], progress)[1]

    def named_features(
        self, images: Sequence[SteelImage], progress: Progress = no_progress
    ) -> tuple[Float32Array, Int64Array]:
        """What `features` gives (N, F), and the class that each image is named (N,): what the gate asks for."""
        logits, features = self._forward_grids([self._preprocessing.to_grid(image)[0] for image in images], progress)
        return features, logits.argmax(axis=1)

    def logits(self, grids: Sequence[Float32Array], progress: Progress = no_progress) -> Float32Array:
        """Logits (N, K) of grey images (H, W) in 0 to 1 at the size the network sees; sizes may differ."""
        return self._forward_grids(grids, progress, bulk=True)[0]

    def _forward_grids(
        self, grids: Sequence[Float32Array], progress: Progress = no_progress, *, bulk: bool = False
    ) -> tuple[Float32Array, Float32Array]:
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
        self, work: Callable[[Tensor], Result], grids: Sequence[Float32Array], progress: Progress
    ) -> Iterator[tuple[list[int], Result]]:
        """Rows, and what `work` makes of their network inputs, for batches of grids (H, W) of one size each."""
        batches = list(_batches([grid.shape for grid in grids], batch_size(self.device)))
        results = in_parallel(lambda rows: work(self.network_inputs([grids[i] for i in rows])), batches, self.device)
        done = 0
        for rows, result in zip(batches, results, strict=True):
            yield rows, result
            done += len(rows)
            progress("predicting", done, len(grids))

    def predict_and_explain(
        self, images: Sequence[SteelImage], progress: Progress = no_progress
    ) -> list[tuple[Prediction, dict[str, Attribution]]]:
        """Prediction, Grad-CAM and Guided Grad-CAM of the predicted class, from one pass; all maps stay in memory."""
        grids = [self._preprocessing.to_grid(image) for image in images]
        explained: dict[int, tuple[Prediction, dict[str, Attribution]]] = {}
        batches = self._by_batch(self._one_pass, [grid for grid, _ in grids], progress)
        for rows, (logits, features, maps, seconds) in batches:
            predictions = decide_predictions(
                self.card, self.hash, self.gate, [images[i] for i in rows], [grids[i] for i in rows], logits, features
            )
            for at, (i, prediction) in enumerate(zip(rows, predictions, strict=True)):
                plain = {name: self._attribution(images[i], name, EXPLAINERS[name](), prediction.pred) for name in maps}
                of_image = {name: replace(plain[name], values=maps[name][at], seconds=seconds) for name in maps}
                explained[i] = prediction, of_image
        return [explained[i] for i in range(len(images))]

    def explain(self, image: SteelImage, method: str, target: str | None = None, **question: Any) -> Attribution:
        """Evidence for `target` (the predicted class if None) in one image: the last step of `refine`."""
        *_, last = self.refine(image, method, target, **question)
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
        """Evidence for `target` (the predicted class if None) in one image: a first map at once, then better ones.

        `method` is a name in `EXPLAINERS`; `parameters` are those of its settings that shall differ from the defaults.
        With `against` it explains why `target` and not this class; `is_doubtful` tells when to ask so. `background` is
        a name in `backgrounds`, the first of them if empty.

        Raises:
            UsageError: unknown method, class, background or parameter.
        """
        kind = EXPLAINERS[method]
        try:
            explainer = kind(**parameters)
        except TypeError:
            names = ", ".join(kind.__dataclass_fields__) or "none"
            raise UsageError(f"{method}: expected parameters out of {names}, got {', '.join(parameters)}") from None
        target = self.predict([image])[0].pred if target is None else target
        weights = self.question_weights(target, against)
        grid, _ = self._preprocessing.to_grid(image)
        title, references = self.reference_images(background, grid.shape, kind.info.needs)

        inputs = self.network_inputs([grid])
        first = replace(
            self._attribution(image, method, explainer, target),
            against=against or "",
            baseline=title,
            seed=seed if "seed" in kind.info.needs else None,
        )

        def steps() -> Iterator[Attribution]:
            taken, resumed = 0.0, time.perf_counter()
            for step in explainer.refine(self.model, inputs, weights, background=references, seed=seed):
                taken += time.perf_counter() - resumed
                noise = None if step.noise is None else float(step.noise[0])
                yield replace(first, values=step.values[0, 0].cpu().numpy(), noise=noise, seconds=taken)
                resumed = time.perf_counter()

        return steps()

    def is_doubtful(self, prediction: Prediction) -> bool:
        """Whether the question to begin with is why the likeliest class and not the second.

        So where an image is refused, or the two are close, unless both can be there.
        """
        if self.card.multi_label or len(self.classes) == 1:
            return False
        first, second, *_ = sorted(prediction.probs.values(), reverse=True)
        return prediction.outcome in (REFER, UNFAMILIAR) or first - second < LOW_MARGIN

    def reference_images(
        self, background: str, shape: tuple[int, ...], needs: frozenset[str]
    ) -> tuple[str, Tensor | None]:
        """Title and normalised images (B, 3, H, W), see `Backgrounds.choose`."""
        title, grids = self._backgrounds.choose(background, shape, needs)
        return title, None if grids is None else self._normalised(grids)

    def network_inputs(self, grids: Sequence[Float32Array]) -> Tensor:
        """Normalised images (N, 3, H, W), on the device, of grids (H, W) of one size."""
        return self._normalised(torch.from_numpy(np.stack(grids)))

    def question_weights(self, target: str, against: str | None) -> Tensor:
        """The weights of the logits (1, K) in what is explained: `target`, or `target` and not `against`.

        UsageError where a class is unknown, or both are the same.
        """
        weights = torch.zeros(1, len(self.classes), device=self.device)
        for name, weight in ((target, 1.0), (against, -1.0)):
            if name and name not in self.classes:
                raise UsageError(f"unknown class {name!r}; this checkpoint knows {', '.join(self.classes)}")
            if name:
                weights[0, self.classes.index(name)] += weight
        if target == against:
            raise UsageError(f"target and against: expected two classes, got {target!r} twice")
        return weights

    def layers(self) -> dict[str, tuple[int, int]]:
        """The layers that Grad-CAM can read, with rows and columns of their grids at the trained size."""
        return engine.layers(self.model, self.card.input_size)

    @functools.cached_property
    def stride(self) -> int:
        """Pixels of the input from one cell of the network's last grid to the next: a power of two, as in most."""
        rows, _ = self.layers().get(self.model.config.cam_layer, self.card.input_size)
        return int(2 ** round(math.log2(self.card.input_size[0] / rows)))

    def map_scale(self, attribution: Attribution) -> tuple[float, bool]:
        """The evidence that gets the full colour, and whether it was fixed on the validation split.

        A map is scaled by itself where an (imported) checkpoint has no scale, and on another layer than the usual one.
        """
        usual = attribution.layer in ("", self.model.config.cam_layer)
        if (fixed := self.card.map_scale.get(attribution.method)) and usual:
            return fixed, True
        shown = map_evidence(attribution)
        return (render.evidence_scale([shown]) if shown.any() else 1.0), False

    def _one_pass(self, inputs: Tensor) -> tuple[Float32Array, Float32Array, dict[str, Float32Array], float]:
        """Logits (N, K), averaged features (N, F), each method's maps (N, H, W), and seconds spent on each image."""
        started = time.perf_counter()
        if engine.supports(self.model):
            logits, features, cam, guided = engine.explain(self.model, inputs)
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

    def _attribution(self, image: SteelImage, method: str, explainer: Explainer, target: str) -> Attribution:
        parameters = explainer.parameters()
        reads_layer = "cam layer" in explainer.info.needs
        return Attribution(
            values=np.empty((0, 0), np.float32), method=method, target=target,
            layer=(parameters.pop("layer", "") or self.model.config.cam_layer) if reads_layer else "",
            baseline="", parameters=parameters, seed=None, image_sha256=image.sha256, checkpoint=self.hash,
        )  # fmt: skip

    def _normalised(self, grids: Tensor) -> Tensor:
        return self._preprocessing.normalise(grids[:, None].to(self.device))


def map_evidence(attribution: Attribution) -> Float32Array:
    """What a person should read in a map (H, W): positive for the class, smoothed as its method asks."""
    info = EXPLAINERS[attribution.method].info
    return render.evidence(attribution.values, info.signed, info.blur)


def _batches(shapes: Sequence[tuple[int, ...]], size: int) -> Iterable[list[int]]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
