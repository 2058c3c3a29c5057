"""`quality`: how good the explanations of a checkpoint are."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import add_data, add_model, open_data, split_names
from steel_core.cli.output import OK, Answer, Bars, say, say_all


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser, "folder or manifest, best with masks or boxes")
    parser.add_argument("--methods", default="", help="names, separated by commas; all unless given, and the controls")
    parser.add_argument("--images", type=int, default=100, help="how many count (default: %(default)s)")
    learnt = "data set that the checkpoint was trained on: near-duplicates of its training images are left out"
    parser.add_argument("--learnt", type=Path, metavar="DATA", help=learnt)
    parser.add_argument("--include-learnt", action="store_true", help="count images that served to train, too")
    parser.add_argument("--rows", type=Path, metavar="CSV", help="file for the value of each image")
    parser.add_argument("--store", action="store_true", help="write the result into the checkpoint's card")
    parser.add_argument("--seed", type=int, default=0)
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.evaluation.map_quality import add_controls, measure_quality
    from steel_core.evaluation.quality_report import store_quality, summarise_rows
    from steel_core.inference.predictor import Predictor

    methods = add_controls(split_names(arguments.methods) or None)  # a mistyped name is refused before anything is read
    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    quality = measure_quality(
        predictor,
        open_data(arguments.data),
        methods,
        images=arguments.images,
        seed=arguments.seed,
        learnt=open_data(arguments.learnt) if arguments.learnt else None,
        include_learnt=arguments.include_learnt,
        progress=Bars(),
        report=say,
    )
    say_all([f"left out: {sentence}" for sentence in quality.left_out])
    if arguments.rows:
        from steel_core.files import write_bytes

        write_bytes(arguments.rows, quality.rows.to_csv(index=False).encode())
    if arguments.store:
        store_quality(arguments.checkpoint, quality)
    content = quality.card_table().to_json() | {
        "checkpoint": predictor.card.name,
        "checkpoint_hash": predictor.hash,
        "regions": {method: rule.to_json() for method, rule in quality.rules.items()},
        "classes": summarise_rows(quality.rows, by_class=True).replace({float("nan"): None}).to_dict("records"),
        "left_out": quality.left_out,
    }
    return OK, content, quality.table()
