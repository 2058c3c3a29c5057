"""A network before training: its initial weights, the images it can see, and the layer that Grad-CAM reads."""

from pathlib import Path

import torch

from steel_core.errors import UsageError
from steel_core.explain.hooks import grid_sizes
from steel_core.models.backbones.torchvision_nets import PREFIX
from steel_core.models.base import BACKBONES, Classifier
from steel_core.models.batch_norm import insert_batch_norm
from steel_core.models.pretrained import load_features, read_state_dict
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
    """The file of weights that the settings ask to start from; None for random ones. Raises what `new_model` does."""
    if config.start == "random":
        return None
    if config.start == "imagenet":
        return BACKBONES[config.backbone].pretrained()
    if not Path(config.init).is_file():
        raise UsageError(f"init: expected random, imagenet or a file of weights, got {Path(config.init).name!r}")
    return Path(config.init)


def with_cam_layer(backbone: str, input_size: tuple[int, int]) -> str:
    """The name of a backbone with its Grad-CAM layer: the last one with a grid, for torchvision's where none is named.

    Raises:
        UsageError: the network cannot see images of this size or of any proportions, or the layer gives no grid.
    """
    (height, width), smallest = input_size, BACKBONES[backbone].config.min_size
    if min(input_size) < smallest:
        raise UsageError(
            f"input size {height} x {width}: expected at least {smallest} pixels a side for {backbone}; "
            "choose a larger input size or another network"
        )
    family, _, name = backbone.partition(":")
    if family != "torchvision":
        return backbone
    model = BACKBONES[backbone](2).eval()
    try:
        grids = grid_sizes(model, torch.zeros(1, 3, height, width))
        grid_sizes(model, torch.zeros(1, 3, height, 2 * width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{backbone}: expected a network that sees images of {height} x {width} pixels and of other proportions"
        ) from error
    layers = [layer.removeprefix(PREFIX) for layer, grid in grids.items() if layer.startswith(PREFIX) and min(grid) > 1]
    architecture, _, wanted = name.partition("@")
    if (wanted and wanted not in layers) or not layers:
        raise UsageError(
            f"{backbone}: expected a Grad-CAM layer with a grid for images of {height} x {width} pixels; "
            f"the last ones are {', '.join(layers[-5:]) or 'not to be found'}"
        )
    return f"{family}:{architecture}@{wanted or layers[-1]}"
