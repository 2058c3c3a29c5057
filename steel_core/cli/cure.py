"""`cure`: fine-tune a shortcut away, and ask again; 3 where that failed, else the status of the audit afterwards."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from steel_core.audit.settings import AuditSettings, CureSettings, StainSettings
from steel_core.cli.arguments import add_data, add_model, add_title, open_data
from steel_core.cli.output import Answer, Bars, say
from steel_core.cli.settings_flags import add_settings, apply_flags


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the cured checkpoint")
    add_settings(parser, CureSettings, defaults=True)
    add_settings(parser.add_argument_group("the audits before and after"), AuditSettings, ("limit", "tolerated"), True)
    add_title(parser)
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.audit.cure import cure

    stain = apply_flags(StainSettings(), arguments)
    ledger = cure(
        arguments.checkpoint,
        open_data(arguments.data),
        arguments.out,
        apply_flags(CureSettings(), arguments),
        stain,
        limit=apply_flags(AuditSettings(), arguments).limit,
        title=arguments.title,
        notes=tuple(arguments.note),
        device=arguments.device,
        report=say,
        progress=Bars(),
    )
    before, after = _ledger_side(ledger.before.to_json()), _ledger_side(ledger.after.to_json())
    lines = [f"{'':26}{'before':26}after"]
    lines += [f"{words:26}{before[words]:26}{after[words]}" for words in before]
    inside, later = (outcome.evidence_inside_stain for outcome in (ledger.before, ledger.after))
    lines.append(
        f"Evidence in the stain: of that for {inside['class']} on {inside['n']} sheets before, and for "
        f"{later['class']} on {later['n']} after."
    )
    said = f"No cure: {ledger.failure}" if ledger.failure else "Cured"
    lines.append(f"{said}. The audit afterwards: {ledger.audit_after.verdict}; checkpoint in {arguments.out}")
    return ledger.status, ledger.to_json(), "\n".join(lines)


def _ledger_side(outcome: dict[str, Any]) -> dict[str, str]:
    return {
        "sheets that count": str(outcome["excess_n"]),
        "excess flip rate": _number(outcome["excess"], outcome["excess_interval"]),
        "flips by the stain": _number(outcome["flip_rate"]),
        **{f"by {name.replace('-', ' ')}": _number(rate) for name, rate in outcome["controls"].items()},
        "right oftener with marks": _number(outcome["gap"]),
        "balanced accuracy": _number(outcome["balanced_accuracy"]),
        "accuracy": _number(outcome["accuracy"], outcome["accuracy_interval"]),
        "calibration error": _number(outcome["ece"]),
        **{
            f"escapes of {name}": _number(share["share"], share["interval"])
            for name, share in outcome["escapes"].items()
        },
        "evidence in the stain": _number(outcome["evidence_inside_stain"]["stain"]),
    }


def _number(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
