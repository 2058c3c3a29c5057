"""How fast the command line answers: `python -m benchmarks.command_line`.

`steel-lens --help` and `steel-lens predict --help` in turn with an interpreter that does nothing; medians of 7. Exits
with 1 where a help takes more than 0.3 s; the machine must be quiet.
"""

import subprocess
import sys
import time
from statistics import median

CALLS = {"nothing": ["-c", "pass"], "--help": ["-m", "steel_core", "--help"],
         "predict --help": ["-m", "steel_core", "predict", "--help"]}  # fmt: skip
LIMIT = 0.3  # seconds


def main() -> int:
    """Time the calls in turn and print their medians."""
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(7):
        for name, arguments in CALLS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            times[name].append(time.perf_counter() - began)
    for name, seconds in times.items():
        ratio = median(seconds) / median(times["nothing"])
        print(f"{name:16}{median(seconds):6.2f} s  {ratio:5.1f} x an empty interpreter")
    return int(max(median(times[name]) for name in CALLS if name != "nothing") > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
