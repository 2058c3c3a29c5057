"""`leaderboard`: all checkpoints and baselines on the same images."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import BINARY, add_data, add_device, open_data
from steel_core.cli.output import BAD_INPUT, OK, Answer, Bars, say


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    rivals = parser.add_mutually_exclusive_group()
    named = "names or folders; all that are found unless given"
    rivals.add_argument("--models", nargs="+", metavar="MODEL", help=named)
    work = "instead of models: all that cross-validate left there, on all images"
    rivals.add_argument("--work", type=Path, metavar="DIR", help=work)
    split = "of models: test, or held-out: all images that none of them has learnt from (default: %(default)s)"
    parser.add_argument("--split", default="test", help=split)
    parser.add_argument("--folds", type=int, default=5, help="with --work (default: %(default)s)")
    parser.add_argument("--baselines", action="store_true", help="learn the baselines on the train split, and compare")
    parser.add_argument("--binary", action="store_true", help=BINARY)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", action="store_true", help="print the table as CSV")
    kind.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    add_device(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.leaderboard.checkpoints import build_fold_leaderboard, build_leaderboard
    from steel_core.models.checkpoint import list_checkpoints

    index = open_data(arguments.data)
    index = index.binary() if arguments.binary else index
    common = {"baselines": arguments.baselines, "device": arguments.device, "report": say, "progress": Bars()}
    if arguments.work:
        board = build_fold_leaderboard(index, arguments.work, arguments.folds, **common)
    else:
        board = build_leaderboard(index, arguments.models or None, arguments.split, **common)
    written = board.markdown() if arguments.markdown else board.to_csv().rstrip() if arguments.csv else board.text()
    missing = [name for name in arguments.models or () if name not in list_checkpoints() and not Path(name).is_dir()]
    return BAD_INPUT if missing else OK, board.to_json(), written
