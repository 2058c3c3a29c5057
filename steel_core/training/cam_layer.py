"""Whether a network sees images of some size, and which of its layers Grad-CAM reads if its author did not say."""

import torch

from steel_core.errors import UsageError
from steel_core.explain.hooks import grid_sizes
from steel_core.models.backbones.torchvision_nets import PREFIX
from steel_core.models.base import BACKBONES


def with_cam_layer(backbone: str, input_size: tuple[int, int]) -> str:
    """The name of a backbone with its Grad-CAM layer: the last one with a grid, for torchvision's where none is named.

    Raises:
        UsageError: the network cannot see images of this size or of any proportions, or the layer gives no grid.
    """
    smallest = BACKBONES[backbone].config.min_size
    if min(input_size) < smallest:
        raise UsageError(
            f"input size {input_size[0]} x {input_size[1]}: expected at least {smallest} pixels a side for {backbone}; "
            "choose a larger input size or another network"
        )
    family, _, name = backbone.partition(":")
    if family != "torchvision":
        return backbone
    model = BACKBONES[backbone](2).eval()
    height, width = input_size
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
