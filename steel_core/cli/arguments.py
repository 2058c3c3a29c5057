"""Flags that several commands share, and how their values are read."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steel_core.cli.output import Answer, Bars, say_all

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex

DEFAULT_CHECKPOINT = "neu-six-class"
BINARY = "two classes: clear, and defect for all the others"


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def add_device(parser: ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")


def add_model(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="name or folder (default: %(default)s)")
    add_device(parser)


def add_images(parser: ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")


def add_data(parser: ArgumentParser, meaning: str = "folder or manifest with labelled images") -> None:
    parser.add_argument("--data", type=Path, required=True, help=meaning)


def add_title(parser: ArgumentParser) -> None:
    parser.add_argument("--title", default="", help="for people")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the card; may be given again")


def add_action(
    actions: Any, name: str, act: Callable[..., Answer], meaning: str, model: bool = False, folder: bool = False
) -> ArgumentParser:
    """An action of a command that has several; it takes a checkpoint with `model`, a data set with `folder`."""
    parser = actions.add_parser(name, help=meaning, description=meaning)
    parser.set_defaults(action=act)
    (add_model if model else add_json)(parser)
    if folder:
        parser.add_argument("dir", type=Path, metavar="DIR")
    return parser


def split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def open_data(path: Path) -> DatasetIndex:
    """A data set, with what is wrong with it on standard error."""
    from steel_core.data.open import open_dataset

    index = open_dataset(path, Bars())
    say_all(index.problems)
    return index
