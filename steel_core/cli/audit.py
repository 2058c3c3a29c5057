"""`audit`: a gate for a release pipeline.

0: every test that could be made excludes what is tolerated; 3: one found a shortcut; 4: not enough data, and which test
lacked what.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from steel_core.audit.settings import AUDITS, ONE_STAIN, AuditSettings, StainSettings
from steel_core.cli.arguments import add_data, add_model, open_data
from steel_core.cli.output import Answer, Bars
from steel_core.cli.settings_flags import add_settings, apply_flags
from steel_core.errors import UsageError

if TYPE_CHECKING:
    from steel_core.audit.report import AuditReport


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("kind", choices=(*AUDITS, "all"), help="what to ask; all asks everything")
    add_data(parser)
    add_settings(parser, AuditSettings, ("part", "limit", "tolerated", "seed"), defaults=True)
    white_stain = parser.add_argument_group("the white-stain test")
    add_settings(white_stain, StainSettings, ("towards", *ONE_STAIN), defaults=True)
    white_stain.add_argument("--stain-from", type=Path, metavar="IMAGE", help="paste a real stain of this image")
    white_stain.add_argument("--box", metavar="X,Y,W,H", help="where it is: left, top, width and height in pixels")
    white_stain.add_argument("--one-dose", action="store_true", help="only the one stain described by these flags")
    parser.add_argument("--out", type=Path, help="write the JSON to this file as well")
    parser.add_argument("--no-store", action="store_true", help="leave it out of the history of audits")
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.audit.report import STATUS
    from steel_core.audit.run import audit
    from steel_core.audit.statistics import FOR, combine_verdicts
    from steel_core.files import new_run_name, write_bytes
    from steel_core.inference.predictor import Predictor
    from steel_core.reports.audit_sentences import describe_lack
    from steel_core.store.audits import AuditStore

    kinds = AUDITS if arguments.kind == "all" else (arguments.kind,)
    settings = apply_flags(AuditSettings(kinds=kinds, stain=_read_stain(arguments)), arguments)
    name, began = new_run_name(), time.monotonic()
    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    reports = audit(predictor, open_data(arguments.data), settings, Bars())
    verdict = combine_verdicts([report.verdict for report in reports])
    paragraphs = [_describe(report, arguments.checkpoint, arguments.data) for report in reports]
    if not arguments.no_store:
        records = [report.to_json() for report in reports]
        try:
            AuditStore().add(name, arguments.data.resolve().name, round(time.monotonic() - began, 1), records)
            paragraphs.append(f"Kept in the history of audits as {name}.")
        except UsageError as error:  # the gate stands without it
            paragraphs.append(f"Not kept in the history of audits: {error}.")
    content = reports[0].to_json()
    if arguments.kind == "all":
        decisive = [report for report in reports if report.verdict == verdict]
        paragraphs.append(f"All together: {verdict} ({', '.join(report.audit for report in decisive)}).")
        if verdict != FOR:
            lacking = {report.audit: describe_lack(report.to_json()) for report in reports}
            paragraphs += [f"  {kind}: {words}." for kind, words in lacking.items() if words]
        content = {"audit": "all", "rests_on": decisive[0].audit, **decisive[0].summary()}
        content["audits"] = {report.audit: report.to_json() for report in reports}
    if arguments.out:
        write_bytes(arguments.out, (json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n").encode())
    return STATUS[verdict], content, "\n\n".join(paragraphs)


def _read_stain(arguments: Namespace) -> StainSettings:
    from steel_core.audit.stains import cut_stain
    from steel_core.data.images.read import read_image

    settings = apply_flags(StainSettings(), arguments)
    if (arguments.stain_from is None) != (arguments.box is None):
        raise UsageError("a stain of an image: expected both --stain-from IMAGE and --box X,Y,W,H")
    if arguments.one_dose or any(getattr(settings, name) != getattr(StainSettings(), name) for name in ONE_STAIN):
        settings = settings.replace(family=False)
    if arguments.stain_from is None:
        return settings
    try:
        left, top, width, height = (int(part) for part in arguments.box.split(","))
    except ValueError:
        raise UsageError(f"--box: expected four whole numbers X,Y,W,H, got {arguments.box!r}") from None
    return cut_stain(read_image(arguments.stain_from), (left, top, width, height), settings)


def _describe(report: AuditReport, checkpoint: str, data: Path) -> str:
    from steel_core.audit.discover import format_retest_command
    from steel_core.reports.audit_sentences import (
        EXCESS,
        describe_evidence,
        describe_outcomes,
        describe_power,
        explain_verdict,
    )

    content = report.to_json()
    lines = [report.question, f"  {report.verdict} ({report.images} images of {report.data})"]
    lines.append(f"  {explain_verdict(content)}")
    for finding in report.findings[:6]:
        lines.append(f"  {finding.name}: {finding.verdict}. {finding.sentence}")
        if outcomes := describe_outcomes(finding.to_json()):
            lines.append(f"    {outcomes}")
        if cluster := finding.to_json().get("cluster"):
            first = cluster["exemplars"][0]
            lines.append(f"    The typical one: {first['path']}, box {','.join(map(str, first['box']))}. By itself:")
            lines.append(f"    {format_retest_command(cluster, checkpoint, data)}")
    if report.findings:
        lines += [f"  {describe_power(content)}", f"  {EXCESS}"]
    if evidence := describe_evidence(content):
        lines.append(f"  {evidence}")
    return "\n".join([*lines, *(f"  {limit}" for limit in report.limits)])
