"""`search`: settings of training tried by short trainings."""

import json
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import split_names
from steel_core.cli.output import INTERRUPTED, OK, Answer, Bars, say
from steel_core.cli.settings_flags import add_training_arguments, open_training_data, read_settings


def add_arguments(parser: ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument("--minutes", type=float, required=True, help="when to end")
    where = "folder for the trials (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("runs/search"), help=where)
    parser.add_argument("--backbones", default="", help="names to choose from, separated by commas")


def run(arguments: Namespace) -> Answer:
    from steel_core.training.search import BACKBONES_TRIED, BEST, search

    result = search(
        open_training_data(arguments),
        arguments.out,
        arguments.minutes,
        read_settings(arguments),
        split_names(arguments.backbones) or BACKBONES_TRIED,
        device=arguments.device,
        report=say,
        progress=Bars(),
    )
    data, settings = shlex.quote(str(arguments.data)), shlex.quote(str(arguments.out / BEST))
    binary = " --binary" if arguments.binary else ""
    command = f"python -m steel_core train --data {data}{binary} --out runs/best --config {settings}"
    content = {"train": command, "trials": json.loads(result.trials.to_json(orient="records"))}
    return INTERRUPTED if result.interrupted else OK, content, command
