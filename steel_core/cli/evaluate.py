"""`evaluate`: estimates of a checkpoint on labelled images."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import add_data, add_model, open_data
from steel_core.cli.output import BAD_INPUT, OK, Answer, Bars, estimates_table, say_all


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    parts = "held-out (all images the checkpoint has not learnt from), train, val, test or all (default: %(default)s)"
    parser.add_argument("--part", default="held-out", help=parts)
    parser.add_argument("--report", type=Path, help="HTML file for figures, plots and the worst images")
    shown = "images in the report even where the licence forbids to pass them on: for your own eyes"
    parser.add_argument("--with-images", action="store_true", help=shown)
    parser.add_argument("--plots", type=Path, metavar="DIR", help="folder for each plot as PNG")
    parser.add_argument("--csv", type=Path, help="file for the predictions, one row an image")
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.evaluation.evaluate import evaluate
    from steel_core.evaluation.store import compute_estimates
    from steel_core.files import write_bytes
    from steel_core.inference.predictor import Predictor

    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    index = open_data(arguments.data)
    evaluation = evaluate(predictor, index, arguments.part, Bars())
    say_all([f"left out: {sentence}" for sentence in evaluation.left_out])
    say_all([*evaluation.remarks, *(f"{predictor.card.name}: {sentence}" for sentence in predictor.card.warnings)])
    shown = (arguments.report or arguments.plots) and len(evaluation.labelled)
    estimates = compute_estimates(evaluation) if shown else None
    if arguments.csv:
        write_bytes(arguments.csv, evaluation.to_csv().encode())
    if arguments.report:
        from steel_core.reports.evaluation_report import render_evaluation_html

        page = render_evaluation_html(
            evaluation, predictor, index, with_images=arguments.with_images or None, estimates=estimates
        )
        write_bytes(arguments.report, page.encode())
    if arguments.plots:
        from steel_core.render.plot_png import pngs
        from steel_core.reports.evaluation_report import plot_evaluation

        for name, picture in pngs(plot_evaluation(evaluation, estimates)).items():
            write_bytes(arguments.plots / name, picture)
    written = {kind: str(path) for kind in ("csv", "report", "plots") if (path := getattr(arguments, kind))}
    content = evaluation.to_json() | {"written": written}
    where = "".join(f"\n{kind} in {path}" for kind, path in written.items())
    if "n" not in content:  # nothing could be counted; the outcomes are named all the same
        outcomes = ", ".join(f"{outcome} {n}" for outcome, n in content["outcomes"].items())
        return BAD_INPUT, content, f"{evaluation.remarks[0]}\n{outcomes}{where}"
    return BAD_INPUT if evaluation.unreadable else OK, content, estimates_table({evaluation.part: content}) + where
