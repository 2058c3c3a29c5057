"""What follows the last epoch, of a training as of a cure: what a checkpoint needs beside its weights is measured."""

from collections.abc import Sequence
from pathlib import Path

import torch

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError
from steel_core.evaluation.ood import make_ood_gate
from steel_core.inference.predictor import Predictor
from steel_core.models.base import Classifier
from steel_core.models.card import Card
from steel_core.models.checkpoint import Checkpoint, save_checkpoint
from steel_core.models.ood import describe_gate
from steel_core.progress import Progress, Say, Stages, no_progress
from steel_core.training.map_scales import map_scales
from steel_core.types import SteelImage, UInt8Array


def finish_checkpoint(
    out: Path,
    card: Card,
    model: Classifier,
    background: UInt8Array | None,
    index: DatasetIndex,
    samples: Sequence[SteelImage],
    *,
    stages: Stages,
    device: torch.device,
    report: Say = print,
    progress: Progress = no_progress,
) -> Card:
    """Measure the scales of the maps and the gate for unfamiliar images, save the checkpoint, and return its card.

    The card holds the split: the parts of `index` are known by the hashes of the files. `samples` are validation images
    that the scales are taken from. Where too few images say what is familiar there is no gate, and a note says so.

    Raises:
        UsageError: the folder holds something else than a checkpoint.
    """
    predictor = Predictor(Checkpoint(card, model, background, ""), str(device))
    with stages("scale of the maps"):
        card = card.replace(map_scale=map_scales(predictor, samples, progress))
    gate = None
    with stages("gate for unfamiliar images"):
        try:
            gate, rates = make_ood_gate(predictor, index, progress=progress)
        except DataError as error:
            note = f"It gives a verdict on any picture, also on one that shows no steel: {error}."
            card = card.replace(notes=(*card.notes, note))
            report(f"WARNING: {note}")
        else:
            card = card.replace(familiarity=describe_gate(gate, rates))
            shares = (f"{name} {rate['unfamiliar']:.1%} of {rate['n']}" for name, rate in rates.items())
            report("called unfamiliar: " + ", ".join(shares))
    with stages("saving"):
        save_checkpoint(out, card, model.state_dict(), background, gate)
    return card
