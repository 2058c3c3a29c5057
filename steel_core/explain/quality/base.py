"""What a metric of explanation quality is, the material it works on, and the registry of all of them.

Legend of shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from steel_core import render
from steel_core.device import batch_size
from steel_core.explain import engine
from steel_core.explain.base import Explainer
from steel_core.explain.regions import region_mask
from steel_core.metrics import logits_to_probabilities
from steel_core.models.base import Classifier
from steel_core.models.card import RegionRule
from steel_core.registry import Registry
from steel_core.types import Float32Array, Float64Array, FloatArray, Int64Array, Mask

FAMILIES = ("localisation", "faithfulness", "robustness", "randomisation", "completeness")


@dataclass(frozen=True, eq=False)
class Case:
    """Images of one size, each explained for one class by one method."""

    model: Classifier
    inputs: Tensor  # normalised images (N, C, H, W)
    targets: Tensor  # index of the class that is explained (N,)
    explainer: Explainer
    values: Float32Array  # raw attribution (N, H, W)
    background: Tensor | None = None  # reference images (B, C, H, W), or None
    # for each image the mask (H, W) of the class that is explained, or None where nothing is on file
    truth: tuple[Mask | None, ...] = ()
    rule: RegionRule | None = None  # from map to region, or None where none was chosen
    head: str = "softmax"  # "softmax" or "sigmoid"
    temperature: float = 1.0  # logits are divided by it before the head
    # of each logit in what is explained (N, K), where that is not the target's logit alone; else None
    weights: Tensor | None = None
    std: float = 1.0  # standard deviation of the training images' grey of 0 to 1, by which the inputs were divided
    seed: int = 0
    number: int = 0  # of its first image among all that are measured, so that what is drawn for each image is its own
    # a faster way to what `engine.predict` says of the model, or None
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
    def evidence(self) -> Float32Array:
        """What a person reads in the maps (N, H, W): smoothed as the method asks, positive for the class."""
        return self._evidence(self.values)

    @cached_property
    def regions(self) -> tuple[Mask | None, ...]:
        """Region (H, W) of each image; None without a rule."""
        return tuple(None if self.rule is None else region_mask(shown, self.rule) for shown in self.evidence)

    def explain(self, inputs: Tensor, targets: Tensor | None = None, model: Classifier | None = None) -> Float32Array:
        """Evidence (N, H, W) of the same method for other inputs, targets (N,) or another model."""
        if targets is None:
            targets = self.targets if self.weights is None else self.weights
        model = self.model if model is None else model
        return self._evidence(attribute(self.explainer, model, inputs, targets, self.background, self.seed))

    def probs(self, inputs: Tensor) -> Float64Array:
        """Calibrated probabilities (M, K) of any inputs (M, C, H, W)."""
        raw = logits(self.model, inputs) if self.forward is None else self.forward(inputs)[0].double().numpy()
        return logits_to_probabilities(raw, self.head, self.temperature)

    def _evidence(self, values: Float32Array) -> Float32Array:
        info = self.explainer.info
        return np.stack([render.evidence(one, info.signed, info.blur) for one in values])


class Metric(NamedTuple):
    """One figure that tells how good an explanation is."""

    title: str
    family: str  # one of `FAMILIES`
    higher: bool  # whether more is better
    source: str  # paper and year, and what differs from it
    measure: Callable[[Case], Float64Array]  # the value of each image (N,); NaN where the metric does not apply to it
    # what a map that knows nothing would reach (N,), or None where that is not known
    chance: Callable[[Case], Float64Array] | None = None
    maps: int = 0  # how many further maps of an image it asks for; 0 for metrics that look at the map alone
    bounded: bool = True  # whether it lies in 0 to 1


METRICS: Registry[Metric] = Registry("metric", "steel_core.explain.quality", "steel_lens.metrics")


def attribute(
    explainer: Explainer,
    model: Classifier,
    inputs: Tensor,
    targets: Tensor,
    background: Tensor | None = None,
    seed: int = 0,
) -> Float32Array:
    """Raw maps (N, H, W) of inputs (N, C, H, W), in batches that suit the device."""
    size = batch_size(inputs.device)
    parts = [
        explainer.attribute(model, some, wanted, background=background, seed=seed)[:, 0].float().cpu()
        for some, wanted in zip(inputs.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(parts).numpy()


def logits(model: Classifier, inputs: Tensor) -> Float64Array:
    """Logits (N, K) of inputs (N, C, H, W), in batches that suit the device."""
    return np.asarray(engine.predict(model, inputs)[0].double().cpu().numpy())


def spearman(a: FloatArray, b: FloatArray) -> Float64Array:
    """Rank correlation (N,) of maps (N, ...) with maps (N, ...), ties at their mean rank; 0 where one is constant.

    Source: Spearman, American Journal of Psychology 15, 1904.
    """
    ranked = [ranks(maps) for maps in (a, b)]
    return np.asarray((ranked[0] * ranked[1]).sum(axis=1))


def ranks(maps: FloatArray) -> Float64Array:
    """Ranks of each map's pixels (N, P), centred and of length 1, so that a product of two is their correlation."""
    out = rankdata(maps.reshape(len(maps), -1).astype(np.float64), axis=1)
    out -= out.mean(axis=1, keepdims=True)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.where(length > 0, length, 1))


def rank_pixels(evidence: Float32Array, seed: int) -> Int64Array:
    """Place of each pixel (N, H, W) when the strongest evidence comes first, from 0; equal pixels in random order."""
    n = len(evidence)
    flat = evidence.reshape(n, -1)
    shuffle = np.random.default_rng(seed).permutation(flat.shape[1])
    sequence = shuffle[np.argsort(-flat[:, shuffle], axis=1, kind="stable")]
    place = np.empty_like(sequence)
    np.put_along_axis(place, sequence, np.arange(flat.shape[1])[None].repeat(n, axis=0), axis=1)
    return place.reshape(evidence.shape)
