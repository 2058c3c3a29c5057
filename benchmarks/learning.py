"""What one call learns from drawn sheets, nothing tuned: `python -m benchmarks.learning contrast|types`.

contrast [--preset sound] [--backbone NAME] [--seeds N]: a dark, dull surface as well as a bright one? Draws 500 sheets
of the strip mill (64 x 64, seven classes) at full contrast and the same sheets at a tenth of it, trains on each with
the same preset, and counts on 700 fresh sheets of the same kind. Exits with 1 where the accuracy on the dull ones is
below 0.9 of the other.

types [--seed N]: several defect types in one image. Draws 900 sheets of 64 x 64 with up to three defect types each, in
Severstal's format, trains on them with `--head sigmoid` and nothing else chosen, and counts on 300 fresh sheets: no
image, mask or seed of theirs served to learn or to choose anything. Then the same model on 100 fresh strips of
64 x 512: judged tile by tile, as every page and command does, and squeezed into the network's input, as nothing does.
Prints figures with their 95 % intervals; some minutes on one core.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import judge
from steel_core.cli.output import format_estimate, say
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.evaluation.evaluate import evaluate
from steel_core.inference.predictor import Predictor
from steel_core.metrics import multi_label, wilson_interval
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.training.settings import PRESETS, TrainingSettings
from steel_core.training.train import train
from steel_core.types import BoolArray
from tests.helpers.several import write_severstal

SIDE, LEARNT, COUNTED = 64, 500, 700
FULL, DULL = 1.0, 0.1
GOAL = 0.9
SEVERAL = {"learnt": (900, (64, 64)), "sheets": (300, (64, 64)), "strips": (100, (64, 512))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["contrast", "types"])
    parser.add_argument("--preset", default="sound", choices=list(PRESETS))
    parser.add_argument("--backbone", default=PRESETS["sound"].config.backbone)
    parser.add_argument("--seeds", type=int, default=1, help="contrast: how many")
    parser.add_argument("--seed", type=int, default=0, help="types: which")
    args = parser.parse_args()
    if args.what == "contrast":
        return _compare_contrasts(args.preset, args.backbone, args.seeds)
    _count_types(args.seed)
    return 0


def _compare_contrasts(preset: str, backbone: str, seeds: int) -> int:
    """Print both accuracies for each seed and their ratio over all."""
    config = PRESETS[preset].config.replace(backbone=backbone)
    right: dict[float, list[BoolArray]] = {FULL: [], DULL: []}
    for seed in range(seeds):
        for contrast, answers in right.items():
            with tempfile.TemporaryDirectory() as folder:
                answers.append(_right(Path(folder), contrast, seed, config))
            print(f"seed {seed}, contrast {contrast:g}: {_share(answers[-1])}", flush=True)
    full, dull = (np.concatenate(answers) for answers in right.values())
    ratio = dull.mean() / full.mean()
    draws = np.random.default_rng(0).integers(len(full), size=(2000, len(full)))  # the same sheets in both: paired
    interval = np.quantile(dull[draws].mean(axis=1) / full[draws].mean(axis=1), [0.025, 0.975])
    print(f"full contrast {_share(full)}; a tenth of it {_share(dull)}")
    print(f"ratio {format_estimate(ratio, interval)}, goal {GOAL}: {judge(ratio >= GOAL)}")
    return 0 if ratio >= GOAL else 1


def _right(folder: Path, contrast: float, seed: int, config: TrainingSettings) -> BoolArray:
    """Whether each of the fresh sheets is named rightly by a model that has learnt at this contrast."""
    for name, n, drawn in (("learnt", LEARNT, 2 * seed + 1), ("fresh", COUNTED, 2 * seed + 2)):
        write_sheets(StripMill(size=(SIDE, SIDE), seed=drawn, contrast=contrast), n, folder / name)
    train(open_dataset(folder / "learnt"), folder / "model", config, finish=False, report=say)
    predictor, fresh = Predictor.load(folder / "model"), open_dataset(folder / "fresh")
    predictions = predictor.predict([fresh.image(i) for i in range(len(fresh))])
    return np.array([prediction.pred == fresh[i].label for i, prediction in enumerate(predictions)])


def _share(right: BoolArray) -> str:
    interval = wilson_interval(float(right.mean()), len(right))
    return f"accuracy {format_estimate(right.mean(), interval)}, n = {len(right)}"


def _count_types(seed: int) -> None:
    """Print the figures of each set of images."""
    with tempfile.TemporaryDirectory() as scratch:
        learnt, sheets, strips = (
            _drawn(Path(scratch) / name, *what, 3 * seed + i) for i, (name, what) in enumerate(SEVERAL.items())
        )
        out = Path(scratch) / "several"
        train(learnt, out, TrainingSettings(head="sigmoid", seed=seed), finish=False, report=say)
        predictor = Predictor.load(out)
        print(f"learnt from {SEVERAL['learnt'][0]} sheets with --head sigmoid, seed {seed}")
        _print("fresh sheets", evaluate(predictor, sheets, "all").report)
        _print("fresh strips, tile by tile", evaluate(predictor, strips, "all").report)
        _print("fresh strips, squeezed", _squeezed(predictor, strips))


def _drawn(folder: Path, n: int, size: tuple[int, int], seed: int) -> DatasetIndex:
    write_severstal(folder, n, size, seed)
    index = open_dataset(folder)
    return index.with_groups([f"drawn {i}" for i in range(len(index))])  # each is drawn by itself


def _squeezed(predictor: Predictor, strips: DatasetIndex) -> MultiLabelReport:
    predictions = predictor.predict([strips.image(row) for row in range(len(strips))])
    probs = np.array([list(one.probs.values()) for one in predictions])
    named = multi_label.named_types(probs, predictor.classes, predictor.card.thresholds)
    truth = multi_label.encode_targets(list(strips.table["labels"]), predictor.classes)
    return multi_label.evaluate(probs, truth, predictor.classes, named, [one.outcome for one in predictions])


def _print(what: str, report: object) -> None:
    assert isinstance(report, MultiLabelReport)
    sentences = (
        f"{name.replace('_', ' ')} {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n})"
        for name in ("mean_average_precision", "exact_match", "escape", "false_call", "referred")
        if (estimate := report.estimates[name]).value is not None
    )
    print(f"{what}: {'; '.join(sentences)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
