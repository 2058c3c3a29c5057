"""`compare`: two checkpoints on the same images."""

from argparse import ArgumentParser, Namespace

from steel_core.cli.arguments import add_data, add_device, open_data
from steel_core.cli.output import OK, Answer, Bars, say_all


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="name or folder of a checkpoint")
    parser.add_argument("b", metavar="B", help="name or folder of another")
    add_data(parser)
    parser.add_argument("--part", default="held-out", help="as for evaluate (default: %(default)s)")
    add_device(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.evaluation.compare import compare_checkpoints
    from steel_core.inference.predictor import Predictor

    a, b = (Predictor.load(name, arguments.device) for name in (arguments.a, arguments.b))
    comparison = compare_checkpoints(a, b, open_data(arguments.data), arguments.part, Bars())
    say_all([f"left out: {sentence}" for sentence in comparison.left_out])
    wide = max(14, len(comparison.a) + 2, len(comparison.b) + 2)
    lines = [f"{'':24}{comparison.a:>{wide}}{comparison.b:>{wide}}  difference"]
    for row in comparison.estimates.to_dict("records"):
        difference = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        lines.append(f"{row['figure'].replace('_', ' '):24}{row['a']:{wide}.3f}{row['b']:{wide}.3f}  {difference}")
    test = comparison.mcnemar
    lines.append(
        f"only {comparison.a} right: {test.only_a}, only {comparison.b} right: {test.only_b}; "
        f"McNemar p = {test.p:.3g}, by group {test.p_groups:.3g}"
    )
    return OK, comparison.to_json(), "\n".join([*lines, comparison.verdict])
