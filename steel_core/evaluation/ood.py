"""Teach a checkpoint to say "unfamiliar: no verdict", and measure how well it does so."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from steel_core.data.images.read import read_image
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.files import write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import estimate_share
from steel_core.models.checkpoint import amend_card
from steel_core.models.ood import OODGate, describe_gate, fit_gate
from steel_core.progress import Progress, no_progress, within
from steel_core.types import Float32Array, SteelImage

_CHUNK = 64
_TEXTURES = ("brick", "grass", "gravel")


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
    gate, rates = make_ood_gate(Predictor.load(folder, device), index, others, progress)
    install_gate(folder, gate, rates, who, reason)
    return rates


def make_ood_gate(
    predictor: Predictor,
    index: DatasetIndex,
    others: Mapping[str, DatasetIndex] = {},
    progress: Progress = no_progress,
) -> tuple[OODGate, dict[str, dict[str, Any]]]:
    """The gate of a checkpoint, and the shares of images that it calls unfamiliar, by the name of the set.

    Measured are the test part of `index`, on which few must be called unfamiliar; photographs and textures that
    installed packages bring along, on which nearly all must; and `others`, by their names for people.

    Raises:
        DataError: too few of the images it was trained on are there.
    """
    gate, test, groups = fit_ood_gate(predictor, index, progress)
    rates = {f"{index.spec.title}, test part": measure_unfamiliar_rate(gate, test, groups)} if groups else {}
    for name, images in load_photographs().items():
        hashes = [image.sha256 for image in images]
        rates[name] = measure_unfamiliar_rate(gate, predictor.features(images, within(progress, name)), hashes)
    for name, other in others.items():
        unseen = _features_by_part(predictor, other, {"": "unseen", "test": "unseen"})
        rates[name] = measure_unfamiliar_rate(gate, *unseen["unseen"])
    return gate, rates


def fit_ood_gate(
    predictor: Predictor, index: DatasetIndex, progress: Progress = no_progress
) -> tuple[OODGate, Float32Array, list[str]]:
    """The gate of a checkpoint; features (N, F) and groups (N,) of the test images, which had no part in it.

    It follows from the images it was trained and validated on, known by their hashes; DataError where they are too few.
    """
    looks = _features_by_part(predictor, index, {part: part for part in ("train", "val", "test")}, progress)
    return fit_gate(looks["train"][0], looks["val"][0]), *looks["test"]


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


def measure_unfamiliar_rate(
    gate: OODGate, features: Float32Array, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """The share of pictures, by their averaged features (N, F), that the gate calls unfamiliar, with its interval."""
    estimate = estimate_share(gate.ood_score(features) > 1, None if groups is None else np.asarray(groups))
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


def _features_by_part(
    predictor: Predictor, index: DatasetIndex, names: Mapping[str, str], progress: Progress = no_progress
) -> dict[str, tuple[Float32Array, list[str]]]:
    """Averaged features (N, F) and groups (N,) of the readable images, by the name given to the part each served in."""
    features: dict[str, list[Float32Array]] = {name: [] for name in names.values()}
    groups: dict[str, list[str]] = {name: [] for name in names.values()}
    for start in range(0, len(index), _CHUNK):
        chunk: dict[str, list[SteelImage]] = {}
        for row in range(start, min(start + _CHUNK, len(index))):
            try:
                image = index.image(row)
            except ImageError:
                continue
            if name := names.get(predictor.card.part_of(image.sha256)):
                chunk.setdefault(name, []).append(image)
                groups[name].append(index[row].group or f"row {row}")
        for name, images in chunk.items():
            features[name].append(predictor.features(images))
        progress("looking at familiar images", min(start + _CHUNK, len(index)), len(index))
    nothing = np.zeros((0, 1), np.float32)
    return {name: (np.concatenate(some) if some else nothing, groups[name]) for name, some in features.items()}


def _ninths(image: SteelImage) -> list[SteelImage]:
    rows, columns = (np.array_split(np.arange(side), 3) for side in (image.height, image.width))
    return [
        SteelImage(image.pixels[r[0] : r[-1] + 1, c[0] : c[-1] + 1], f"{image.name}-{i}{j}", image.sha256)
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    ]
