"""`python -m steel_core.explain.quality [CHECKPOINT]`: its card's quality of maps, as tables for `docs/quality.md`."""

import sys

from steel_core.explain.base import EXPLAINERS
from steel_core.explain.quality.base import METRICS
from steel_core.models.card import QualityEstimate, QualityTable
from steel_core.models.checkpoint import load_checkpoint

_SHOWN = ("dice", "iou", "pointing-game", "road", "randomised-model")


def quality_table(table: QualityTable) -> str:
    """Methods by falling Dice, controls among them, with 95 % intervals; n where it is not all images."""
    heads = [f"{METRICS[name].title} ({'more' if METRICS[name].higher else 'less'})" for name in _SHOWN]
    lines = [f"| Method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for method in sorted(table.methods, key=lambda name: -(table.methods[name]["dice"].value or 0.0)):
        figures, info = table.methods[method], EXPLAINERS[method].info
        title = f"*{info.title}*" if info.control else info.title
        cells = [_cell(figures.get(name), table.images) for name in _SHOWN]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(estimate: QualityEstimate | None, images: int) -> str:
    if estimate is None or estimate.value is None:
        return "-"
    interval = "" if estimate.low is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.value:.3f}{interval}" + (f", n {estimate.n}" if estimate.n != images else "")


if __name__ == "__main__":
    card = load_checkpoint(sys.argv[1] if sys.argv[1:] else "neu-six-class").card
    for name, table in card.quality.items():
        sys.stdout.write(f"{name}, {table.evidence}, {table.images} images\n\n{quality_table(table)}\n\n")
