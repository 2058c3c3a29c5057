"""`data`: describe, check, make, index or export a data set."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.arguments import add_action, open_data
from steel_core.cli.output import FOUND, OK, Answer, Bars, say_all
from steel_core.errors import UsageError


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    action = add_action(actions, "describe", _describe, "what a data set holds", folder=True)

    kinds = actions.add_parser("make", help="draw a data set").add_subparsers(required=True, metavar="KIND")
    action = add_action(kinds, "strip-mill", _make, "sheets of steel drawn by the program, with masks and no licence")
    action.add_argument("out", type=Path, metavar="OUT")
    action.add_argument("--n", type=int, default=700, help="number of sheets (default: %(default)s)")
    action.add_argument("--size", default="200x200", help="HEIGHTxWIDTH (default: %(default)s)")
    action.add_argument("--seed", type=int, default=0)
    dark = "0.1 is a dark, dull surface (default: %(default)s)"
    action.add_argument("--contrast", type=float, default=1.0, help=dark)
    action.add_argument("--clear-share", type=float, default=1 / 7, help="share of clear sheets")
    for kind in ("clear", "defect"):
        stained = f"share of {'defective' if kind == 'defect' else kind} sheets with a white stain"
        action.add_argument(f"--stained-{kind}", type=float, default=0.0, help=stained)

    checked = "near-duplicates, leaks, odd labels and pictures; exit status 3 if any"
    action = add_action(actions, "check", _check, checked, folder=True)
    action.add_argument("--checkpoint", help="measures what a leak does to the accuracy on the test split")
    action.add_argument("--export", type=Path, metavar="CSV", help="file for the findings")
    action.add_argument("--cleaned", type=Path, metavar="MANIFEST", help="the data set without them; the source stays")

    listed = "list a very large folder once, into a Parquet manifest that opens at once"
    action = add_action(actions, "index", _index, listed, folder=True)
    action.add_argument("out", type=Path, metavar="OUT.parquet")

    action = add_action(actions, "export", _export, "write a manifest (CSV or Parquet) of a data set", folder=True)
    action.add_argument("manifest", type=Path, metavar="MANIFEST")


def run(arguments: Namespace) -> Answer:
    return arguments.action(arguments)


def _describe(arguments: Namespace) -> Answer:
    from steel_core.data.open import describe_dataset

    index = open_data(arguments.dir)
    wrong_boxes = index.check_boxes(Bars())
    say_all(wrong_boxes)
    content = describe_dataset(index)
    content["problems"] += wrong_boxes
    lines = [f"{content['title']}: {content['n']} images", f"licence: {content['licence']}"]
    for heading in ("labels", "splits"):
        lines += [heading, *(f"  {name or '(none)'}: {count}" for name, count in content[heading].items())]
    lines.append(f"with boxes: {content['with_boxes']}, with masks: {content['with_masks']}")
    return OK, content, "\n".join(lines)


def _make(arguments: Namespace) -> Answer:
    from steel_core.data.strip_mill import StripMill, write_sheets
    from steel_core.records import parse_size

    mill = StripMill(
        size=parse_size(arguments.size),
        seed=arguments.seed,
        contrast=arguments.contrast,
        clear_share=arguments.clear_share,
        stained_clear=arguments.stained_clear,
        stained_defect=arguments.stained_defect,
    )
    write_sheets(mill, arguments.n, arguments.out, Bars())
    return OK, {"n": arguments.n, "out": str(arguments.out)}, f"{arguments.n} sheets in {arguments.out}"


def _check(arguments: Namespace) -> Answer:
    from steel_core.data.quality.findings import KINDS, findings_to_csv, without_findings
    from steel_core.data.readers.manifest import write_manifest
    from steel_core.evaluation.data_check import check_dataset
    from steel_core.files import write_bytes
    from steel_core.inference.predictor import Predictor

    for path in filter(None, (arguments.export, arguments.cleaned)):
        if path.exists():
            raise UsageError(f"{path.name} is there already; name a new file")
    index = open_data(arguments.dir)
    predictor = Predictor.load(arguments.checkpoint) if arguments.checkpoint else None
    findings = check_dataset(index, predictor, progress=Bars())
    if arguments.export:
        write_bytes(arguments.export, findings_to_csv(findings))
    if arguments.cleaned:
        write_manifest(without_findings(index, findings), arguments.cleaned)
    content = {
        "n": len(index),
        "findings": [finding.to_json() for finding in findings],
        "kinds": KINDS,
        "problems": list(index.problems),
    }
    lines = []
    for finding in findings:
        more = ", ..." if len(finding.files) > 5 else ""
        lines.append(f"{finding.kind}: {finding.sentence} ({', '.join(finding.files[:5])}{more})")
    return FOUND if findings else OK, content, "\n".join(lines) or "nothing found"


def _index(arguments: Namespace) -> Answer:
    from steel_core.data.large import index_folder

    index = index_folder(arguments.dir, arguments.out, Bars())
    return OK, {"n": len(index), "manifest": str(arguments.out)}, f"{len(index)} rows in {arguments.out}"


def _export(arguments: Namespace) -> Answer:
    from steel_core.data.readers.manifest import write_manifest

    if arguments.manifest.exists():
        raise UsageError(f"{arguments.manifest.name} is there already; name a new file")
    index = open_data(arguments.dir)
    write_manifest(index, arguments.manifest)
    return OK, {"n": len(index), "manifest": str(arguments.manifest)}, f"{len(index)} rows in {arguments.manifest}"
