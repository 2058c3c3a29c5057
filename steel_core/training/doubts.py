"""What a reader of a model's figures must know: what its data let it learn beside the steel, and a gap in test."""

from collections.abc import Mapping, Sequence
from typing import Any

from steel_core.data.index import DatasetIndex
from steel_core.evaluation.label_clues import LabelClue, find_label_clues
from steel_core.progress import Progress, Say
from steel_core.types import StrArray

_OF_CHOOSING = 0.05
"""What choosing the epoch on the validation part may flatter it by."""


def warn_of_clues(index: DatasetIndex, splits: StrArray, report: Say, progress: Progress) -> list[LabelClue]:
    """What alarms in the images to learn from, as `splits` (N,) part them; each is reported as a warning."""
    clues = [clue for clue in find_label_clues(index, splits=splits, progress=progress) if clue.alarming]
    for clue in clues:
        report(f"WARNING: {clue.sentence}")
    return clues


def record_clues(clues: Sequence[LabelClue]) -> list[dict[str, Any]]:
    """The clues as a card keeps them."""
    return [
        {
            "name": clue.name,
            "label": clue.label,
            "strength": clue.strength,
            "interval": clue.interval,
            "named": clue.named,
            "named_in_test": clue.test and clue.test.named,
        }
        for clue in clues
    ]


def describe_gap(reports: Mapping[str, dict[str, Any]], clues: Sequence[LabelClue]) -> str:
    """A sentence where the test part lies below the validation part by more than chance and choosing explain, or "".

    The interval of the difference is built from those of both figures, which count groups (MOVER: G. Y. Zou, A. Donner,
    Statistics in Medicine 27, 2008).
    """
    if "test" not in reports:
        return ""
    name = "mean_average_precision" if reports["val"].get("multi_label") else "macro_recall"
    val, test = (reports[part][name] for part in ("val", "test"))
    if val is None or test is None:
        return ""
    val_low, val_high = reports["val"]["intervals"][name]
    test_low, test_high = reports["test"]["intervals"][name]
    low = val - test - ((val - val_low) ** 2 + (test_high - test) ** 2) ** 0.5
    high = val - test + ((val_high - val) ** 2 + (test - test_low) ** 2) ** 0.5
    if low <= _OF_CHOOSING:
        return ""
    fading = [f"{clue.clue.words} ({clue.label})" for clue in clues if clue.fades]
    why = (
        f"In training, but not in test, the label can be told by {', '.join(fading)}: it has probably learnt that."
        if fading
        else "The test images are unlike those it was chosen on; find out in what before it is used."
    )
    figure = "Mean average precision" if reports["val"].get("multi_label") else "Balanced accuracy"
    return (
        f"{figure} is {val - test:.2f} lower in test ({test:.2f}) than in validation ({val:.2f}); 95 %: {low:.2f} to "
        f"{high:.2f}. {why}"
    )
