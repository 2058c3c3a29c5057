"""A checkpoint: a folder with weights (safetensors), their card (JSON) and the SHAP background (safetensors).

Nothing here runs code from a file. Everything is checked against the card before a weight is used.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from steel_core.errors import CheckpointError, UsageError
from steel_core.files import assets_folder, cache_folder, write_bytes
from steel_core.models.base import BACKBONES, Classifier, fill_weights
from steel_core.models.card import Amendment, Card
from steel_core.models.ood import OODGate, read_gate
from steel_core.types import UInt8Array

ASSETS = assets_folder()
WEIGHTS, CARD, BACKGROUND = "weights.safetensors", "card.json", "background.safetensors"
_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its network in evaluation mode on the CPU, and (B, H, W) uint8 reference images for SHAP."""

    card: Card
    model: Classifier
    background: UInt8Array | None
    hash: str
    gate: OODGate | None = None


def list_checkpoints() -> dict[str, Path]:
    """Name and folder of each: the shipped ones, those in $STEEL_MODELS, and those in `runs` in the working folder."""
    mine = os.environ.get("STEEL_MODELS")
    folders: dict[str, Path] = {}
    for place in (ASSETS / "models", *([Path(mine)] if mine else []), Path("runs")):
        for card in sorted(place.glob(f"*/{CARD}")):
            if not card.parent.name.startswith("."):  # half-written or about to be removed
                folders.setdefault(card.parent.name, card.parent)
    return folders


def read_card(folder: Path) -> Card:
    """What a checkpoint's card says, without its weights.

    Raises:
        CheckpointError: there is none, or an entry is not what a card may hold.
    """
    try:
        content = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: its card is not readable JSON") from error
    with _name_checkpoint(folder, "in its card, "):
        if isinstance(content, dict) and "format" not in content:
            raise CheckpointError("format: expected 1, got none")
        card = Card.from_json(content)
        if not card.weights_sha256:
            raise CheckpointError("weights sha256: expected the hash of the weights, got none")
        return card


def load_checkpoint(name_or_path: str | Path, *, with_gate: bool = True) -> Checkpoint:
    """Read and verify a checkpoint: a name that `list_checkpoints` knows, or a folder.

    Without its gate it can be given a new one, whatever became of the old.

    Raises:
        CheckpointError: it is not there, damaged, or weights and card do not belong together.
    """
    folder = _locate(name_or_path)
    card = read_card(folder)
    with _name_checkpoint(folder):
        weights = _read_weights(folder / WEIGHTS, card)
        if card.backbone not in BACKBONES:
            raise CheckpointError(f"expected a backbone out of {', '.join(BACKBONES)}, got {card.backbone!r}")
        smallest = BACKBONES[card.backbone].config.min_size
        if min(card.input_size) < smallest:
            raise CheckpointError(f"its input is smaller than the {smallest} pixels needed")
        model = BACKBONES[card.backbone](len(card.classes))
        fill_weights(model, weights)
        digest = _sha256(folder / WEIGHTS)
        if digest != card.weights_sha256:
            raise CheckpointError("the weights are not those its card describes")
        background = _read_background(folder / BACKGROUND)
        gate = read_gate(folder, card.familiarity) if card.familiarity and with_gate else None
    whole = hashlib.sha256((digest + _sha256(folder / CARD)).encode()).hexdigest()
    return Checkpoint(card, model.eval(), background, whole, gate)


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
    background: UInt8Array | None = None,
    gate: OODGate | None = None,
) -> None:
    """Write a checkpoint beside its place and rename it, so that a half-written one is never found.

    A checkpoint in `folder` is replaced. The card's `weights_sha256` is filled in, and `familiarity` emptied where the
    gate that it describes is not given. `background`: (B, H, W) uint8 reference images for SHAP.

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
        facts = card.familiarity if gate else None
        if gate and facts:
            write_bytes(scratch / facts.file, gate.to_bytes())
        card = card.replace(weights_sha256=_sha256(scratch / WEIGHTS), familiarity=facts)
        (scratch / CARD).write_bytes(_card_bytes(card))
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


def update_card(name_or_path: str | Path, change: Callable[[Card], dict[str, Any]]) -> None:
    """Replace the fields of a card that `change` returns. The checkpoint's hash changes, as it covers the card.

    Those who change one card wait for each other; a reader sees it before or after, never half of it.

    Raises:
        CheckpointError: the checkpoint is not there, or a new field is not what a card may hold.
        UsageError: the folder cannot be written to, or another session holds the card.
    """
    folder = _locate(name_or_path)
    # The lock lies outside the checkpoint, which shall hold nothing but what its card describes.
    locks = cache_folder() / "locks"
    try:
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{name}.lock", timeout=_PATIENCE):
            card = read_card(folder)
            with _name_checkpoint(folder, "in its card, "):
                write_bytes(folder / CARD, _card_bytes(card.replace(**change(card))))
    except Timeout as error:
        raise UsageError(f"checkpoint {folder.name}: another session is changing it; try again") from error
    except OSError as error:
        raise UsageError(f"checkpoint {folder.name}: its card cannot be changed: {error.strerror or error}") from error


def amend_card(folder: Path, change: Callable[[Card], dict[str, Any]], who: str, reason: str) -> None:
    """Replace fields as `update_card` does, and add to the history what they were and are, who did it, when and why.

    Raises:
        UsageError: nobody is named, the folder cannot be written to, or another session holds the card.
        CheckpointError: there is no readable card, or a new field is not what a card may hold.
    """
    if not who.strip():
        raise UsageError("a change to a checkpoint needs the name of the person who makes it")

    def amend(card: Card) -> dict[str, Any]:
        fields = change(card)
        old, new = ({name: each.to_json()[name] for name in fields} for each in (card, card.replace(**fields)))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Amendment(at=at, who=who.strip(), reason=reason.strip(), old=old, new=new)
        return fields | {"history": (*card.history, entry)}

    update_card(folder, amend)


def _card_bytes(card: Card) -> bytes:
    return (json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n").encode()


@contextmanager
def _name_checkpoint(folder: Path, place: str = "") -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {folder.name}: {place}{error}") from error


def _read_weights(path: Path, card: Card) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("its weights are missing or damaged") from error
    try:
        classes = json.loads(metadata.get("classes", "[]"))
    except ValueError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError("its weights are damaged: their list of classes is unreadable")
    if classes and tuple(classes) != card.classes:
        raise CheckpointError(
            f"the weights were trained for {len(classes)} classes in the order {', '.join(classes)}; "
            f"the card lists {len(card.classes)}: {', '.join(card.classes)}"
        )
    return state


def _read_background(path: Path) -> UInt8Array | None:
    if not path.exists():
        return None
    try:
        background: UInt8Array = load_arrays(path)["images"]
    except (SafetensorError, KeyError, OSError) as error:
        raise CheckpointError("its SHAP background cannot be read") from error
    if background.ndim != 3 or background.dtype != np.uint8 or not background.size:
        raise CheckpointError("its SHAP background is not a stack of grey images")
    return background


def _locate(name_or_path: str | Path) -> Path:
    folders = list_checkpoints()
    folder = folders.get(str(name_or_path), Path(name_or_path))
    if not (folder / CARD).is_file():
        raise CheckpointError(
            f"checkpoint {folder.name!r}: expected one of {', '.join(folders) or 'none shipped'}, "
            f"or a folder with {CARD} and {WEIGHTS}"
        )
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
