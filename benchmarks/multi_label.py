"""Several defect types in one image, learnt and counted: `python -m benchmarks.multi_label [--seed N]`.

Draws 900 sheets of 64 x 64 with up to three defect types each, in Severstal's format, trains on them with
`--head sigmoid` and nothing else chosen, and counts on 300 fresh sheets: no image, mask or seed of theirs served to
learn or to choose anything. Then the same model on 100 fresh strips of 64 x 512: judged tile by tile, as every page and
command does, and squeezed into the network's input, as nothing does. Prints figures with their 95 % intervals; some
minutes on one core.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.evaluation.evaluate import evaluate
from steel_core.inference.predictor import Predictor
from steel_core.metrics import multi_label
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from tests.helpers.several import write_severstal

LEARNT, SHEETS, STRIPS = (900, (64, 64)), (300, (64, 64)), (100, (64, 512))


def main() -> int:
    """Print the figures of each set of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory() as scratch:
        learnt, sheets, strips = (
            _drawn(Path(scratch) / name, *what, 3 * seed + i)
            for i, (name, what) in enumerate({"learnt": LEARNT, "sheets": SHEETS, "strips": STRIPS}.items())
        )
        out = Path(scratch) / "several"
        train(learnt, out, TrainingSettings(head="sigmoid", seed=seed), scale_maps=False, report=_say)
        predictor = Predictor.load(out)
        print(f"learnt from {LEARNT[0]} sheets with --head sigmoid, seed {seed}")
        _print("fresh sheets", evaluate(predictor, sheets, "all").report)
        _print("fresh strips, tile by tile", evaluate(predictor, strips, "all").report)
        _print("fresh strips, squeezed", _squeezed(predictor, strips))
    return 0


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
