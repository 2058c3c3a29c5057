"""Thresholds as a plant sets them: chosen on validation, shown on test, saved into the card with who and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from steel_core.errors import DataError, UsageError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.metrics.decisions import Costs, choose_thresholds, plant_estimates
from steel_core.metrics.multi_label import NEVER
from steel_core.models.card import Card
from steel_core.models.checkpoint import ASSETS, amend_card
from steel_core.types import CLEAR, DEFECT


@dataclass(frozen=True, eq=False)
class ThresholdProposal:
    """Thresholds chosen on so many images, and `plant_estimates` of the test images before and after."""

    thresholds: dict[str, float]
    chosen_on: int
    before: pd.DataFrame
    after: pd.DataFrame

    @property
    def verdict(self) -> str:
        """Whether the proposal is cheaper than what is in force, on the test images, in one sentence."""
        now, then = (table.iloc[-1] for table in (self.before, self.after))
        if self.before.equals(self.after):
            return f"On these {now['n']} test images the proposal decides and costs the same as what is in force."
        cost = "{cost_per_1000:.1f} ({cost_low:.1f} to {cost_high:.1f})"
        costs = f"1,000 sheets cost {cost.format(**then)} with the proposal, {cost.format(**now)} with what is in force"
        if then["cost_high"] < now["cost_low"]:
            return f"The proposal is cheaper: {costs}."
        if then["cost_low"] > now["cost_high"]:
            return f"The proposal is dearer on images that it was not chosen on: {costs}."
        return f"These {now['n']} test images do not show which is cheaper: {costs}."


def propose_thresholds(
    evaluation: Evaluation, costs: Costs, mix: Mapping[str, float] | None = None
) -> ThresholdProposal:
    """The cheapest thresholds on the validation images of an evaluation of all images, tried on its test images.

    For a multi-label checkpoint costs and mix are those of its verdicts, clear and defect: what a sheet costs does not
    depend on how many defect types are named. Its classes share the threshold of "defect". `mix` is the share of each
    class in production; as in the images if None.

    Raises:
        DataError: there are no labelled images for validation or for the test.
        UsageError: the evaluation is not of all images.
    """
    val, test = (evaluation.select(part).labelled for part in ("val", "test"))
    if not (val.decidable.any() and len(test)):
        raise DataError("thresholds need labelled images of a validation part to choose on and of a test part to show")
    decidable = val.decidable
    labels = val.verdict_labels[decidable]
    chosen = choose_thresholds(val.verdict_probs[decidable], labels, val.verdicts, costs, mix)
    if val.multi_label:
        clear = NEVER if labels.all() else chosen[CLEAR]  # defect is 1: no clear sheet, nothing known of them
        chosen = dict.fromkeys(val.classes, chosen[DEFECT]) | {CLEAR: clear}
    before, after = (
        plant_estimates(
            each.table["outcome"].to_numpy(object), test.verdict_labels, test.verdicts, costs, mix, list(test.groups)
        )
        for each in (test, test.under(thresholds=chosen))
    )
    return ThresholdProposal(chosen, int(decidable.sum()), before, after)


def save_thresholds(folder: Path, thresholds: Mapping[str, float], who: str, reason: str) -> None:
    """Write thresholds into the card of a checkpoint; who, when, why, old and new are added to its history.

    A prediction below its class's threshold is referred to a person; a multi-label checkpoint has one of "clear", too.

    Raises:
        UsageError: the checkpoint comes with the program, a class is unknown or missing, a value is no probability,
            nobody or no reason is named, or the folder cannot be written to.
        CheckpointError: there is no readable card.
    """
    if folder.resolve().is_relative_to(ASSETS):
        raise UsageError(
            f"{folder.name} comes with the program and stays as it is. Copy its folder under another name to where "
            "STEEL_MODELS points to, and set the thresholds of the copy"
        )
    if not reason.strip():
        raise UsageError("a change of thresholds needs a reason")
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise UsageError(f"threshold of {name}: expected a probability from 0 to 1, got {value}")

    def change(card: Card) -> dict[str, dict[str, float]]:
        classes = (*card.classes, CLEAR) if card.multi_label else card.classes
        if set(thresholds) != set(classes):
            raise UsageError(f"thresholds: expected one for each of {', '.join(classes)}, got {', '.join(thresholds)}")
        return {"thresholds": {name: float(thresholds[name]) for name in classes}}

    amend_card(folder, change, who, reason)
