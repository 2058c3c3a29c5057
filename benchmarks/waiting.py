"""How long a person waits: `python -m benchmarks.waiting verdict|help [--checkpoint NAME] [--repeats N]`.

verdict: an inspector. Seconds depend on the machine, so each step is also given as a ratio to one forward and backward
pass of the same network, timed in turn with it in the same run. Exits with 1 where a promise of the README is missed: a
verdict within 2 s, all three maps within 10 s more.

help: `steel-lens --help` and `steel-lens predict --help`, in turn with an interpreter that does nothing. Exits with 1
where a help takes more than 0.3 s; the machine must be quiet.
"""

import argparse
import subprocess
import sys
from functools import partial

import torch

from benchmarks.common import forward_backward, judge, take_medians, time_in_turn
from steel_core.data.images.read import encode_png, read_image
from steel_core.data.strip_mill import StripMill
from steel_core.inference.predictor import Predictor

VERDICT_SECONDS, MAPS_SECONDS, HELP_SECONDS = 2.0, 10.0, 0.3
PICTURES = {"photograph": (480, 640), "strip": (256, 1600)}
CALLS = {"nothing": ["-c", "pass"], "--help": ["-m", "steel_core", "--help"],
         "predict --help": ["-m", "steel_core", "predict", "--help"]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["verdict", "help"])
    parser.add_argument("--checkpoint", default="neu-six-class")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if args.what == "help":
        return 0 if _help(args.repeats) else 1
    predictor = Predictor.load(args.checkpoint)
    print(f"{predictor.device}, {torch.get_num_threads()} threads, median of {args.repeats}")
    kept = [_verdict(predictor, name, size, args.repeats) for name, size in PICTURES.items()]
    return 0 if all(kept) else 1


def _verdict(predictor: Predictor, name: str, size: tuple[int, int], repeats: int) -> bool:
    data = encode_png(StripMill(size=size, seed=1).render(0, "scratches").pixels)
    image = read_image(data, name=name)
    rows, columns = predictor.card.preprocessing.grid_size(image.height, image.width)[0]
    inputs = torch.randn(1, 3, rows, columns, device=predictor.device).contiguous(memory_format=torch.channels_last)

    maps = {"grad-cam": "grad-cam", "guided-grad-cam": "guided-grad-cam", "shap, 200 samples": "shap"}
    median = take_medians(
        time_in_turn(
            {
                "forward + backward": lambda: forward_backward(predictor.model, inputs),
                "read and verdict": lambda: predictor.predict([read_image(data, name=name)]),
                **{step: partial(predictor.explain, image, method) for step, method in maps.items()},
            },
            repeats,
        )
    )
    unit = median["forward + backward"]
    print(f"\n{name}, {image.width} x {image.height}, seen at {columns} x {rows}")
    for step, seconds in median.items():
        print(f"{step:20} {seconds * 1000:9.1f} ms {seconds / unit:9.1f} x forward + backward")
    verdict, explained = median["read and verdict"], sum(median[step] for step in maps)
    kept = verdict <= VERDICT_SECONDS and explained <= MAPS_SECONDS
    print(
        f"verdict {verdict:.2f} s (promised {VERDICT_SECONDS:g}), maps {explained:.2f} s (promised {MAPS_SECONDS:g}): "
        f"{judge(kept)}"
    )
    return kept


def _help(repeats: int) -> bool:
    steps = {
        name: partial(subprocess.run, [sys.executable, *arguments], capture_output=True, check=True)
        for name, arguments in CALLS.items()
    }
    took = take_medians(time_in_turn(steps, repeats))
    for name, seconds in took.items():
        print(f"{name:16}{seconds:6.2f} s  {seconds / took['nothing']:5.1f} x an empty interpreter")
    return max(took["--help"], took["predict --help"]) <= HELP_SECONDS


if __name__ == "__main__":
    sys.exit(main())
