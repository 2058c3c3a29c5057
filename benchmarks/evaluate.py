"""How fast images are evaluated: `python -m benchmarks.evaluate [--checkpoint NAME] [--images N] [--repeats N]`.

Evaluating from files (read, decode, resize, predict, tabulate) is timed in turn with the pure forward pass over the
same images, already decoded, in the same run. Exits with 1 where a promise is missed: at least 0.8 of the forward
pass's speed, and a stored evaluation of 10,000 images loaded with its confusion matrix in under a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from steel_core.data.index import open_dataset
from steel_core.data.strip_mill import StripMill, make
from steel_core.inference import Predictor
from steel_core.recipes.evaluate import Evaluation, evaluate

SHARE, SECONDS, STORED = 0.8, 1.0, 10_000


def main() -> int:
    """Print what was measured; 0 if both promises hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="strip-mill")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEEL_CACHE"] = folder
        make(StripMill(seed=1), min(args.images, 200), Path(folder) / "sheets")
        drawn = open_dataset(Path(folder) / "sheets")
        index = drawn.select(rows=np.arange(args.images) % len(drawn))  # the same files again, read again
        predictor = Predictor.load(args.checkpoint)
        print(f"{predictor.device}, {torch.get_num_threads()} threads, {len(index)} images, median of {args.repeats}")
        grids = [predictor.card.preprocessing.to_grid(drawn.image(i))[0] for i in range(len(drawn))]
        whole = [grids[i % len(grids)] for i in range(len(index))]
        taken: dict[str, list[float]] = {"forward pass": [], "evaluation": []}
        for _ in range(args.repeats):
            started = time.perf_counter()
            predictor.logits(whole)
            between = time.perf_counter()
            found = evaluate(predictor, index, "all")
            taken["forward pass"].append(between - started)
            taken["evaluation"].append(time.perf_counter() - between)
        ratios = [f / e for f, e in zip(taken["forward pass"], taken["evaluation"], strict=True)]
        for name, seconds in taken.items():
            print(f"{name:14} {1000 * statistics.median(seconds) / len(index):8.2f} ms an image")
        fast = statistics.median(ratios) >= SHARE
        print(f"speed as a share of the forward pass: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
              f"{max(ratios):.2f}; promised {SHARE:g}): {'kept' if fast else 'MISSED'}")  # fmt: skip
        return 0 if _stored(found, Path(folder)) and fast else 1


def _stored(found: Evaluation, folder: Path) -> bool:
    """Load an evaluation of many images and count its confusion matrix."""
    times = -(-STORED // len(found))
    table = pd.concat([found.table] * times, ignore_index=True).head(STORED)
    path = replace(found, table=table.assign(row=np.arange(STORED))).save(folder)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        loaded = Evaluation.load(path)
        loaded.confusion()
        loaded.top_losses(48)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    _ = loaded.report
    figures = time.perf_counter() - started
    kept = statistics.median(seconds) < SECONDS
    print(f"stored evaluation of {STORED} images, {path.stat().st_size / 1e6:.1f} MB: loaded with confusion matrix and "
          f"top losses in {statistics.median(seconds):.3f} s (promised {SECONDS:g}): {'kept' if kept else 'MISSED'}; "
          f"all figures with their bootstrap {figures:.2f} s more, once")  # fmt: skip
    return kept


if __name__ == "__main__":
    sys.exit(main())
