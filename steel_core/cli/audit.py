"""The commands `audit` and `cure`: gates that a release pipeline can stop on.

Exit status 0: the audit speaks against a shortcut; 3: it found one; 4: there is not enough data; 2: the call was wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steel_core.errors import UsageError

if TYPE_CHECKING:
    from steel_core.audit.report import AuditReport
    from steel_core.audit.white_stain import StainSettings
    from steel_core.data.index import DatasetIndex

# torch and the readers are imported inside the commands, so that --help and a mistyped call answer at once.

KINDS = ("white-stain", "edges", "properties", "discover", "all")

Answer = tuple[int, dict[str, Any], str]
"""Exit status, the object for --json, the text for people."""
Open = Callable[[Path], "DatasetIndex"]
Say = Callable[[str], None]
Bars = Callable[[str, int, int], None]


def add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    """What `audit KIND` takes; the caller adds --checkpoint, --data, --device and --json."""
    parser.add_argument("kind", choices=KINDS, help="what to ask; all asks everything")
    parser.add_argument("--part", default="held-out", help="images: held-out (default), train, val, test or all")
    parser.add_argument("--limit", type=int, default=300, help="number of images at the most (default 300)")
    parser.add_argument("--max-excess-flip", type=float, default=0.05, help="excess that is put up with (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--towards", default="", help="white-stain: class whose gain is tested")
    parser.add_argument(
        "--stain-from", type=Path, metavar="IMAGE", help="white-stain: paste a real stain of this image"
    )
    parser.add_argument("--box", metavar="X,Y,W,H", help="where it is: left, top, width and height in pixels")
    parser.add_argument("--shape", default="blot", help="white-stain: blot (default), streak, ring or spatter")
    parser.add_argument("--texture", default="film", help="film (default: steel shows through), grain or flat")
    parser.add_argument("--number", type=int, default=1, help="of stains on an image, which share the area")
    parser.add_argument("--one-dose", action="store_true", help="white-stain: only the dose that the verdict rests on")
    parser.add_argument("--out", type=Path, help="write the JSON to this file as well")
    parser.add_argument("--no-store", action="store_true", help="leave it out of the history of audits")


def add_cure_arguments(parser: argparse.ArgumentParser) -> None:
    """What `cure` takes; the caller adds --checkpoint, --data, --device and --json."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the cured checkpoint")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--penalty", type=float, default=0.0, help="weight of the loss on evidence in the artefact")
    parser.add_argument("--limit", type=int, default=300, help="images of the audits before and after")
    parser.add_argument("--title", default="", help="for people")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the card; may be given again")
    parser.add_argument("--max-excess-flip", type=float, default=0.05, help="excess that is put up with (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)


def run_audit(args: argparse.Namespace, open_data: Open, bars: Bars) -> Answer:
    """Ask one question, or all, keep the run in the history, and answer with the exit status of a gate."""
    import json
    import time

    from steel_core.audit.report import STATUS
    from steel_core.audit.run import AUDITS, audit
    from steel_core.audit.statistics import joint
    from steel_core.files import new_name, write_bytes
    from steel_core.inference.predictor import Predictor
    from steel_core.store.audits import AuditStore

    _check_share(args.max_excess_flip)
    name, began = new_name(), time.monotonic()
    kinds = AUDITS if args.kind == "all" else (args.kind,)
    reports = audit(
        Predictor.load(args.checkpoint, args.device),
        open_data(args.data),
        kinds,
        part=args.part,
        limit=args.limit,
        tolerated=args.max_excess_flip,
        seed=args.seed,
        stain=_stain_settings(args),
        progress=bars,
    )
    verdict = joint([report.verdict for report in reports])
    told = [_told(report, args.checkpoint, args.data) for report in reports]
    if not args.no_store:
        said = [report.to_json() for report in reports]
        try:
            AuditStore().add(name, args.data.resolve().name, round(time.monotonic() - began, 1), said)
            told.append(f"Kept in the history of audits as {name}.")
        except UsageError as error:  # the gate stands without it
            told.append(f"Not kept in the history of audits: {error}.")
    content = reports[0].to_json()
    if args.kind == "all":
        decisive = [report for report in reports if report.verdict == verdict]
        told.append(f"All together: {verdict} ({', '.join(report.kind for report in decisive)}).")
        content = {"audit": "all", "rests_on": decisive[0].kind, **decisive[0].figures()}
        content["audits"] = {report.kind: report.to_json() for report in reports}
    if args.out:
        write_bytes(args.out, (json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n").encode())
    return STATUS[verdict], content, "\n\n".join(told)


def run_cure(args: argparse.Namespace, open_data: Open, bars: Bars, say: Say) -> Answer:
    """Cure a checkpoint and show the ledger; the exit status is that of the audit afterwards."""
    from steel_core.audit.cure import CureConfig, cure
    from steel_core.audit.white_stain import StainSettings

    _check_share(args.max_excess_flip)
    settings = _one_dose(StainSettings(tolerated=args.max_excess_flip, seed=args.seed))
    ledger = cure(
        args.checkpoint,
        open_data(args.data),
        args.out,
        CureConfig(epochs=args.epochs, rate=args.rate, penalty=args.penalty, seed=args.seed),
        settings,
        limit=args.limit,
        title=args.title,
        notes=tuple(args.note),
        device=args.device,
        report=say,
        progress=bars,
    )
    before, after = _ledger_side(ledger.before), _ledger_side(ledger.after)
    lines = [f"{'':26}{'before':26}after"]
    lines += [f"{words:26}{before[words]:26}{after[words]}" for words in before]
    inside, later = (figures["evidence_inside_stain"] for figures in (ledger.before, ledger.after))
    lines.append(
        f"Evidence in the stain: of that for {inside['class']} on {inside['n']} sheets before, and for "
        f"{later['class']} on {later['n']} after; the stain takes {settings.area:g} of each."
    )
    lines.append(f"after: {ledger.audits[1].verdict}; checkpoint in {args.out}")
    return ledger.audits[1].status, ledger.to_json(), "\n".join(lines)


def _ledger_side(figures: dict[str, Any]) -> dict[str, str]:
    """The figures of one side of a cure's ledger, by what they are called."""
    return {
        "sheets that count": str(figures["excess_n"]),
        "excess flip rate": _number(figures["excess"], figures["excess_interval"]),
        "flip rate": _number(figures["flip_rate"]),
        "of the strongest control": _number(figures["control_flip_rate"]),
        "accuracy": _number(figures["accuracy"], figures["accuracy_interval"]),
        "calibration error": _number(figures["ece"]),
        **{f"escapes of {name}": _number(one["share"], one["interval"]) for name, one in figures["escapes"].items()},
        "evidence in the stain": _number(figures["evidence_inside_stain"]["stain"]),
    }


def _stain_settings(args: argparse.Namespace) -> StainSettings:
    """What the white-stain test is asked."""
    from steel_core.audit.white_stain import StainSettings
    from steel_core.data.images.read import read_image

    usual = StainSettings(
        shape=args.shape,
        texture=args.texture,
        number=args.number,
        tolerated=args.max_excess_flip,
        seed=args.seed,
        towards=args.towards,
    )
    if (args.stain_from is None) != (args.box is None):
        raise UsageError("a stain of an image: expected both --stain-from IMAGE and --box X,Y,W,H")
    if args.one_dose:
        usual = _one_dose(usual)
    if args.stain_from is None:
        return usual
    try:
        left, top, width, height = (int(part) for part in args.box.split(","))
    except ValueError:
        raise UsageError(f"--box: expected four whole numbers X,Y,W,H, got {args.box!r}") from None
    return usual.cut_out_of(read_image(args.stain_from), (left, top, width, height))


def _one_dose(settings: StainSettings) -> StainSettings:
    """The same test, of the dose that the verdict rests on alone."""
    return replace(settings, areas=(settings.area,), brightnesses=(settings.brightness,))


def _check_share(value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"--max-excess-flip: expected 0 to 1, got {value:g}")


def _told(report: AuditReport, checkpoint: str, data: Path) -> str:
    from steel_core.audit.discover import retest
    from steel_core.reports.audit_report import EXCESS, evidence_in_words, in_plain_words, missed

    content = report.to_json()
    lines = [f"{report.question}", f"  {report.verdict} ({report.images} images of {report.data})"]
    lines.append(f"  {in_plain_words(content)}")
    for finding in report.findings[:6]:
        lines.append(f"  {finding.name}: {finding.verdict}. {finding.sentence}")
        if cluster := finding.detail.get("cluster"):
            first = cluster["exemplars"][0]
            lines.append(f"    The typical one: {first['path']}, box {','.join(map(str, first['box']))}. By itself:")
            lines.append(f"    {retest(cluster, checkpoint, data)}")
    if report.findings:
        lines += [f"  {missed(content)}", f"  {EXCESS}"]
    if evidence := evidence_in_words(content):
        lines.append(f"  {evidence}")
    return "\n".join([*lines, *(f"  {limit}" for limit in report.limits)])


def _number(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
