"""The gate before a verdict: is a picture like those that the checkpoint has learnt from?

A picture's features, averaged over the last grid, are compared with those of the training images by the distance of
Mahalanobis (Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018). The
covariance keeps its strongest directions and is made round in all others (Tipping and Bishop, Probabilistic Principal
Component Analysis, JRSS B 61, 1999). Legend: N images, F features, C directions.
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

from steel_core.errors import CheckpointError, DataError
from steel_core.models.card import GateFacts, UnfamiliarRate
from steel_core.types import Float32Array, Float64Array, FloatArray

PASSES = 0.99
LEAST = 20
"""Fewer images of training or validation cannot say what is familiar."""


@dataclass(frozen=True, eq=False)
class OODGate:
    """What familiar features look like, and how far is too far.

    Attributes:
        mean: (F,) of the training images.
        axes: (F, C) orthonormal directions of their largest variance.
        variance: (C,) along these; `rest` along every other direction.
    """

    mean: Float32Array
    axes: Float32Array
    variance: Float32Array
    rest: float
    limit: float

    @property
    def method(self) -> str:
        """What it is, in words."""
        return f"Mahalanobis distance of averaged features, {self.axes.shape[1]} directions and one for the rest"

    def ood_score(self, features: FloatArray) -> Float64Array:
        """Distance of averaged features (N, F) as a share of the limit (N,); above 1 is unfamiliar."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        along = np.square(centred @ self.axes)
        across = np.maximum(np.square(centred).sum(axis=1) - along.sum(axis=1), 0.0)
        return np.asarray(np.sqrt((along / self.variance).sum(axis=1) + across / self.rest) / self.limit)

    def to_bytes(self) -> bytes:
        """The gate as a safetensors file."""
        scalars = np.array([self.rest, self.limit], dtype=np.float64)
        return save({"mean": self.mean, "axes": self.axes, "variance": self.variance, "scalars": scalars})

    @classmethod
    def from_bytes(cls, content: bytes) -> OODGate:
        """The gate that `to_bytes` wrote; anything else is refused with a CheckpointError."""
        try:
            arrays = load(content)
            rest, limit = (float(value) for value in arrays["scalars"])
            gate = cls(arrays["mean"], arrays["axes"], arrays["variance"], rest, limit)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError("the gate for unfamiliar images is damaged") from error
        sound = (
            gate.mean.ndim == 1
            and gate.axes.shape == (*gate.mean.shape, *gate.variance.shape)
            and all(np.isfinite(array).all() for array in arrays.values())
            and min(rest, limit, float(gate.variance.min(initial=1.0))) > 0
        )
        if not sound:
            raise CheckpointError("the gate for unfamiliar images is damaged: its arrays do not fit together")
        return gate


def fit_gate(train: FloatArray, val: FloatArray, passes: float = PASSES, directions: int = 64) -> OODGate:
    """The gate of averaged features (N, F) that lets the share `passes` of familiar images through.

    The limit is the ceil((N + 1) passes)-th smallest distance of the validation images (the largest where they are too
    few): in expectation at least that share of images like them passes (split conformal prediction).

    Raises:
        DataError: too few images.
    """
    if min(len(train), len(val)) < LEAST:
        raise DataError(
            f"what is familiar needs at least {LEAST} images of the training and of the validation part; "
            f"there are {len(train)} and {len(val)}"
        )
    features = np.asarray(train, dtype=np.float64)
    mean = features.mean(axis=0)
    _, singular, axes = np.linalg.svd(features - mean, full_matrices=False)
    variance = np.square(singular) / (len(features) - 1)
    kept = max(
        1, min(directions, len(features) // 4, features.shape[1] - 1, int((variance > 1e-12 * variance[0]).sum()) - 1)
    )
    others = max(features.shape[1] - kept, 1)
    rest = max(float(variance[kept:].sum()) / others, 1e-6 * float(variance[0]), 1e-12)
    loose = OODGate(
        mean.astype(np.float32),
        np.ascontiguousarray(axes[:kept].T, dtype=np.float32),
        np.maximum(variance[:kept], rest).astype(np.float32),
        rest,
        1.0,
    )
    distances = np.sort(loose.ood_score(val))
    last = min(len(distances), int(np.ceil((len(distances) + 1) * passes - 1e-9)))
    return replace(loose, limit=max(float(distances[last - 1]), 1e-6))


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
