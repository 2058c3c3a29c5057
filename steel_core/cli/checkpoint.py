"""`checkpoint`: import weights, and measure anew what stands in a card."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import add_action, add_data, open_data
from steel_core.cli.output import OK, Answer, Bars, format_estimate, say
from steel_core.errors import UsageError

_LEARNT = "the data set that it was trained on"


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    action = add_action(actions, "familiarity", _familiarity, "teach it which images are unfamiliar", model=True)
    add_data(action, _LEARNT)
    action.add_argument("--other", action="append", default=[], metavar="NAME=DIR", help="measure on these as well")
    action.add_argument("--who", required=True, help="the person who answers for it; goes into the card")

    action = add_action(actions, "scales", _scales, "measure anew which evidence gets the full colour", model=True)
    add_data(action, _LEARNT)

    action = add_action(actions, "import", _import, "make a checkpoint of a bare PyTorch state dictionary")
    files = ".pt, .pth (read without running code) or .safetensors"
    action.add_argument("weights", type=Path, metavar="WEIGHTS", help=files)
    action.add_argument("out", type=Path, metavar="OUT", help="folder of the checkpoint")
    action.add_argument("--classes", required=True, help="names in the order of the outputs, separated by commas")
    action.add_argument("--input-size", required=True, help="HEIGHTxWIDTH it was trained at")
    action.add_argument("--mean", type=float, required=True, help="mean grey of its training images, 0 to 1")
    action.add_argument("--std", type=float, required=True, help="standard deviation of their grey")
    action.add_argument("--backbone", default="squeezenet-reduced")
    action.add_argument("--head", default="softmax", choices=["softmax", "sigmoid"])


def run(arguments: Namespace) -> Answer:
    return arguments.action(arguments)


def _familiarity(arguments: Namespace) -> Answer:
    from steel_core.evaluation.ood import store_ood_gate
    from steel_core.models.checkpoint import list_checkpoints
    from steel_core.training.prepare import with_groups

    bars = Bars()
    others = {}
    for pair in arguments.other:
        name, separator, path = pair.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--other: expected NAME=DIR, got {pair!r}")
        others[name] = with_groups(open_data(Path(path)), say, bars)
    folder = list_checkpoints().get(arguments.checkpoint, Path(arguments.checkpoint))
    index = with_groups(open_data(arguments.data), say, bars)
    rates = store_ood_gate(folder, index, others, arguments.who, device=arguments.device, progress=bars)
    lines = [f"{name}: {format_estimate(rate['unfamiliar'], rate['interval'])} unfamiliar, n = {rate['n']}"
             for name, rate in rates.items()]  # fmt: skip
    return OK, {"checkpoint": folder.name, "rates": rates}, "\n".join(lines)


def _scales(arguments: Namespace) -> Answer:
    from steel_core.inference.predictor import Predictor
    from steel_core.models.checkpoint import update_card
    from steel_core.training.map_scales import map_scales, validation_images

    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    scales = map_scales(predictor, validation_images(predictor, open_data(arguments.data)), Bars())
    update_card(arguments.checkpoint, lambda _: {"map_scale": scales})
    return OK, {"map_scale": scales}, "\n".join(f"{method:24}{scale:.3g}" for method, scale in scales.items())


def _import(arguments: Namespace) -> Answer:
    from steel_core.models.card import Card
    from steel_core.models.pretrained import import_state_dict
    from steel_core.records import parse_size

    card = Card(
        name=arguments.out.name,
        title=arguments.out.name,
        backbone=arguments.backbone,
        head=arguments.head,
        classes=tuple(name.strip() for name in arguments.classes.split(",")),
        input_size=parse_size(arguments.input_size),
        mean=arguments.mean,
        std=arguments.std,
        notes=("Imported from a bare state dictionary: not calibrated, no thresholds, no figures of its own.",),
    )
    import_state_dict(arguments.weights, arguments.out, card)
    return OK, {"checkpoint": card.name}, str(arguments.out)
