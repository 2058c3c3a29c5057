"""A network before training, with the initial weights that the settings ask for."""

from pathlib import Path

from steel_core.errors import UsageError
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.batch_norm import insert_batch_norm
from steel_core.models.import_weights import load_features
from steel_core.models.pretrained import read_state_dict
from steel_core.training.settings import TrainingSettings


def new_model(config: TrainingSettings, classes: int) -> Classifier:
    """A network before training, with the initial weights that the settings ask for.

    Raises:
        UsageError: the backbone is unknown, or there is no such file of weights.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    model = BACKBONES[config.backbone](classes, dropout=config.dropout)
    if weights := initial_weights(config):
        load_features(model, read_state_dict(weights))
    if config.normalised and not model.config.batch_norm:
        insert_batch_norm(model.features)
    return model


def initial_weights(config: TrainingSettings) -> Path | None:
    """The file of weights that the settings ask to start from; None for random ones.

    Raises:
        UsageError: the backbone is unknown, or there is no such file.
        CheckpointError: the weights cannot be had.
    """
    if config.start == "random":
        return None
    if config.start == "imagenet":
        return BACKBONES[config.backbone].pretrained()
    if not Path(config.init).is_file():
        raise UsageError(f"init: expected random, imagenet or a file of weights, got {Path(config.init).name!r}")
    return Path(config.init)
