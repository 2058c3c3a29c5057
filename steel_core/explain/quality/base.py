"""What a metric of explanation quality is, the material it works on, and the registry of all of them.

Legend of shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from steel_core import render
from steel_core.device import batch_size
from steel_core.explain import engine
from steel_core.explain.base import Explainer
from steel_core.explain.regions import Mask, RegionRule, region_mask
from steel_core.metrics import probabilities
from steel_core.models.base import Classifier
from steel_core.registry import Registry

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]

FAMILIES = ("localisation", "faithfulness", "robustness", "randomisation", "completeness")


@dataclass(frozen=True, eq=False)
class Case:
    """Images of one size, each explained for one class by one method.

    Attributes:
        model: the classifier, on the device of `inputs`.
        inputs: normalised images (N, C, H, W).
        targets: index of the class that is explained (N,).
        explainer: the method.
        values: raw attribution (N, H, W).
        background: reference images (B, C, H, W), or None.
        truth: for each image the mask (H, W) of the class that is explained, or None where nothing is on file.
        rule: from map to region, or None where none was chosen.
        head: "softmax" or "sigmoid".
        temperature: logits are divided by it before the head.
        weights: of each logit in what is explained (N, K), where that is not the target's logit alone; else None.
        std: standard deviation of the training images' grey of 0 to 1, by which the inputs were divided.
        seed: of all random numbers.
        number: of its first image among all that are measured, so that what is drawn for each image is its own.
        forward: a faster way to what `engine.predict` says of the model, or None.
    """

    model: Classifier
    inputs: Tensor
    targets: Tensor
    explainer: Explainer
    values: Maps
    background: Tensor | None = None
    truth: tuple[Mask | None, ...] = ()
    rule: RegionRule | None = None
    head: str = "softmax"
    temperature: float = 1.0
    weights: Tensor | None = None
    std: float = 1.0
    seed: int = 0
    number: int = 0
    forward: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> Case:
        """The same with the first images only."""
        if count >= len(self):
            return self
        return replace(
            self,
            inputs=self.inputs[:count],
            targets=self.targets[:count],
            values=self.values[:count],
            truth=self.truth[:count],
            weights=None if self.weights is None else self.weights[:count],
        )

    @cached_property
    def evidence(self) -> Maps:
        """What a person reads in the maps (N, H, W): smoothed as the method asks, positive for the class."""
        return self._evidence(self.values)

    @cached_property
    def found(self) -> tuple[Mask | None, ...]:
        """Region (H, W) of each image; None without a rule."""
        return tuple(None if self.rule is None else region_mask(shown, self.rule) for shown in self.evidence)

    def explain(self, inputs: Tensor, targets: Tensor | None = None, model: Classifier | None = None) -> Maps:
        """Evidence (N, H, W) of the same method for other inputs, targets (N,) or another model."""
        if targets is None:
            targets = self.targets if self.weights is None else self.weights
        model = self.model if model is None else model
        return self._evidence(attribute(self.explainer, model, inputs, targets, self.background, self.seed))

    def probs(self, inputs: Tensor) -> Floats:
        """Calibrated probabilities (M, K) of any inputs (M, C, H, W)."""
        found = logits(self.model, inputs) if self.forward is None else self.forward(inputs)[0].double().numpy()
        return probabilities(found, self.head, self.temperature)

    def _evidence(self, values: Maps) -> Maps:
        info = self.explainer.info
        return np.stack([render.evidence(one, info.signed, info.blur) for one in values])


class Metric(NamedTuple):
    """One figure that tells how good an explanation is.

    Attributes:
        title: name for people.
        family: one of `FAMILIES`.
        higher: whether more is better.
        source: paper and year, and what differs from it.
        measure: the value of each image (N,); NaN where the metric does not apply to it.
        chance: what a map that knows nothing would reach (N,), or None where that is not known.
        maps: how many further maps of an image it asks for; 0 for metrics that look at the map alone.
        bounded: whether it lies in 0 to 1.
    """

    title: str
    family: str
    higher: bool
    source: str
    measure: Callable[[Case], Floats]
    chance: Callable[[Case], Floats] | None = None
    maps: int = 0
    bounded: bool = True


METRICS: Registry[Metric] = Registry("metric", "steel_core.explain.quality")


def attribute(
    explainer: Explainer,
    model: Classifier,
    inputs: Tensor,
    targets: Tensor,
    background: Tensor | None = None,
    seed: int = 0,
) -> Maps:
    """Raw maps (N, H, W) of inputs (N, C, H, W), in batches that suit the device."""
    size = batch_size(inputs.device)
    parts = [
        explainer.attribute(model, some, wanted, background=background, seed=seed)[:, 0].float().cpu()
        for some, wanted in zip(inputs.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(parts).numpy()


def logits(model: Classifier, inputs: Tensor) -> Floats:
    """Logits (N, K) of inputs (N, C, H, W), in batches that suit the device."""
    return np.asarray(engine.predict(model, inputs)[0].double().cpu().numpy())


def spearman(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> Floats:
    """Rank correlation (N,) of maps (N, ...) with maps (N, ...), ties at their mean rank; 0 where one is constant.

    Source: Spearman, American Journal of Psychology 15, 1904.
    """
    ranked = [ranks(maps) for maps in (a, b)]
    return np.asarray((ranked[0] * ranked[1]).sum(axis=1))


def ranks(maps: npt.NDArray[np.floating]) -> Floats:
    """Ranks of each map's pixels (N, P), centred and of length 1, so that a product of two is their correlation."""
    out = rankdata(maps.reshape(len(maps), -1).astype(np.float64), axis=1)
    out -= out.mean(axis=1, keepdims=True)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.where(length > 0, length, 1))


def order(evidence: Maps, seed: int) -> npt.NDArray[np.int64]:
    """Place of each pixel (N, H, W) when the strongest evidence comes first, from 0; equal pixels in random order."""
    n = len(evidence)
    flat = evidence.reshape(n, -1)
    shuffle = np.random.default_rng(seed).permutation(flat.shape[1])
    sequence = shuffle[np.argsort(-flat[:, shuffle], axis=1, kind="stable")]
    place = np.empty_like(sequence)
    np.put_along_axis(place, sequence, np.arange(flat.shape[1])[None].repeat(n, axis=0), axis=1)
    return place.reshape(evidence.shape)
