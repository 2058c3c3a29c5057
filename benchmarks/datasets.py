"""How long data sets take to open: `python -m benchmarks.datasets [--samples N] [--rows N]`.

10,000 samples of each layout, promised in a second; a Parquet manifest of a million synthetic rows, promised in two,
its filters in half a second each (by class, source, group, ranges, a line on the map, sorted); the nearest of 10,000
pictures, promised in 50 ms, and of 100,000 by the library's index, in half a second; a page of 48 thumbnails with
outlines, promised in a second when it is made; `data check` of 1,000 sheets of 200 x 200, promised in 30 s on two quiet
cores; a strip of 256 x 100,000 pixels judged and explained in tiles, promised in 1.5 GB of memory, the program and the
strip included. Empty files are enough: opening reads no pixels. Masks are the exception, read once and then remembered.
Medians of 3; exits with 1 where a promise is missed.
"""

import argparse
import io
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.common import T, find_real_data, judge, time_call
from steel_core import render
from steel_core.data.filters import Filter, Range, collect_facts
from steel_core.data.images.read import encode_png
from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.open import open_dataset
from steel_core.data.quality.properties import PROPERTIES
from steel_core.data.readers.manifest import write_manifest
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.evaluation.data_check import check_dataset
from steel_core.inference.embedding import Embedding
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import explain_tiled
from steel_core.types import SteelImage

SECONDS = 1.0
OPEN_ROWS, FILTER, NEAREST, NEAREST_OF_MANY, PAGE = 2.0, 0.5, 0.05, 0.5, 1.0
CHECK, CHECKED = 30.0, 1_000
STRIP, STRIP_MEMORY = (256, 100_000), 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        kept = [
            _strip(),  # first: what is measured is the most memory that this process has ever held
            _layouts(Path(scratch), args.samples),
            _rows(Path(scratch), args.rows),
            _neighbours(),
            _thumbnails(Path(scratch)),
            _data_check(Path(scratch)),
        ]
    return 0 if all(kept) else 1


def _strip() -> bool:
    """The most memory held while a long strip is judged and explained."""
    strip = np.tile(StripMill(size=(256, 256), seed=0).render(0).pixels, (1, STRIP[1] // 256 + 1))[:, : STRIP[1]]
    image = SteelImage(np.ascontiguousarray(strip), "strip", "")
    seconds, attribution = time_call(lambda: explain_tiled(Predictor.load("strip-mill", "cpu"), image))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux tells kB
    kept = held < STRIP_MEMORY and attribution.values.shape == STRIP
    print(f"strip of {STRIP[0]} x {STRIP[1]:,}, judged and explained in {seconds:.0f} s: at most {held:.2f} GB held, "
          f"promised {STRIP_MEMORY:g} GB: {judge(kept)}")  # fmt: skip
    return kept


def _data_check(root: Path) -> bool:
    """Every finding about real steel where it is, else about drawn sheets; nothing is remembered from before."""
    real = find_real_data() / "neu-cls"
    if not real.is_dir():
        write_sheets(StripMill(size=(200, 200), seed=0), CHECKED, root / "checked")
    index = open_dataset(real if real.is_dir() else root / "checked")
    index = index.select(rows=np.arange(min(CHECKED, len(index))))
    os.environ["STEEL_CACHE"] = str(root / "cache")
    decoding, _ = time_call(lambda: [index.image(i) for i in range(len(index))])
    seconds, findings = time_call(lambda: check_dataset(index))
    what = f"{len(findings)} findings, {seconds / decoding:.0f} times as long as decoding;"
    return _check(f"data check of {len(index):,} images of {index.spec.name}, {what}", seconds, CHECK)


def _layouts(root: Path, samples: int) -> bool:
    worst = 0.0
    for name, files in {
        "neu": (f"images/{('Cr', 'In', 'Pa', 'PS', 'RS', 'Sc')[i % 6]}_{i // 6 + 1}.bmp" for i in range(samples)),
        "class folders": (f"class {i % 7}/{i}.png" for i in range(samples)),
        "severstal": (f"train_images/{i}.png" for i in range(samples)),
    }.items():
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if name == "severstal":
            _write_severstal(root / name, samples)
        worst = max(worst, _open(name, root / name))
    index = open_dataset(root / "class folders")
    for ending in ("csv", "parquet"):
        write_manifest(index, root / f"list.{ending}")
        worst = max(worst, _open(f"{ending} manifest", root / f"list.{ending}"))
    return _check(f"{samples} samples; slowest", worst, SECONDS)


def _write_severstal(root: Path, samples: int) -> None:
    """A mask of 100 runs for every second strip of 256 x 1600."""
    strip = encode_png(np.zeros((256, 1600), np.uint8))
    (root / "train_images" / "0.png").write_bytes(strip)
    runs = " ".join(f"{1 + 4000 * k} 25" for k in range(100))
    lines = [f"{i}.png,{1 + i % 4},{runs}" for i in range(0, samples, 2)]
    (root / "train.csv").write_text("\n".join(["ImageId,ClassId,EncodedPixels", *lines]))


def _rows(root: Path, rows: int) -> bool:
    """A Parquet manifest of a million rows of a thousand coils: opened, and filtered."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "path": [f"coil {k // 1000}/{k:07d}.png" for k in range(rows)],
            "labels": rng.choice(["clear", "rust", "scratch", "rust|scratch"], rows),
            "split": "train",
            "group": [f"coil {k // 1000}" for k in range(rows)],
            "source": "mill",
        }
    )
    path = root / "million.parquet"
    write_manifest(DatasetIndex.build(root, unknown_spec("million"), table), path)
    seconds, index = _median(lambda: open_dataset(path))
    opened = _check(f"{len(index)} rows; opened", seconds, OPEN_ROWS)
    by_label = _median(lambda: index.select(rows=(index.table["labels"] == "rust").to_numpy()))[0]
    by_source = _median(lambda: index.select(rows=(index.table["source"] == "mill").to_numpy()))[0]
    selected = _check("filtered", max(by_label, by_source), FILTER)
    return _explored(index) and selected and opened


def _explored(index: DatasetIndex) -> bool:
    """What the Explore page does when a choice changes: its filters over a million rows, and the sorting."""
    rng = np.random.default_rng(1)
    n = len(index)
    measured = pd.DataFrame(rng.random((n, len(PROPERTIES))), columns=list(PROPERTIES))
    about = {"row": np.arange(n), "pred": rng.choice(["rust", "scratch"], n), "verdict": "right", "loss": rng.random(n)}
    answers = pd.DataFrame(about)
    places = rng.normal(size=(n, 2)).astype(np.float32)
    seconds, table = time_call(lambda: collect_facts(index, answers, measured, places))
    print(f"{n} rows gathered once for the page in {seconds:.2f} s")
    light, area = Range("brightness", 0.2, 0.8), Range("defect_area", 0.1, 0.5)
    corners = tuple((float(np.cos(t)), float(np.sin(t))) for t in np.linspace(0, 6, 40))
    kept = True
    for what, asked, sort in (
        ("class and source", Filter(label="rust", source="mill"), ""),
        ("part of a group's name", Filter(group="12"), ""),
        ("prediction and two ranges", Filter(pred="rust", ranges=(light, area)), ""),
        ("a line of 40 corners on the map", Filter(outline=corners), ""),
        ("everything, sorted by loss", Filter(), "loss"),
    ):
        seconds, rows = _median(partial(asked.rows, table, sort))
        kept &= _check(f"Explore: {what}, {len(rows)} found", seconds, FILTER)
    return kept


def _neighbours() -> bool:
    kept = True
    for n, promised in ((10_000, NEAREST), (100_000, NEAREST_OF_MANY)):
        features = np.random.default_rng(0).normal(size=(n, 320)).astype(np.float32)
        embedding = Embedding(features / np.linalg.norm(features, axis=1, keepdims=True), "")
        embedding.nearest(embedding.row(0))
        seconds = _median(partial(embedding.nearest, embedding.row(7)))[0]
        kept &= _check(f"nearest of {n:,} pictures", seconds, promised)
    return kept


def _thumbnails(root: Path) -> bool:
    """A page of 48 images with masks, as the gallery makes it once."""
    write_sheets(StripMill(seed=0), 48, root / "sheets")
    index = open_dataset(root / "sheets")
    signs = render.assign_signs(index.classes)

    def page() -> None:
        for row in range(len(index)):
            image = index.image(row)
            size = (image.height, image.width)
            masks = {label: mask for label, mask in index.masks(row).items() if mask.any()}
            drawn = render.draw_annotations(render.thumbnail(image, 240), masks, index.boxes(row), size, signs)
            Image.fromarray(drawn).save(io.BytesIO(), "JPEG", quality=92, subsampling=0)

    return _check("gallery: 48 thumbnails with outlines, made", _median(page)[0], PAGE)


def _median(work: Callable[[], T]) -> tuple[float, T]:
    seconds, results = zip(*(time_call(work) for _ in range(3)), strict=True)
    return sorted(seconds)[1], results[-1]


def _check(what: str, seconds: float, promised: float) -> bool:
    print(f"{what} {seconds:.3f} s, promised {promised:g} s: {judge(seconds < promised)}")
    return seconds < promised


def _open(name: str, path: Path) -> float:
    listing, entries = time_call(lambda: sum(len(files) for _, _, files in os.walk(path)) if path.is_dir() else 0)
    seconds, index = time_call(lambda: open_dataset(path))
    ratio = f"{seconds / listing:6.1f} x listing its {entries} files" if entries else ""
    print(f"{name:16} {len(index):7} samples {seconds:6.2f} s {ratio}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
