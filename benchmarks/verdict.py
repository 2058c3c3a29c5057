"""How long an inspector waits: `python -m benchmarks.verdict [--checkpoint NAME] [--repeats N]`.

Seconds depend on the machine, so each step is also given as a ratio to one forward and backward pass of the same
network, timed in turn with it in the same run. Exits with 1 where a promise of the README is missed: a verdict within
2 s, all three maps within 10 s more.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from steel_core.data.images.read import encode_png, read_image
from steel_core.data.strip_mill import StripMill
from steel_core.inference.predictor import Predictor

VERDICT_SECONDS, MAPS_SECONDS = 2.0, 10.0
PICTURES = {"photograph": (480, 640), "strip": (256, 1600)}


def main() -> int:
    """Print a table for each picture; 0 if both promises hold for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="neu-six-class")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    predictor = Predictor.load(args.checkpoint)
    print(f"{predictor.device}, {torch.get_num_threads()} threads, median of {args.repeats}")
    kept = [_measure(predictor, name, size, args.repeats) for name, size in PICTURES.items()]
    return 0 if all(kept) else 1


def _measure(predictor: Predictor, name: str, size: tuple[int, int], repeats: int) -> bool:
    data = encode_png(StripMill(size=size, seed=1).render(0, "scratches").pixels)
    image = read_image(data, name=name)
    rows, columns = predictor.card.preprocessing.grid_size(image.height, image.width)[0]
    inputs = torch.randn(1, 3, rows, columns, device=predictor.device).contiguous(memory_format=torch.channels_last)

    def forward_backward() -> None:
        leaf = inputs.clone().requires_grad_()
        torch.autograd.grad(predictor.model(leaf).max(), leaf)

    steps: dict[str, Callable[[], object]] = {
        "forward + backward": forward_backward,
        "read and verdict": lambda: predictor.predict([read_image(data, name=name)]),
        "grad-cam": lambda: predictor.explain(image, "grad-cam"),
        "guided-grad-cam": lambda: predictor.explain(image, "guided-grad-cam"),
        "shap, 200 samples": lambda: predictor.explain(image, "shap"),
    }
    taken: dict[str, list[float]] = {step: [] for step in steps}
    for _ in range(repeats + 1):
        for step, run in steps.items():
            started = time.perf_counter()
            run()
            taken[step].append(time.perf_counter() - started)
    median = {step: statistics.median(seconds[1:]) for step, seconds in taken.items()}
    unit = median["forward + backward"]
    print(f"\n{name}, {image.width} x {image.height}, seen at {columns} x {rows}")
    for step, seconds in median.items():
        print(f"{step:20} {seconds * 1000:9.1f} ms {seconds / unit:9.1f} x forward + backward")
    verdict, maps = median["read and verdict"], sum(median[step] for step in list(steps)[2:])
    kept = verdict <= VERDICT_SECONDS and maps <= MAPS_SECONDS
    print(f"verdict {verdict:.2f} s (promised {VERDICT_SECONDS:g}), maps {maps:.2f} s (promised {MAPS_SECONDS:g}): "
          f"{'kept' if kept else 'MISSED'}")  # fmt: skip
    return kept


if __name__ == "__main__":
    sys.exit(main())
