"""Weights that were trained elsewhere: as a checkpoint of their own, or as a start for training."""

import hashlib
from pathlib import Path

from torch import Tensor

from steel_core.errors import CheckpointError
from steel_core.models.base import BACKBONES, Classifier, fill_weights
from steel_core.models.card import Card
from steel_core.models.checkpoint import save_checkpoint
from steel_core.models.pretrained import read_state_dict


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
