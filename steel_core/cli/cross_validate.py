"""`cross-validate`: every image counted once, by a model that has not seen its near-duplicates."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.output import OK, Answer, Bars, estimates_table, say
from steel_core.cli.settings_flags import add_training_arguments, open_training_data, read_settings


def add_arguments(parser: ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument("--work", type=Path, required=True, help="folder for the rounds' checkpoints")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--store", metavar="CHECKPOINT", help="write the figures into this checkpoint's card")
    parser.add_argument("--caveat", help="a sentence to stand beside the figures")


def run(arguments: Namespace) -> Answer:
    from steel_core.models.checkpoint import update_card
    from steel_core.training.cross_validate import cross_validate

    result = cross_validate(
        open_training_data(arguments),
        arguments.work,
        read_settings(arguments),
        arguments.folds,
        device=arguments.device,
        report=say,
        progress=Bars(),
    )
    report = result.to_json() | ({"caveat": arguments.caveat} if arguments.caveat else {})
    if arguments.store:
        update_card(arguments.store, lambda card: {"metrics": card.metrics | {"cross_validation": report}})
    return OK, report, estimates_table({f"{arguments.folds}-fold": report})
