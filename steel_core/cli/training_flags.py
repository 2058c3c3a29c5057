"""What `train`, `search` and `cross-validate` share: a preset, a file of settings, and a flag for each setting."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from steel_core.cli.arguments import BINARY, add_data, add_device, open_data
from steel_core.cli.settings_flags import add_settings, apply_flags
from steel_core.records import read_toml
from steel_core.training.presets import PRESETS
from steel_core.training.settings import TrainingSettings

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex


def add_training_arguments(parser: ArgumentParser) -> None:
    """The data set, the settings, and where it computes."""
    add_data(parser)
    parser.add_argument("--binary", action="store_true", help=BINARY)
    changed = "settings that the file and the flags below change (default: %(default)s)"
    parser.add_argument("--preset", default="sound", choices=list(PRESETS), help=changed)
    written = "settings, as in the run.toml that train writes; the flags below change them"
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help=written)
    add_settings(parser, TrainingSettings)
    layer = "of torchvision:NAME, for Grad-CAM; the last with a grid unless given"
    parser.add_argument("--cam-layer", help=layer)
    add_device(parser)


def read_settings(arguments: Namespace) -> TrainingSettings:
    """The preset's settings, changed by the file, changed by the flags.

    Raises:
        UsageError: a setting is unknown or impossible.
    """
    content = read_toml(arguments.config, TrainingSettings) if arguments.config else {}
    settings = apply_flags(PRESETS[arguments.preset].config, arguments, content)
    if arguments.cam_layer:
        settings = settings.replace(backbone=f"{settings.backbone}@{arguments.cam_layer}")
    return settings


def open_training_data(arguments: Namespace) -> DatasetIndex:
    """The data set, of two classes where that was asked for."""
    index = open_data(arguments.data)
    return index.binary() if arguments.binary else index
