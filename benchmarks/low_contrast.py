"""Does one call learn a dark, dull surface as well as a bright one?

`python -m benchmarks.low_contrast [--preset sound] [--backbone NAME] [--seeds N]` draws 500 sheets of the strip
mill (64 x 64, seven classes) at full contrast and the same sheets at a tenth of it, trains on each with the same preset
and nothing tuned, and counts on 700 fresh sheets of the same kind. It exits with 1 where the accuracy on the dull ones
is below 0.9 of the other.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.inference.predictor import Predictor
from steel_core.metrics import wilson_interval
from steel_core.training.presets import PRESETS
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from steel_core.types import BoolArray

SIDE, LEARNT, COUNTED = 64, 500, 700
FULL, DULL = 1.0, 0.1
GOAL = 0.9


def main() -> int:
    """Print both accuracies and their ratio for each seed; 0 if the ratio over all is at least the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="sound", choices=list(PRESETS))
    parser.add_argument("--backbone", default=PRESETS["sound"].config.backbone)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    config = PRESETS[args.preset].config.replace(backbone=args.backbone)
    right: dict[float, list[BoolArray]] = {FULL: [], DULL: []}
    for seed in range(args.seeds):
        for contrast, answers in right.items():
            with tempfile.TemporaryDirectory() as folder:
                answers.append(_right(Path(folder), contrast, seed, config))
            print(f"seed {seed}, contrast {contrast:g}: {_share(answers[-1])}", flush=True)
    full, dull = (np.concatenate(answers) for answers in right.values())
    ratio = dull.mean() / full.mean()
    draws = np.random.default_rng(0).integers(len(full), size=(2000, len(full)))  # the same sheets in both: paired
    low, high = np.quantile(dull[draws].mean(axis=1) / full[draws].mean(axis=1), [0.025, 0.975])
    print(f"full contrast {_share(full)}; a tenth of it {_share(dull)}")
    print(f"ratio {ratio:.3f} ({low:.3f} to {high:.3f}), goal {GOAL}: {'kept' if ratio >= GOAL else 'MISSED'}")
    return 0 if ratio >= GOAL else 1


def _right(folder: Path, contrast: float, seed: int, config: TrainingSettings) -> BoolArray:
    """Whether each of the fresh sheets is named rightly by a model that has learnt at this contrast."""
    for name, n, drawn in (("learnt", LEARNT, 2 * seed + 1), ("fresh", COUNTED, 2 * seed + 2)):
        write_sheets(StripMill(size=(SIDE, SIDE), seed=drawn, contrast=contrast), n, folder / name)
    train(open_dataset(folder / "learnt"), folder / "model", config, scale_maps=False, report=_say)
    predictor, fresh = Predictor.load(folder / "model"), open_dataset(folder / "fresh")
    predictions = predictor.predict([fresh.image(i) for i in range(len(fresh))])
    return np.array([prediction.pred == fresh[i].label for i, prediction in enumerate(predictions)])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _share(right: BoolArray) -> str:
    low, high = wilson_interval(float(right.mean()), len(right))
    return f"accuracy {right.mean():.3f} ({low:.3f} to {high:.3f}), n = {len(right)}"


if __name__ == "__main__":
    sys.exit(main())
