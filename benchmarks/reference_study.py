"""A published study's recipe on its images, for those who have them: `python -m benchmarks.reference_study DATA`.

DATA is the folder of "Severstal: Steel Defect Detection" (Kaggle, 2019): `train.csv` beside `train_images/`. The study
shrank the strips of 256 x 1600 to 64 x 400 and fine-tuned SqueezeNet 1.1 without its last three fire modules from
ImageNet weights, with copies under Gaussian noise of 0.15; it asked whether a strip has a defect, and which of five
classes it is. This trains both and prints each figure beside the study's, with what logistic regression on pixels
reaches on the same images.

The study does not tell its split, nor seeds it, chooses thresholds on test images, and tells no epochs or rates. Here
near-duplicates stay together, 0.8, 0.1 and 0.1 of the strips serve to train, to validate and to test, and nothing is
chosen on the test part; its figures are therefore no race. A strip with several types has no place among five classes
and is left out there, as are strips without a label.

Where ImageNet weights cannot be fetched, `--init FILE` takes them from a file. An interrupted call goes on when it is
made again; a model that is finished in `--out` is not trained again.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from steel_core.cli.output import format_estimate, say
from steel_core.data.augmentation import Augmentation
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.errors import SteelError
from steel_core.leaderboard.checkpoints import build_leaderboard
from steel_core.leaderboard.table import Entry
from steel_core.metrics import Estimate, confusion_counts, effective_observations, group_weights
from steel_core.metrics.intervals import bootstrap_estimate
from steel_core.training.prepare import with_groups_and_splits
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from steel_core.types import DEFECT, Float64Array

CONFIG = TrainingSettings(
    backbone="squeezenet-reduced",
    init="imagenet",
    input_size=(64, 400),
    augmentation=Augmentation(
        flip=False, turn=False, noise=0.15, degrees=0, scale=0, shift=0, brightness=0, contrast=0
    ),
)

# What the study reports of its network, and of logistic regression on principal components of pixels.
STUDY = {
    "defect or not": {"accuracy": ("0.941", "0.69 to 0.75"), "F1": ("0.944", "–"), "AUC": ("0.983", "–")},
    "five classes": {
        "accuracy": ("0.921", "–"),
        "balanced accuracy": ("0.904", "–"),
        "macro F1": ("–", "0.37 to 0.44"),
        "weighted F1": ("0.924", "–"),
        "AUC": ("0.987", "–"),
    },
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/reference-study"))
    parser.add_argument("--init", default=CONFIG.init, help="imagenet, random, or a file of weights")
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs, help="chosen by the number of images unless given")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    config = CONFIG.replace(init=args.init, epochs=args.epochs)
    try:
        index, _ = with_groups_and_splits(open_dataset(args.data).without_splits(), config.seed, say, lambda *_: None)
        one_label = (index.table["labels"] != "") & ~index.table["labels"].str.contains("|", regex=False)
        tasks = {
            "defect or not": index.select(rows=(index.table["labels"] != "").to_numpy()).binary(),
            "five classes": index.select(rows=one_label.to_numpy()),
        }
        for task, data in tasks.items():
            print("\n".join(_table(task, *_compared(data, args.out / task.replace(" ", "-"), config, args.device))))
    except SteelError as error:
        print(f"reference study: {error}", file=sys.stderr)
        return 2
    return 0


def _compared(index: DatasetIndex, out: Path, config: TrainingSettings, device: str) -> tuple[Entry, Entry]:
    """The network, trained unless it is there, and logistic regression on pixels, on the test part."""
    if not (out / "card.json").exists():
        train(index, out, config, finish=False, device=device, report=say)
    board = build_leaderboard(
        index, [str(out)], baselines=True, device=device, folder=out.parent / "evaluations", report=say
    )
    by_name = {entry.name: entry for entry in board.entries}
    return by_name[out.name], by_name["pixels (baseline)"]


def _table(task: str, network: Entry, pixels: Entry) -> list[str]:
    ours, theirs = _figures(network), _figures(pixels)
    lines = [f"{task}, n = {network.report.n}", f"{'':20}{'network':>25}{'study':>8}{'pixels':>25}{'study':>14}"]
    for name, (study, on_pixels) in STUDY[task].items():
        lines.append(f"{name:20}{_shown(ours[name]):>25}{study:>8}{_shown(theirs[name]):>25}{on_pixels:>14}")
    return [*lines, ""]


def _figures(entry: Entry) -> dict[str, Estimate]:
    """The study's figures of one row, each with its interval by group."""
    report, evaluation = entry.report, entry.evaluation
    effective = effective_observations(evaluation.groups)
    keys = {"accuracy": "accuracy", "balanced accuracy": "macro_recall", "macro F1": "macro_f1", "AUC": "auc"}
    estimates = {
        name: Estimate(getattr(report, key), *(report.intervals[key] or (0.0, 1.0)), report.n, effective)
        for name, key in keys.items()
    }
    if DEFECT in evaluation.classes:
        return estimates | {"F1": evaluation.per_class()[DEFECT]["f1"]}
    truth, called = evaluation.labels, evaluation.probs.argmax(axis=1)
    counts, drawn = (
        confusion_counts(truth, called, len(evaluation.classes), weights)
        for weights in (None, group_weights(evaluation.groups))
    )
    weighted = bootstrap_estimate(float(_weighted_f1(counts)[0]), _weighted_f1(drawn), report.n, effective)
    return estimates | {"weighted F1": weighted}


def _weighted_f1(counts: Float64Array) -> Float64Array:
    """F1 of each class weighed by its images (R,), of confusion matrices (R, K, K). R resamples, K classes."""
    images, named = counts.sum(axis=2), counts.sum(axis=1)
    each = 2 * np.diagonal(counts, axis1=1, axis2=2) / np.maximum(images + named, 1e-12)
    return (each * images).sum(axis=1) / images.sum(axis=1)


def _shown(figure: Estimate) -> str:
    return "–" if figure.value is None else format_estimate(figure.value, (figure.low, figure.high))


if __name__ == "__main__":
    sys.exit(main())
