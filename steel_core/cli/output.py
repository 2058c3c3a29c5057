"""What commands print: bars and lines on standard error, tables of estimates, exit statuses."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

OK, BAD_INPUT, WRONG_CALL, FOUND, INTERRUPTED = 0, 1, 2, 3, 130

Answer = tuple[int, dict[str, Any], str]
"""Exit status, the object for --json, the text for people."""


def say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def say_all(lines: Sequence[str], most: int = 20) -> None:
    for line in lines[:most]:
        say(line)
    if len(lines) > most:
        say(f"... and {len(lines) - most} more")


class Bars:
    """Progress bars on standard error, one for each kind of work, made when it first reports."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._bars:
            self._bars[what] = tqdm(total=of, desc=what, file=sys.stderr, leave=False, disable=None)
        bar = self._bars[what]
        bar.update(done - bar.n)
        if done >= of:
            self._bars.pop(what).close()


def estimates_table(reports: dict[str, dict[str, Any]]) -> str:
    """Estimates with their intervals, a column for each set of images."""
    lines = [format_row("", (f"{part} (n = {report['n']})" for part, report in reports.items()))]
    first = next(iter(reports.values()))
    several = first.get("multi_label", False)
    for key in first["intervals"] if several else ("accuracy", "macro_recall", "macro_f1", "auc", "ece"):
        cells = (format_estimate(report[key], report["intervals"][key]) for report in reports.values())
        lines.append(format_row(key.replace("_", " "), cells))
    for name in first["classes"]:
        cells = (_class_estimate(report, name) for report in reports.values())
        lines.append(format_row(("AP " if several else "recall ") + name, cells))
    if several:
        lines.append(
            "AP: average precision; escape: of the defective sheets, called clear; "
            "false call: of the clear sheets, called defective"
        )
        counts = {part: report["counted"] for part, report in reports.items()}
        lines += [f"{part}: {n['escape']} defective sheets, {n['false_call']} clear ones" for part, n in counts.items()]
    return "\n".join(lines)


def _class_estimate(report: dict[str, Any], name: str) -> str:
    if report.get("multi_label"):
        precision = report["per_class"][name]["average_precision"]
        return format_estimate(precision["value"], (precision["low"], precision["high"]))
    return format_estimate(report["recall"][name], report["intervals"]["recall"][name])


def format_row(name: str, cells: Iterable[str], n: str = "") -> str:
    return f"{name:24}{n}" + "".join(f"{cell:>28}" for cell in cells)


def format_estimate(value: float | None, interval: tuple[float, float] | None, digits: int = 3) -> str:
    if value is None or interval is None:
        return "no such images"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
