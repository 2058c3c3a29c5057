"""`thresholds`: where to draw the line, from what errors cost."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steel_core.cli.arguments import add_data, add_device, open_data
from steel_core.cli.output import OK, Answer, Bars, format_estimate, format_row, say_all
from steel_core.errors import UsageError

_COLUMNS = {
    ("escape", "escape", 3): "escapes",
    ("false_call", "false_call", 3): "false calls",
    ("referred", "referred", 3): "to a person",
    ("cost_per_1000", "cost", 1): "cost of 1,000 sheets",
}  # column, whose interval, digits: heading


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="name or folder")
    add_data(parser, "folder or manifest: validation images to choose on, test images to show it on")
    for option, meaning in (
        ("--escape-cost", "a defective sheet that is let pass"),
        ("--false-call-cost", "a sheet that is called what it is not"),
    ):
        cost = f"cost of {meaning}, for every class or for one; may be given again (default: 1)"
        parser.add_argument(option, action="append", default=[], metavar="[CLASS=]COST", help=cost)
    person = "a person looks at a sheet (default: %(default)s)"
    parser.add_argument("--refer-cost", type=float, default=0.1, help=person)
    share = "share of a class in production, as a weight; may be given again (default: as in the images)"
    parser.add_argument("--share", action="append", default=[], metavar="CLASS=WEIGHT", help=share)
    parser.add_argument("--save", action="store_true", help="write the proposal into the checkpoint's card")
    parser.add_argument("--who", default="", help="the person who answers for it")
    parser.add_argument("--reason", default="", help="in that person's words")
    add_device(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.evaluation.store import load_or_evaluate
    from steel_core.evaluation.thresholds import propose_thresholds, save_thresholds
    from steel_core.inference.predictor import Predictor
    from steel_core.metrics.decisions import Costs
    from steel_core.models.checkpoint import list_checkpoints

    if arguments.save and not (arguments.who.strip() and arguments.reason.strip()):
        raise UsageError("--save: expected --who and --reason, which go into the checkpoint's card")
    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    index = open_data(arguments.data)
    whole = load_or_evaluate(predictor, index, progress=Bars())
    say_all(whole.left_out)
    costs = Costs(
        escape=_by_class("--escape-cost", arguments.escape_cost, whole.verdicts),
        false_call=_by_class("--false-call-cost", arguments.false_call_cost, whole.verdicts),
        refer=arguments.refer_cost,
    )
    mix = _by_class("--share", arguments.share, whole.verdicts) or None
    proposal = propose_thresholds(whole, costs, mix)
    in_force = {name: predictor.card.threshold(name) for name in proposal.thresholds}
    content: dict[str, Any] = {
        "checkpoint": predictor.card.name,
        "chosen_on": proposal.chosen_on,
        "thresholds": proposal.thresholds,
        "in_force": in_force,
        "costs": costs.name_all(whole.verdicts).to_json(),
        "shares": mix,
        "verdict": proposal.verdict,
    }
    shares = ", ".join(f"{name} {share:g}" for name, share in mix.items()) if mix else "as in the images"
    shown_on = proposal.after["n"].iloc[-1]
    lines = [
        f"costs of a sheet: {costs.describe(whole.verdicts)}; shares: {shares}",
        f"chosen on {proposal.chosen_on} validation images, shown on {shown_on} test images; 95 %",
        f"{'threshold of':24}{'in force':>10}{'proposed':>10}",
    ]
    lines += [f"{name:24}{in_force[name]:10.4f}{line:10.4f}" for name, line in proposal.thresholds.items()]
    for words, table in (("in force", proposal.before), ("proposed", proposal.after)):
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        content["test " + words] = rows
        lines += ["", format_row(words, _COLUMNS.values(), f"{'n':>6}")]
        for row in rows:
            cells = (format_estimate(row[key], (row[f"{ends}_low"], row[f"{ends}_high"]), digits)
                     for key, ends, digits in _COLUMNS)  # fmt: skip
            lines.append(format_row(row["label"], cells, f"{row['n']:6}"))
    if arguments.save:
        folder = list_checkpoints().get(arguments.checkpoint, Path(arguments.checkpoint))
        save_thresholds(folder, proposal.thresholds, arguments.who, arguments.reason)
        lines += ["", f"saved in the card of {predictor.card.name} by {arguments.who}"]
    lines += ["", proposal.verdict]
    return OK, content | {"saved": arguments.save}, "\n".join(lines)


def _by_class(option: str, texts: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """Numbers as in "5", for every class, or "rust=5", for one; the last one counts."""
    numbers: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name and name not in classes:
            raise UsageError(f"{option}: unknown class {name!r}; expected one of {', '.join(classes)}")
        try:
            numbers |= dict.fromkeys([name] if name else classes, float(number))
        except ValueError:
            raise UsageError(f"{option}: expected a number or CLASS=NUMBER, got {text!r}") from None
    return numbers
