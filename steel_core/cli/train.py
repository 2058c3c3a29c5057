"""`train`: from labelled images to a checkpoint."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from steel_core.cli.arguments import add_title
from steel_core.cli.output import INTERRUPTED, OK, Answer, Bars, estimates_table, say
from steel_core.cli.settings_flags import add_training_arguments, open_training_data, read_settings


def add_arguments(parser: ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    followed = "folder where others can follow the run; a file named stop in it ends the run after the epoch"
    parser.add_argument("--log", type=Path, metavar="DIR", help=followed)
    add_title(parser)
    drawn = "SHAP compares with drawn sheets, not training images: for a checkpoint passed on without its images"
    parser.add_argument("--drawn-background", action="store_true", help=drawn)


def run(arguments: Namespace) -> Answer:
    from steel_core.jobs.run_log import RunLog, RunStopped
    from steel_core.training.distributed import join_process_group
    from steel_core.training.train import train

    log = RunLog(arguments.log)
    try:
        with join_process_group(arguments.device) as device, log.running():
            card = train(
                open_training_data(arguments),
                arguments.out,
                read_settings(arguments),
                title=arguments.title,
                notes=tuple(arguments.note),
                drawn_background=arguments.drawn_background,
                device=device,
                report=say,
                progress=Bars(),
                log=log,
            )
    except RunStopped as stopped:
        return INTERRUPTED, {"stopped": str(stopped)}, str(stopped)
    reports: dict[str, dict[str, Any]] = {part: card.metrics[part] for part in ("val", "test") if part in card.metrics}
    content = {"checkpoint": card.name, "notes": card.notes, "metrics": reports}
    return OK, content, f"{arguments.out}\n{estimates_table(reports)}"
