"""A checkpoint: a folder with weights (safetensors), their card (JSON) and the SHAP background (safetensors).

Nothing here runs code from a file. Everything is checked against the card before a weight is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from steel_core.data.transforms import Preprocessing
from steel_core.errors import CheckpointError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.ood import Gate
from steel_core.models.pretrained import read_state_dict
from steel_core.types import CLEAR

ASSETS = Path(__file__).resolve().parents[2] / "assets"
WEIGHTS, CARD, BACKGROUND = "weights.safetensors", "card.json", "background.safetensors"
HEADS = ("softmax", "sigmoid")
FORMAT = 1
_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Card:
    """What a person and the program must know about a checkpoint.

    Attributes:
        name: short name, also that of its folder.
        title: name for people.
        backbone: name in the registry of backbones.
        head: "softmax" or "sigmoid".
        multi_label: whether several classes can be in one image; see `steel_core.metrics.multi_label`.
        classes: names in the order of the logits.
        input_size: height and width in pixels.
        mean: mean grey of the training images, 0 to 1.
        std: standard deviation of their grey.
        temperature: logits are divided by it before the head.
        thresholds: probability of each class below which its prediction is referred to a person; of a multi-label
            checkpoint that of "clear" as well.
        data: name, licence, citation and hash of the data set, number of images.
        split: how the images were divided, and the hashes of the files of each part.
        metrics: figures with intervals; each says on which images.
        training: settings and course of the training.
        map_scale: for each explainer, the evidence that gets the full colour; fixed on the validation split.
        regions: for each explainer, the rule that makes regions of maps (`steel_core.explain.regions.RegionRule`).
        quality: for each data set it was measured on, how good the explanations are, with intervals.
        familiarity: how unfamiliar images are told, and the gate's measured rates; empty where there is no gate.
        background: what the SHAP background is.
        notes: what a user should know, one sentence each.
        history: what people changed since the training: at, who, reason, old, new.
        code_version: version of steel_core that wrote it.
        created: UTC time, ISO 8601.
        weights_sha256: hash of the weights' file.
        format: version of this layout.
    """

    name: str
    title: str
    backbone: str
    head: str
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: float
    std: float
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    map_scale: dict[str, float] = field(default_factory=dict)
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    familiarity: dict[str, Any] = field(default_factory=dict)
    background: str = ""
    notes: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    code_version: str = ""
    created: str = ""
    weights_sha256: str = ""
    format: int = FORMAT
    multi_label: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        """How images must be prepared."""
        return Preprocessing(self.input_size, self.mean, self.std)

    def threshold(self, label: str) -> float:
        """Probability of `label` below which it is referred to a person; one half unless it was fitted.

        That of "clear" for a multi-label checkpoint is 1, which none reaches, unless it was fitted.
        """
        return self.thresholds.get(label, 1.0 if self.multi_label and label == CLEAR else 0.5)

    @property
    def clears(self) -> bool:
        """Whether it can call a sheet clear."""
        return self.threshold(CLEAR) < 1.0 if self.multi_label else CLEAR in self.classes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know before trusting a verdict: what the classes imply, then the notes."""
        if self.clears:
            return self.notes
        if self.multi_label:
            return ("It has learnt from no clear sheet: it names defects and cannot clear a sheet.", *self.notes)
        return ("It has no class “clear”: it names the likeliest defect and cannot clear a sheet.", *self.notes)

    def expect_one_label(self, work: str) -> None:
        """Refuse a multi-label checkpoint for `work` that asks whether the one class of an image turns.

        Raises:
            UsageError: several classes can be in one image.
        """
        if self.multi_label:
            raise UsageError(
                f"{work}: expected a checkpoint that names one class an image; {self.name} names several. One that was "
                "trained with `--binary` on the same images can be asked"
            )

    def part_of(self, image_sha256: str) -> str:
        """The part of the split ("train", "val", "test") that held an image with this hash, or ""."""
        return self._parts.get(image_sha256[:16], "")

    @cached_property
    def _parts(self) -> dict[str, str]:
        return {short: part for part, hashes in self.split.get("files", {}).items() for short in hashes}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        card: its card.
        model: the network in evaluation mode, on the CPU.
        background: (B, H, W) uint8 reference images for SHAP, or None.
        hash: sha256 of weights and card together.
        gate: tells unfamiliar images; None if the checkpoint has none.
    """

    card: Card
    model: Classifier
    background: npt.NDArray[np.uint8] | None
    hash: str
    gate: Gate | None = None


def checkpoint_folders() -> list[Path]:
    """Where checkpoints are looked for by name: the shipped ones, $STEEL_MODELS, and `runs` in the working folder."""
    mine = os.environ.get("STEEL_MODELS")
    return [ASSETS / "models", *([Path(mine)] if mine else []), Path("runs")]


def list_checkpoints() -> dict[str, Path]:
    """Name and folder of every checkpoint that can be found, shipped ones first."""
    found: dict[str, Path] = {}
    for folder in checkpoint_folders():
        for card in sorted(folder.glob(f"*/{CARD}")):
            if not card.parent.name.startswith("."):  # half-written or about to be removed
                found.setdefault(card.parent.name, card.parent)
    return found


def load_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        name_or_path: a name that `list_checkpoints` knows, or a folder.

    Raises:
        CheckpointError: it is not there, damaged, or weights and card do not belong together.
    """
    folder = _locate(name_or_path)
    card = read_card(folder)
    weights = _read_weights(folder, card)
    if card.backbone not in BACKBONES:
        raise CheckpointError(
            f"checkpoint {folder.name}: expected a backbone out of {', '.join(BACKBONES)}, got {card.backbone!r}"
        )
    smallest = BACKBONES[card.backbone].config.min_size
    if min(card.input_size) < smallest:
        raise CheckpointError(f"checkpoint {folder.name}: its input is smaller than the {smallest} pixels needed")
    model = BACKBONES[card.backbone](len(card.classes))
    _fill(model, weights, f"checkpoint {folder.name}")
    digest = _sha256(folder / WEIGHTS)
    if digest != card.weights_sha256:
        raise CheckpointError(f"checkpoint {folder.name}: the weights are not those its card describes")
    background = None
    if (folder / BACKGROUND).exists():
        try:
            background = load_arrays(folder / BACKGROUND)["images"]
        except (SafetensorError, KeyError, OSError) as error:
            raise CheckpointError(f"checkpoint {folder.name}: its SHAP background cannot be read") from error
        if background.ndim != 3 or background.dtype != np.uint8 or not background.size:
            raise CheckpointError(f"checkpoint {folder.name}: its SHAP background is not a stack of grey images")
    whole = hashlib.sha256((digest + _sha256(folder / CARD)).encode()).hexdigest()
    return Checkpoint(card, model.eval(), background, whole, _read_gate(folder, card))


def check_destination(folder: Path) -> None:
    """Make sure that nothing but a checkpoint would be replaced.

    Raises:
        UsageError: the folder is a file, or holds something and is no checkpoint.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CARD).is_file()):
        raise UsageError(f"{folder.name}: it holds other files; expected a new or empty folder, or a checkpoint")


def save_checkpoint(
    folder: Path,
    card: Card,
    state: dict[str, Tensor],
    background: npt.NDArray[np.uint8] | None = None,
    gate: Gate | None = None,
) -> None:
    """Write a checkpoint beside its place and rename it, so that a half-written one is never found.

    Args:
        folder: where it shall lie; a checkpoint there is replaced.
        card: its card; `weights_sha256` is filled in, and `familiarity` emptied where there is no gate.
        state: the network's state dictionary.
        background: (B, H, W) uint8 reference images for SHAP.
        gate: tells unfamiliar images.

    Raises:
        UsageError: the folder holds something else.
    """
    check_destination(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        scratch.chmod(0o755)
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(tensors, scratch / WEIGHTS, metadata={"classes": json.dumps(card.classes)})
        content = asdict(card) | {"weights_sha256": _sha256(scratch / WEIGHTS)}
        content["familiarity"] = card.familiarity | write_gate(scratch, gate) if gate else {}
        (scratch / CARD).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if background is not None:
            save_arrays({"images": np.ascontiguousarray(background)}, scratch / BACKGROUND)
        for file in scratch.iterdir():  # safetensors writes for the owner alone
            file.chmod(0o644)
        previous = scratch.with_name(f"{scratch.name}-replaced")
        if folder.exists():
            folder.rename(previous)
        try:
            scratch.rename(folder)
        except OSError:
            if previous.exists():
                previous.rename(folder)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_gate(folder: Path, gate: Gate) -> dict[str, str]:
    """Write the arrays of a gate into a folder and return the entries of `Card.familiarity` that name them.

    The name holds the arrays' hash, so that a card finds either its own gate or none, whenever the writing stops.
    """
    content = gate.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    name = f"familiar-{digest[:12]}.safetensors"
    write_bytes(folder / name, content)
    return {"file": name, "sha256": digest}


def update_card(name_or_path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace fields of a checkpoint's card. The weights stay; the checkpoint's hash changes, as it covers the card.

    Those who change one card wait for each other; a reader sees it before or after, never half of it.

    Args:
        name_or_path: a name that `list_checkpoints` knows, or a folder.
        change: takes the card's content, which it must not alter, and returns the fields that shall be new.

    Raises:
        CheckpointError: the checkpoint is not there, or a new field is not what a card may hold.
        UsageError: the folder cannot be written to, or another session holds the card.
    """
    folder = _locate(name_or_path)
    read_card(folder)
    try:
        with FileLock(_lock_of(folder), timeout=_PATIENCE):
            content = json.loads((folder / CARD).read_text(encoding="utf-8"))
            fields = json.loads(json.dumps(change(content)))
            for name, value in fields.items():
                expected, holds = _RULES[name]
                if not holds(value):
                    raise CheckpointError(f"checkpoint {folder.name}: in its card, {name!r} would not be {expected}")
            write_bytes(folder / CARD, (json.dumps(content | fields, indent=1, ensure_ascii=False) + "\n").encode())
    except Timeout as error:
        raise UsageError(f"checkpoint {folder.name}: another session is changing it; try again") from error
    except OSError as error:
        raise UsageError(f"checkpoint {folder.name}: its card cannot be changed: {error.strerror or error}") from error


def _lock_of(folder: Path) -> Path:
    """A file outside the checkpoint, which shall hold nothing but what its card describes."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.lock"


def import_state_dict(path: Path, folder: Path, card: Card) -> None:
    """Make a checkpoint of a bare state dictionary of the card's architecture; the card says its file's sha256.

    Raises:
        CheckpointError: names, shapes or values do not fit.
    """
    model = BACKBONES[card.backbone](len(card.classes))
    _fill(model, model.translated(read_state_dict(path)), f"weights {path.name}")
    training = card.training | {"init_sha256": _sha256(path)}
    save_checkpoint(folder, replace(card, training=training), model.state_dict())


def load_features(model: Classifier, state: dict[str, Tensor]) -> int:
    """Copy the weights whose name and shape fit into `model` and return how many did; the head stays as it is.

    Raises:
        CheckpointError: none fits.
    """
    own, state = model.state_dict(), model.translated(state)
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape and not k.startswith("head.")}
    if not fits:
        raise CheckpointError("expected weights of the same architecture; none of their names and shapes fit")
    model.load_state_dict(fits, strict=False)
    return len(fits)


def _locate(name_or_path: str | Path) -> Path:
    known = list_checkpoints()
    folder = known.get(str(name_or_path), Path(name_or_path))
    if not (folder / CARD).is_file():
        raise CheckpointError(
            f"checkpoint {folder.name!r}: expected one of {', '.join(known) or 'none shipped'}, "
            f"or a folder with {CARD} and {WEIGHTS}"
        )
    return folder


def read_card(folder: Path) -> Card:
    """What a checkpoint's card says, without its weights.

    Raises:
        CheckpointError: there is none, or an entry is not what a card may hold.
    """
    try:
        content = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: its card is not readable JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {folder.name}: expected a card of format {FORMAT}")
    for name, (expected, holds) in _RULES.items():
        if name in _REQUIRED and name not in content:
            raise CheckpointError(f"checkpoint {folder.name}: its card lacks {name!r}")
        if name in content and not holds(content[name]):
            raise CheckpointError(f"checkpoint {folder.name}: in its card, {name!r} is not {expected}")
    known = {name: content[name] for name in _RULES if name in content}
    return Card(**known | {name: tuple(known.get(name, ())) for name in ("classes", "input_size", "notes", "history")})


def _read_gate(folder: Path, card: Card) -> Gate | None:
    if not card.familiarity:
        return None
    try:
        content = (folder / card.familiarity["file"]).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder.name}: its gate for unfamiliar images is missing") from error
    if hashlib.sha256(content).hexdigest() != card.familiarity["sha256"]:
        raise CheckpointError(f"checkpoint {folder.name}: the gate for unfamiliar images is not its card's")
    try:
        return Gate.from_bytes(content)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {folder.name}: {error}") from error


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _numbers(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_number(low, high), value.values()))


def _region_rule(value: Any) -> bool:
    numbers = {
        "mean": _number(-1e30, 1e30),
        "std": _number(0, 1e30),
        "k": _number(-100, 100),
        "blur": _number(0, 1000),
        "smallest": _number(0, 1),
    }
    return (
        isinstance(value, dict)
        and value.keys() == {*numbers, "chosen_on"}
        and isinstance(value["chosen_on"], str)
        and all(holds(value[name]) for name, holds in numbers.items())
    )


def _quality(value: Any) -> bool:
    """Whether it holds images, methods -> metric -> figure, and method -> metric -> quantiles as they are read."""
    figure = _number(-1e30, 1e30)

    def nested(tree: Any, leaf: Callable[[Any], bool]) -> bool:
        return isinstance(tree, dict) and all(
            isinstance(metrics, dict) and all(map(leaf, metrics.values())) for metrics in tree.values()
        )

    def with_interval(cell: Any) -> bool:
        return (
            isinstance(cell, dict)
            and {"value", "low", "high", "n"} <= cell.keys()
            and all(number is None or figure(number) for number in cell.values())
        )

    return (
        isinstance(value, dict)
        and _number(0, 1e12)(value.get("images"))
        and isinstance(value.get("evidence"), str)
        and nested(value.get("methods"), with_interval)
        and nested(value.get("quantiles", {}), lambda q: isinstance(q, list) and all(map(figure, q)))
    )


_TEXT = ("a text", lambda value: isinstance(value, str))
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": _TEXT,
    "title": _TEXT,
    "backbone": _TEXT,
    "head": (f"one of {', '.join(HEADS)}", lambda value: value in HEADS),
    "classes": ("a list of different names", lambda v: _texts(v) and len(v) > 0 and len(set(v)) == len(v)),
    "input_size": (
        "a height and a width in pixels",
        lambda v: isinstance(v, list) and len(v) == 2 and all(isinstance(x, int) and 0 < x <= 8192 for x in v),
    ),
    "mean": ("a number from 0 to 1", _number(0, 1)),
    "std": ("a number above 0, up to 1", _number(1e-9, 1)),
    "temperature": ("a number above 0", _number(1e-3, 1e3)),
    "thresholds": ("a number from 0 to 1 for each class", _numbers(0, 1)),
    "data": ("an object", lambda value: isinstance(value, dict)),
    "split": (
        "an object with lists of hashes",
        lambda v: isinstance(v, dict)
        and isinstance(v.get("files", {}), dict)
        and all(map(_texts, v.get("files", {}).values())),
    ),
    "metrics": ("an object of objects", lambda v: isinstance(v, dict) and all(isinstance(f, dict) for f in v.values())),
    "training": ("an object", lambda value: isinstance(value, dict)),
    "map_scale": ("a number above 0 for each method", _numbers(1e-30, 1e30)),
    "regions": ("a rule for each method", lambda v: isinstance(v, dict) and all(map(_region_rule, v.values()))),
    "quality": ("figures for each data set", lambda v: isinstance(v, dict) and all(map(_quality, v.values()))),
    "familiarity": (
        "an object that names a file and its hash",
        lambda v: isinstance(v, dict)
        and (not v or (isinstance(v.get("sha256"), str) and v.get("file") == Path(str(v.get("file"))).name)),
    ),
    "background": _TEXT,
    "notes": ("a list of sentences", _texts),
    "history": ("a list of objects", lambda v: isinstance(v, list) and all(isinstance(item, dict) for item in v)),
    "code_version": _TEXT,
    "created": _TEXT,
    "weights_sha256": _TEXT,
    "multi_label": ("true or false", lambda value: isinstance(value, bool)),
}  # fmt: skip
_REQUIRED = {"name", "title", "backbone", "head", "classes", "input_size", "mean", "std", "weights_sha256"}


def _read_weights(folder: Path, card: Card) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: its weights are missing or damaged") from error
    try:
        classes = json.loads(metadata.get("classes", "[]"))
    except ValueError:
        classes = None
    if not _texts(classes):
        raise CheckpointError(f"checkpoint {folder.name}: its weights are damaged: their list of classes is unreadable")
    if classes and tuple(classes) != card.classes:
        raise CheckpointError(
            f"checkpoint {folder.name}: the weights were trained for {len(classes)} classes in the order "
            f"{', '.join(classes)}; the card lists {len(card.classes)}: {', '.join(card.classes)}"
        )
    return state


def _fill(model: Classifier, state: dict[str, Tensor], what: str) -> None:
    own = model.state_dict()
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or extra:
        raise CheckpointError(
            f"{what}: expected the {len(own)} tensors of the architecture; "
            f"{len(missing)} are missing, {len(extra)} unknown"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise CheckpointError(f"{what}: {name} has shape {list(value.shape)}, expected {list(own[name].shape)}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{what}: {name} holds values that are not numbers (NaN or infinite)")
    model.load_state_dict(state)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
