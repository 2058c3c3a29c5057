"""How long a data set of 10,000 samples takes to open: `python -m benchmarks.datasets [--samples N]`.

Empty files are enough: opening reads no pixels. Masks are the exception, read once and then remembered. Exits with 1
where a data set takes longer than a second to open.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from steel_core.data.index import open_dataset
from steel_core.data.manifest import write_manifest

SECONDS = 1.0


def main() -> int:
    """Print a table; 0 if every layout opens in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    samples = parser.parse_args().samples
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name, files in {
            "neu": (f"images/{('Cr', 'In', 'Pa', 'PS', 'RS', 'Sc')[i % 6]}_{i // 6 + 1}.bmp" for i in range(samples)),
            "class folders": (f"class {i % 7}/{i}.png" for i in range(samples)),
        }.items():
            for file in files:
                path = root / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            worst = max(worst, _open(name, root / name))
        index = open_dataset(root / "class folders")
        for ending in ("csv", "parquet"):
            write_manifest(index, root / f"list.{ending}")
            worst = max(worst, _open(f"{ending} manifest", root / f"list.{ending}"))
    print(
        f"{samples} samples; slowest {worst:.2f} s, promised {SECONDS:g} s: {'kept' if worst < SECONDS else 'MISSED'}"
    )
    return 0 if worst < SECONDS else 1


def _open(name: str, path: Path) -> float:
    listing = time.perf_counter()
    entries = sum(len(files) for _, _, files in os.walk(path)) if path.is_dir() else 0
    listing = time.perf_counter() - listing
    started = time.perf_counter()
    found = len(open_dataset(path))
    seconds = time.perf_counter() - started
    ratio = f"{seconds / listing:6.1f} x listing its {entries} files" if entries else ""
    print(f"{name:16} {found:7} samples {seconds:6.2f} s {ratio}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
