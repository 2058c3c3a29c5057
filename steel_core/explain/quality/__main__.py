"""`python -m steel_core.explain.quality [CHECKPOINT]`: what a card stores of its maps' quality, as tables for a page.

`docs/quality.md` holds these tables of `neu-six-class`; a test fails where it is out of date.
"""

from __future__ import annotations

import sys
from typing import Any

from steel_core.explain.base import EXPLAINERS
from steel_core.explain.quality.base import METRICS
from steel_core.models.checkpoint import load_checkpoint

_SHOWN = ("dice", "iou", "pointing-game", "road", "randomised-model")


def quality_table(told: dict[str, Any]) -> str:
    """Methods by falling Dice, controls among them, with 95 % intervals; n where it is not all images.

    Args:
        told: of one data set, as `Card.quality` holds it.
    """
    heads = [f"{METRICS[name].title} ({'more' if METRICS[name].higher else 'less'})" for name in _SHOWN]
    lines = [f"| Method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for method in sorted(told["methods"], key=lambda name: -told["methods"][name]["dice"]["value"]):
        figures, info = told["methods"][method], EXPLAINERS[method].info
        title = f"*{info.title}*" if info.control else info.title
        cells = [_cell(figures.get(name), told["images"]) for name in _SHOWN]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None, images: int) -> str:
    if not figure or figure["value"] is None:
        return "-"
    interval = "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
    return f"{figure['value']:.3f}{interval}" + (f", n {figure['n']}" if figure["n"] != images else "")


if __name__ == "__main__":
    card = load_checkpoint(sys.argv[1] if sys.argv[1:] else "neu-six-class").card
    for name, told in card.quality.items():
        sys.stdout.write(f"{name}, {told['evidence']}, {told['images']} images\n\n{quality_table(told)}\n\n")
