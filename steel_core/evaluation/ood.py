"""Teach a checkpoint to say "unfamiliar: no verdict", and measure how well it does so."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from steel_core.data.images.read import read_image
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.files import write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import estimate_share
from steel_core.models.checkpoint import amend_card, load_checkpoint
from steel_core.models.ood import OODGate, describe_gate, fit_gate
from steel_core.progress import Progress, no_progress, within
from steel_core.types import AnyArray, Float32Array, Int64Array, SteelImage

_CHUNK, _MOST = 64, 2000
_TEXTURES = ("brick", "grass", "gravel")


class Looks(NamedTuple):
    """Images in the eyes of a checkpoint: averaged features (N, F), classes named (N,), groups (N,) and labels (N,)."""

    features: Float32Array
    named: Int64Array
    groups: AnyArray
    labels: AnyArray

    def of(self, label: str) -> Looks:
        """Those with that label."""
        return Looks(*(column[self.labels == label] for column in self))


def store_ood_gate(
    folder: Path,
    index: DatasetIndex,
    others: Mapping[str, DatasetIndex],
    who: str,
    reason: str = "gate for unfamiliar images",
    device: str = "auto",
    progress: Progress = no_progress,
) -> dict[str, dict[str, Any]]:
    """Make, measure and install the gate of a checkpoint, and return the rates that stand in its card.

    Raises:
        DataError: too few of the images it was trained on are there.
        UsageError: the folder cannot be written to, or nobody is named.
    """
    predictor = Predictor(load_checkpoint(folder, with_gate=False), device)
    gate, rates = make_ood_gate(predictor, index, others, progress)
    install_gate(folder, gate, rates, who, reason)
    return rates


def make_ood_gate(
    predictor: Predictor,
    index: DatasetIndex,
    others: Mapping[str, DatasetIndex] = {},
    progress: Progress = no_progress,
) -> tuple[OODGate, dict[str, dict[str, Any]]]:
    """The gate of a checkpoint, and the shares of images that it calls unfamiliar, by the name of the set.

    It follows from the images it was trained and validated on, known by their hashes. Measured are the test part of
    `index`, whole and by label, on which few must be called unfamiliar; photographs and textures that installed
    packages bring along, on which nearly all must; and `others`, by their names for people.

    Raises:
        DataError: too few of the images it was trained on are there.
    """
    parts = _look_by_part(predictor, index, {part: part for part in ("train", "val", "test")}, progress)
    train, val, test = parts["train"], parts["val"], parts["test"]
    gate = fit_gate((train.features, train.named, train.groups), (val.features, val.named), len(predictor.classes))
    rates = {}
    if len(test.groups):
        name = f"{index.spec.title}, test part"
        rates[name] = measure_unfamiliar_rate(gate, test)
        for label in sorted(set(test.labels)):
            rates[f"{name}: {label.replace('|', ', ')}"] = measure_unfamiliar_rate(gate, test.of(label))
    for name, images in load_photographs().items():
        hashes = np.array([image.sha256 for image in images])
        looks = Looks(*predictor.named_features(images, within(progress, name)), hashes, hashes)
        rates[name] = measure_unfamiliar_rate(gate, looks)
    for name, other in others.items():
        unseen = _look_by_part(predictor, other, {"": "unseen", "test": "unseen"}, within(progress, name))
        rates[name] = measure_unfamiliar_rate(gate, unseen["unseen"])
    return gate, rates


def load_photographs() -> dict[str, list[SteelImage]]:
    """Pictures of no steel from scikit-image and scikit-learn: "photographs", and "textures" in nine crops each."""
    pictures: dict[str, list[SteelImage]] = {"photographs": [], "textures": []}
    for package in ("skimage.data", "sklearn.datasets.images"):
        for file in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if not file.name.endswith((".png", ".jpg")):
                continue
            try:
                image = read_image(file.read_bytes(), name=file.name)
            except ImageError:
                continue  # a format that no user could hand in either
            if file.name.removesuffix(".png") in _TEXTURES:
                pictures["textures"] += _ninths(image)
            else:
                pictures["photographs"].append(image)
    return pictures


def measure_unfamiliar_rate(gate: OODGate, looks: Looks) -> dict[str, Any]:
    """The share of pictures that the gate calls unfamiliar, with its interval by group."""
    estimate = estimate_share(gate.ood_score(looks.features, looks.named) > 1, looks.groups)
    return {"unfamiliar": estimate.value, "interval": [estimate.low, estimate.high], "n": estimate.n,
            "effective": round(estimate.effective, 1)}  # fmt: skip


def install_gate(folder: Path, gate: OODGate, rates: Mapping[str, Mapping[str, Any]], who: str, reason: str) -> None:
    """Give a checkpoint its gate: the arrays beside the weights, its rates and the hash of the arrays into the card.

    Raises:
        UsageError: the folder cannot be written to, or nobody is named.
        DataError: there are no rates: a gate nobody measured is not to be trusted.
    """
    if not rates:
        raise DataError("a gate needs its rates, measured on images that had no part in it")
    facts = describe_gate(gate, rates)
    write_bytes(folder / facts.file, gate.to_bytes())
    amend_card(folder, lambda _: {"familiarity": facts}, who, reason)
    for old in folder.glob("familiar-*.safetensors"):
        if old.name != facts.file:
            old.unlink(missing_ok=True)


def _look_by_part(
    predictor: Predictor, index: DatasetIndex, names: Mapping[str, str], progress: Progress = no_progress
) -> dict[str, Looks]:
    """The looks of readable images, by the name given to the part each served in: of many, `_MOST` drawn at random."""
    looks: dict[str, list[tuple[Float32Array, Int64Array]]] = {name: [] for name in names.values()}
    rows: dict[str, list[int]] = {name: [] for name in names.values()}
    drawn = np.random.default_rng(0).permutation(len(index)).tolist()
    for start in range(0, len(index), _CHUNK):
        chunk: dict[str, list[SteelImage]] = {}
        for row in drawn[start : start + _CHUNK]:
            try:
                image = index.image(row)
            except ImageError:
                continue
            name = names.get(predictor.card.part_of(image))
            if name and len(rows[name]) < _MOST:
                chunk.setdefault(name, []).append(image)
                rows[name].append(row)
        for name, images in chunk.items():
            looks[name].append(predictor.named_features(images))
        progress("gate for unfamiliar images", start, len(index))
        if min(map(len, rows.values())) == _MOST:
            break
    progress("gate for unfamiliar images", len(index), len(index))
    return {
        name: Looks(
            np.concatenate([features for features, _ in looks[name]]) if of else np.zeros((0, 1), np.float32),
            np.concatenate([named for _, named in looks[name]]) if of else np.zeros(0, np.int64),
            np.array([index[row].group or f"row {row}" for row in of]),
            np.array(["|".join(index[row].labels) for row in of]),
        )
        for name, of in rows.items()
    }


def _ninths(image: SteelImage) -> list[SteelImage]:
    rows, columns = (np.array_split(np.arange(side), 3) for side in (image.height, image.width))
    return [
        SteelImage(image.pixels[r[0] : r[-1] + 1, c[0] : c[-1] + 1], f"{image.name}-{i}{j}", image.sha256)
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    ]
