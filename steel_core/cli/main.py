"""The command line: look, explain, measure, train, compare, audit; `--help` lists the commands.

Standard output carries results only (with `--json` one JSON object); progress and warnings go to standard error. Exit
status 0: all went well; 1: some inputs were bad, the others are answered; 2: the call was wrong; 3: a check found
something; 4: an audit had not enough data; 130: interrupted, or stopped on request.

Each command is a module with its `add_arguments(parser)` and `run(arguments)`. Only the one that is called is imported,
and it imports what is slow to load (torch, readers, pydantic) when it runs.
"""

import contextlib
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import steel_core
from steel_core.cli.output import INTERRUPTED, WRONG_CALL
from steel_core.errors import SteelError

PROGRAM = "steel-lens"
COMMANDS = {
    "predict": "verdict and probabilities for images",
    "explain": "verdict and maps of the evidence for images",
    "quality": "how good the explanations of a checkpoint are, with intervals",
    "train": "train a checkpoint; an interrupted run goes on when called again",
    "search": "try settings by short trainings, within some minutes; a later call goes on",
    "cross-validate": "k-fold cross-validation by group of near-duplicates",
    "evaluate": "figures of a checkpoint on labelled images, with intervals",
    "thresholds": "where to draw the line, from what errors cost",
    "compare": "two checkpoints on the same images: differences with intervals",
    "leaderboard": "all checkpoints and baselines on the same images",
    "audit": "is the model looking at the steel? exit status 3: no, 4: unknown",
    "cure": "fine-tune a shortcut away, and test again",
    "data": "describe, make or export a data set",
    "checkpoint": "import weights",
    "app": "open the dashboard in the browser",
}
"""Name and meaning of each: a module of this folder."""

RESUMABLE = ("train", "cross-validate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words and words[0] in COMMANDS else ""
    if not name:
        list_commands().parse_args(words)  # ends with the help, the version, or what is wrong with the call
    command: Any = import_module(f"steel_core.cli.{name.replace('-', '_')}")
    parser = ArgumentParser(prog=f"{PROGRAM} {name}", description=COMMANDS[name])
    command.add_arguments(parser)
    arguments = parser.parse_args(words[1:])
    as_json = getattr(arguments, "json", False)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a library that prints shall not spoil the result
            status, content, text = command.run(arguments)
    except SteelError as error:
        return _refuse(str(error), as_json)
    except OSError as error:  # a folder that is a file, a full disk: the base name tells enough
        return _refuse(f"{Path(error.filename or '').name}: {error.strerror or error}", as_json)
    except KeyboardInterrupt:
        goes_on = "; the same call goes on where it stopped" if name in RESUMABLE else ""
        print(f"{PROGRAM}: interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED
    if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun started, the first one answers
        return status
    try:
        print(json.dumps(content, ensure_ascii=False, default=str) if as_json else text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def list_commands() -> ArgumentParser:
    """A parser that knows the names of the commands, and none of their arguments."""
    parser = ArgumentParser(prog=PROGRAM, description="Explainable review of steel-surface defects.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {steel_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, meaning in COMMANDS.items():
        commands.add_parser(name, help=meaning)
    return parser


def _refuse(sentence: str, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": sentence}, ensure_ascii=False))
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return WRONG_CALL
