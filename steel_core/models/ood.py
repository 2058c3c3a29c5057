"""The gate before a verdict: is a picture like those that the checkpoint has learnt from?

A picture's features, averaged over the last grid, are compared with those of the training images that were named as it
is: the distance to the nearest of them (Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML
2022), measured by the covariance within the classes (Lee et al., A Simple Unified Framework for Detecting
Out-of-Distribution Samples, NeurIPS 2018; shrunk after Ledoit and Wolf, J. Multivariate Analysis 88, 2004). Each class
has a limit of its own, as some vary more than others. Legend: N images, F features, K classes, C directions, M
references.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin_min

from steel_core.errors import CheckpointError, DataError
from steel_core.models.card import GateFacts, UnfamiliarRate
from steel_core.types import AnyArray, BoolArray, Float32Array, Float64Array, FloatArray, Int64Array

PASSES = 0.97
LEAST = 20
"""Fewer images of training or validation cannot say what is familiar."""

_DIRECTIONS = 128
_FEW = 10  # training images; a class with fewer is compared with all, and has the limit of all


@dataclass(frozen=True, eq=False)
class OODGate:
    """What familiar features look like, and how far is too far.

    Attributes:
        mean: (F,) of the training images.
        axes: (F, C) directions of the largest variance within the classes, as long as makes it 1 along each.
        rest: variance along any other direction.
        references: (M, C + 1) float16: training images along the axes, and the length of what is left of each.
        named: (M,) the class that the checkpoint named each.
        limits: (K,) distance from the nearest reference of a class beyond which it is unfamiliar.
    """

    mean: Float32Array
    axes: Float32Array
    rest: float
    references: AnyArray
    named: Int64Array
    limits: Float32Array

    @property
    def method(self) -> str:
        """What it is, in words."""
        return f"distance to the nearest of {len(self.references)} training images named alike, by class"

    def ood_score(self, features: FloatArray, named: AnyArray) -> Float64Array:
        """Distance of averaged features (N, F) as a share of the limit of the class named (N,); above 1: unfamiliar."""
        places, distances = self._places(features), np.empty(len(features))
        for k in np.unique(named):
            known, rows = self.references[_alike(self.named, k)].astype(float), np.asarray(named) == k
            distances[rows] = pairwise_distances_argmin_min(places[rows], known)[1] / self.limits[k]
        return distances

    def _places(self, features: FloatArray) -> Float64Array:
        centred = np.asarray(features, dtype=np.float64) - self.mean
        along = centred @ self.axes
        lengths = np.square(self.axes).sum(axis=0)  # 1 / variance
        left = np.maximum(np.square(centred).sum(axis=1) - (np.square(along) / lengths).sum(axis=1), 0.0)
        return np.column_stack([along, np.sqrt(left / self.rest)])

    def to_bytes(self) -> bytes:
        """The gate as a safetensors file."""
        return save({name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__})

    @classmethod
    def from_bytes(cls, content: bytes) -> OODGate:
        """The gate that `to_bytes` wrote; anything else is refused with a CheckpointError."""
        try:
            arrays = load(content)
        except SafetensorError as error:
            raise CheckpointError("the gate for unfamiliar images is damaged") from error
        if "references" not in arrays:
            raise CheckpointError(
                "its gate for unfamiliar images is of an earlier version; `checkpoint familiarity` makes a new one"
            )
        try:
            gate = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
            features, directions = gate.axes.shape
            sound = (
                gate.mean.shape == (features,)
                and gate.references.shape == (len(gate.named), directions + 1)
                and gate.limits.ndim == 1
                and 0 <= gate.named.min() <= gate.named.max() < len(gate.limits)
                and all(np.isfinite(array).all() for array in arrays.values())
                and min(float(gate.rest), gate.limits.min()) > 0
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError("the gate for unfamiliar images is damaged") from error
        if not sound:
            raise CheckpointError("the gate for unfamiliar images is damaged: its arrays do not fit together")
        return replace(gate, rest=float(gate.rest))


def fit_gate(
    train: tuple[FloatArray, AnyArray, AnyArray],
    val: tuple[FloatArray, AnyArray],
    classes: int,
    passes: float = PASSES,
) -> OODGate:
    """The gate that lets the share `passes` of familiar images through, in each class alike.

    `train` and `val` are averaged features (N, F) and the classes (N,) that the checkpoint named; of training images
    also their groups (N,) of near-duplicates. Each class is scaled by how far its training images lie from those of
    other groups: median and spread, which a few odd pieces do not move. One limit for all classes lets the share of
    the training images through, and of the validation images, which lie farther as the network has not learnt from
    them (split conformal prediction).

    Raises:
        DataError: too few images, or near-duplicates of one piece alone.
    """
    (features, named, groups), (new, new_named) = train, val
    if min(len(features), len(new)) < LEAST:
        raise DataError(
            f"what is familiar needs at least {LEAST} images of the training and of the validation part; "
            f"there are {len(features)} and {len(new)}"
        )
    gate = _whiten(np.asarray(features, dtype=np.float64), np.asarray(named, dtype=np.int64), classes)
    distances = _distances_to_other_groups(gate, groups)
    if not (far := np.isfinite(distances)).any():
        raise DataError("what is familiar needs training images that are not all near-duplicates of one another")
    scales = np.full(classes, _typical_limit(distances[far]))
    for k in range(classes):
        if ((of := far & (gate.named == k)).sum()) >= _FEW:
            scales[k] = _typical_limit(distances[of])
    limit = _quantile((distances / scales[gate.named])[far], passes)
    gate = replace(gate, limits=(scales * limit).astype(np.float32))
    factor = max(_quantile(gate.ood_score(new, new_named), passes), 1.0)
    return replace(gate, limits=(gate.limits * factor).astype(np.float32))


def _whiten(features: Float64Array, named: Int64Array, classes: int) -> OODGate:
    """A gate with limits of 1."""
    centres = np.zeros((classes, features.shape[1]))
    for k in np.unique(named):
        centres[k] = features[named == k].mean(axis=0)
    covariance, _ = ledoit_wolf(features - centres[named], assume_centered=True)
    variance, axes = np.linalg.eigh(covariance)
    variance, axes = np.maximum(variance[::-1], max(1e-6 * float(variance[-1]), 1e-12)), axes[:, ::-1]
    kept = min(_DIRECTIONS, len(variance))
    gate = OODGate(
        features.mean(axis=0).astype(np.float32),
        np.ascontiguousarray(axes[:, :kept] / np.sqrt(variance[:kept]), dtype=np.float32),
        float(variance[kept:].mean()) if kept < len(variance) else 1.0,
        np.empty((0, kept + 1), np.float16),
        named,
        np.ones(classes, np.float32),
    )
    return replace(gate, references=gate._places(features).astype(np.float16))


def _distances_to_other_groups(gate: OODGate, groups: AnyArray) -> Float64Array:
    """(M,) from each reference to the nearest that was named as it is and is no near-duplicate of it; or infinite."""
    nearest, groups = np.empty(len(gate.references)), np.asarray(groups)
    for k in np.unique(gate.named):
        alike, rows = _alike(gate.named, k), gate.named == k
        distances = euclidean_distances(*(gate.references[of].astype(float) for of in (rows, alike)))
        distances[groups[rows][:, None] == groups[alike]] = np.inf
        nearest[rows] = distances.min(axis=1)
    return nearest


def _alike(named: Int64Array, k: int) -> BoolArray:
    """(M,) what an image of class k is compared with: those named alike, or all where they are few."""
    alike = named == k
    return alike if alike.sum() >= _FEW else np.ones_like(alike)


def _typical_limit(distances: Float64Array) -> float:
    """Two standard deviations above the middle, by the median and the median deviation."""
    middle = float(np.median(distances))
    return max(middle + 2 * 1.4826 * float(np.median(np.abs(distances - middle))), 1e-6)


def _quantile(values: Float64Array, share: float) -> float:
    """The ceil((N + 1) share)-th smallest value, the largest where they are too few."""
    last = min(len(values), int(np.ceil((len(values) + 1) * share - 1e-9)))
    return float(np.sort(values)[last - 1])


def describe_gate(gate: OODGate, rates: Mapping[str, Mapping[str, Any]]) -> GateFacts:
    """What a card says of a gate.

    The name of the file holds the arrays' hash, so that a card finds its own gate or none, whenever the writing stops.
    """
    digest = hashlib.sha256(gate.to_bytes()).hexdigest()
    return GateFacts(
        file=f"familiar-{digest[:12]}.safetensors",
        sha256=digest,
        method=gate.method,
        rates={name: UnfamiliarRate(**rate) for name, rate in rates.items()},
    )


def read_gate(folder: Path, facts: GateFacts) -> OODGate:
    """The gate of a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or not the one of the card.
    """
    try:
        content = (folder / facts.file).read_bytes()
    except OSError as error:
        raise CheckpointError("its gate for unfamiliar images is missing") from error
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise CheckpointError("the gate for unfamiliar images is not its card's")
    return OODGate.from_bytes(content)
