"""Teach a checkpoint to say "unfamiliar: no verdict", and measure how well it does so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steel_core.data.images.read import read_image
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import share
from steel_core.models.amend import amend_card
from steel_core.models.checkpoint import write_gate
from steel_core.models.ood import PASSES, Gate, fit_gate
from steel_core.progress import Progress, no_progress
from steel_core.types import SteelImage

Features = npt.NDArray[np.float32]

_CHUNK = 64
_TEXTURES = ("brick", "grass", "gravel")


def teach_familiarity(
    folder: Path,
    index: DatasetIndex,
    others: Mapping[str, DatasetIndex],
    who: str,
    reason: str = "gate for unfamiliar images",
    device: str = "auto",
    progress: Progress = no_progress,
) -> dict[str, dict[str, Any]]:
    """Make, measure and install the gate of a checkpoint, and return the rates that stand in its card.

    Measured are the test part of `index`, on which few must be called unfamiliar; photographs and textures that
    installed packages bring along, on which nearly all must; and every other data set.

    Args:
        folder: the checkpoint's.
        index: the data set it was trained on.
        others: more data sets to measure, by their names for people.
        who: the person who answers for it.
        reason: in that person's words.
        device: "auto", "cpu", "cuda" or "mps".
        progress: called with images done and their number, for `index`.

    Raises:
        DataError: too few of the images it was trained on are there.
        UsageError: the folder cannot be written to, or nobody is named.
    """
    predictor = Predictor.load(folder, device)
    gate, test, groups = learn_familiar(predictor, index, progress=progress)
    rates = {f"{index.spec.title}, test part": unfamiliar_rate(gate, test, groups)}
    for name, images in photographs().items():
        rates[name] = unfamiliar_rate(gate, predictor.features(images), [image.sha256 for image in images])
    for name, other in others.items():
        features, groups = _features_of(predictor, other)
        rates[name] = unfamiliar_rate(gate, features, groups)
    install_gate(folder, gate, rates, who, reason)
    return rates


def learn_familiar(
    predictor: Predictor, index: DatasetIndex, passes: float = PASSES, progress: Progress = no_progress
) -> tuple[Gate, Features, list[str]]:
    """The gate of a checkpoint, from the images it was trained and validated on.

    Args:
        predictor: the checkpoint.
        index: the data set it was trained on, known by the hashes of its files.
        passes: share of familiar images that shall pass.
        progress: called with images done and their number.

    Returns:
        The gate; the averaged features (N, F) of the test images, which had no part in it; their groups (N,).

    Raises:
        DataError: too few of the images are there.
    """
    by_part: dict[str, list[Features]] = {"train": [], "val": [], "test": []}
    groups: list[str] = []
    for start in range(0, len(index), _CHUNK):
        chunk: dict[str, list[SteelImage]] = {}
        for row in range(start, min(start + _CHUNK, len(index))):
            try:
                image = index.image(row)
            except ImageError:
                continue
            part = predictor.card.part_of(image.sha256)
            if part in by_part:
                chunk.setdefault(part, []).append(image)
            if part == "test":
                groups.append(index[row].group or f"row {row}")
        for part, images in chunk.items():
            by_part[part].append(predictor.features(images))
        progress("looking at familiar images", min(start + _CHUNK, len(index)), len(index))
    train, val, test = (np.concatenate(found) if found else np.zeros((0, 1), np.float32) for found in by_part.values())
    return fit_gate(train, val, passes), test, groups


def photographs() -> dict[str, list[SteelImage]]:
    """Pictures of no steel that the installed scikit-image and scikit-learn bring along; nothing is fetched.

    Returns:
        "photographs" (people, animals, things, stars, cells, text) and "textures" (brick, grass, gravel), the latter in
        nine crops each.
    """
    found: dict[str, list[SteelImage]] = {"photographs": [], "textures": []}
    for package in ("skimage.data", "sklearn.datasets.images"):
        for file in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if not file.name.endswith((".png", ".jpg")):
                continue
            try:
                image = read_image(file.read_bytes(), name=file.name)
            except ImageError:
                continue  # a format that no user could hand in either
            if file.name.removesuffix(".png") in _TEXTURES:
                found["textures"] += _ninths(image)
            else:
                found["photographs"].append(image)
    return found


def unfamiliar_rate(gate: Gate, features: Features, groups: Sequence[str] | None = None) -> dict[str, Any]:
    """The share of pictures, by their averaged features (N, F), that the gate calls unfamiliar, with its interval."""
    figure = share(gate.strangeness(features) > 1, None if groups is None else np.asarray(groups))
    return {"unfamiliar": figure.value, "interval": [figure.low, figure.high], "n": figure.n,
            "effective": round(figure.effective, 1)}  # fmt: skip


def install_gate(folder: Path, gate: Gate, rates: Mapping[str, Mapping[str, Any]], who: str, reason: str) -> None:
    """Give a checkpoint its gate: the arrays beside the weights, its rates and the hash of the arrays into the card.

    Args:
        folder: the checkpoint's.
        gate: what `learn_familiar` made.
        rates: what `unfamiliar_rate` found on each set of images, by the set's name for people.
        who: the person who answers for it.
        reason: in that person's words.

    Raises:
        UsageError: the folder cannot be written to, or nobody is named.
        DataError: there are no rates: a gate nobody measured is not to be trusted.
    """
    if not rates:
        raise DataError("a gate needs its rates, measured on images that had no part in it")
    facts: dict[str, Any] = write_gate(folder, gate) | {
        "method": f"Mahalanobis distance of averaged features, {gate.axes.shape[1]} directions and one for the rest",
        "rates": {name: dict(rate) for name, rate in rates.items()},
    }
    amend_card(folder, lambda _: {"familiarity": facts}, who, reason)
    for old in folder.glob("familiar-*.safetensors"):
        if old.name != facts["file"]:
            old.unlink(missing_ok=True)


def _features_of(predictor: Predictor, index: DatasetIndex) -> tuple[Features, list[str]]:
    """Averaged features (N, F) and groups (N,) of the readable images that the checkpoint has not learnt from."""
    found: list[Features] = []
    groups: list[str] = []
    for start in range(0, len(index), _CHUNK):
        chunk = []
        for row in range(start, min(start + _CHUNK, len(index))):
            try:
                image = index.image(row)
            except ImageError:
                continue
            if predictor.card.part_of(image.sha256) not in ("train", "val"):
                chunk.append(image)
                groups.append(index[row].group or f"row {row}")
        if chunk:
            found.append(predictor.features(chunk))
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32), groups


def _ninths(image: SteelImage) -> list[SteelImage]:
    rows, columns = (np.array_split(np.arange(side), 3) for side in (image.height, image.width))
    return [
        SteelImage(image.pixels[r[0] : r[-1] + 1, c[0] : c[-1] + 1], f"{image.name}-{i}{j}", image.sha256)
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    ]
