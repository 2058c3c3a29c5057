"""How fast images are evaluated, and the page that shows it: `python -m benchmarks.evaluate [--images N]`.

Evaluating from files (read, decode, resize, predict, tabulate) is timed in turn with torch's pure forward pass over the
same images, already decoded, in the same run. Then a stored evaluation of 10,000 images is opened: by the library, and
in a browser, where three parts of it are viewed for the first time, after the matrix of another data set was drawn, and
cells of the matrix are clicked 200 times. Exits with 1 where a goal of benchmarks/README.md is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copy, which
from statistics import median
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
import pandas as pd
import torch

from benchmarks.common import resident_megabytes, take_medians, time_call, time_in_turn
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.evaluation import PARTS, Evaluation, map_labels
from steel_core.evaluation.store import cached_estimates, find_evaluation, load_or_evaluate, save_evaluation
from steel_core.explain import engine
from steel_core.inference.keys import data_key
from steel_core.inference.predictor import Predictor

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHARE, SECONDS, STORED, CLICK, GROWTH = 0.8, 1.0, 10_000, 0.5, 0.05
CLICKS, WARM = 200, 20
ROOT = Path(__file__).parents[1]
PORT = 8599


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="strip-mill")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["STEEL_CACHE"] = str(folder / "cache")
        write_sheets(StripMill(seed=1), 200, folder / "sheets")
        predictor = Predictor.load(args.checkpoint)
        print(
            f"{predictor.device}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {args.checkpoint}"
        )
        met = [_speed(predictor, open_dataset(folder / "sheets"), args.images, args.repeats)]
        index = _many(folder)
        met += [_stored(predictor, index, folder), *_page(args.checkpoint, index, folder)]
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0 if all(met) else 1


def _goal(what: str, value: float, goal: float, unit: str, detail: str = "", at_least: bool = False) -> bool:
    met = value >= goal if at_least else value < goal
    print(f"{what}: {value:.3g}{unit} (goal: {'at least' if at_least else 'under'} {goal:g}{unit}; {detail}): "
          f"{'met' if met else 'MISSED'}")  # fmt: skip
    return met


def _speed(predictor: Predictor, drawn: DatasetIndex, images: int, repeats: int) -> bool:
    """An evaluation of files against torch's forward pass over the same images, in turn."""
    index = drawn.select(rows=np.arange(images) % len(drawn))  # the same files again, read again
    grids = [predictor.card.preprocessing.to_grid(drawn.image(i))[0] for i in range(len(drawn))]
    whole = [grids[i % len(grids)] for i in range(images)]
    inputs = predictor.card.preprocessing.normalise(torch.from_numpy(np.stack(whole))[:, None])

    steps = {
        "forward": lambda: engine.predict(predictor.model, inputs),  # in batches of 8, the channels last
        "bulk": lambda: predictor.logits(whole),
        "evaluation": lambda: evaluate(predictor, index, "all"),
    }
    took = time_in_turn(steps, repeats)
    each = {name: 1000 * seconds / images for name, seconds in take_medians(took).items()}
    ratios = [f / e for f, e in zip(took["forward"], took["evaluation"], strict=True)]
    met = _goal(
        f"evaluation of {images} images, its speed as a share of torch's forward pass", median(ratios),
        SHARE, "",
        f"{min(ratios):.2f} to {max(ratios):.2f} in {repeats}; {each['forward']:.2f} ms an image forward, "
        f"{each['evaluation']:.2f} ms evaluated", at_least=True,
    )  # fmt: skip
    print(f"    the bare pass of onnxruntime that it uses: {each['bulk']:.2f} ms an image")
    return met


def _many(folder: Path) -> DatasetIndex:
    """10,000 files: each sheet under 50 names."""
    many = folder / "many"
    (many / "images").mkdir(parents=True)
    copy(folder / "sheets" / "dataset.json", many)
    rows = pd.read_csv(folder / "sheets" / "manifest.csv")[["path", "labels", "split"]]
    copies = []
    for k in range(STORED // len(rows)):
        named = rows["path"].str.replace("images/", f"images/{k:02d}-")
        for old, new in zip(rows["path"], named, strict=True):
            os.link(folder / "sheets" / old, many / new)
        copies.append(rows.assign(path=named))
    pd.concat(copies).to_csv(many / "manifest.csv", index=False)
    return open_dataset(many)


def _stored(predictor: Predictor, index: DatasetIndex, folder: Path) -> bool:
    """Store an evaluation of 10,000 images with its figures, as the page's worker does, and load it."""
    few = load_or_evaluate(predictor, open_dataset(folder / "sheets"))
    table = pd.concat([few.table] * (STORED // len(few)), ignore_index=True)
    about = index.table
    noise = np.random.default_rng(0).normal(0, 2, (STORED, len(few.classes)))  # no two images alike, some of them wrong
    logits = {f"z.{name}": table[f"z.{name}"] + noise[:, k] for k, name in enumerate(few.classes)}
    table = table.assign(row=np.arange(STORED), file=about["path"].to_numpy(), split=about["split"].to_numpy(),
                         **logits)  # fmt: skip
    whole = replace(few, table=table, data=index.spec.title, data_key=data_key(map_labels(index, few.classes)))
    whole = whole.under(predictor.card)
    whole = replace(whole, table=whole.table.assign(pred=np.array(few.classes)[whole.probs.argmax(axis=1)]))
    path = save_evaluation(whole, folder / "cache" / "evaluations")
    cached_estimates(few.select("held-out"))

    def count() -> None:
        for part in PARTS:
            if len((chosen := whole.select(part)).labelled):
                cached_estimates(chosen)

    def load() -> None:
        evaluation = find_evaluation(predictor, index)
        assert isinstance(evaluation, Evaluation)
        part = evaluation.select("held-out")
        cached_estimates(part)
        part.confusion()
        part.top_losses(48)

    counted, seconds = time_call(count)[0], median(time_call(load)[0] for _ in range(5))
    return _goal(
        f"stored evaluation of {STORED} images with all figures, loaded", seconds, SECONDS, " s",
        f"{path.stat().st_size / 1e6:.1f} MB; its figures were counted once, in {counted:.1f} s",
    )  # fmt: skip


def _page(checkpoint: str, index: DatasetIndex, folder: Path) -> Iterator[bool]:
    """The same in a browser: the page, then clicks on the cells of its matrix."""
    chromium = which("chromium") or which("chromium-browser") or which("google-chrome")
    if not chromium:
        print("no Chromium: the page was not measured")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - for this part alone

    with _server(folder) as process, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(120_000)
        address = f"http://127.0.0.1:{PORT}/"
        page.goto(f"{address}?model={checkpoint}&data=sheets")
        page.wait_for_selector(_IDLE)
        page.wait_for_timeout(2000)
        link = page.get_by_role("link", name="Evaluate").first
        first = _view(page, link.click, _EVALUATE)  # loads what draws the matrix
        page.goto(f"{address}?model={checkpoint}&data={index.root.name}")
        page.wait_for_selector(_IDLE)
        seconds = [_view(page, link.click, _EVALUATE)]
        for part in ("test", "all"):
            page.evaluate("window.scrollTo(0, 0)")
            shown = f"() => document.body.innerText.includes('({part})')"
            seconds.append(_view(page, page.get_by_role("radio", name=part, exact=True).click, shown))
        print(f"    the page of 200 images, in a browser that had never drawn a matrix: {first:.2f} s")
        yield _goal(f"page of {STORED} images, from the click to figures, matrix and pictures", max(seconds), SECONDS,
                    " s", "first view of three parts: " + ", ".join(f"{s:.2f}" for s in seconds))  # fmt: skip
        chart = page.locator('[data-testid="stVegaLiteChart"]').locator("canvas, svg").first
        chart.scroll_into_view_if_needed()
        taken, memory = [], []
        for i in range(CLICKS):
            x, y = ((0.4, 0.45), (0.8, 0.8), (0.8, 0.45), (0.4, 0.8))[i % 4]
            before = page.evaluate(_HEADING, "")
            box = chart.bounding_box()
            assert box
            where = (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
            taken.append(_view(page, partial(page.mouse.click, *where), _HEADING, before))
            memory.append(resident_megabytes("VmRSS", process.pid))
        browser.close()
    yield _goal("click on a cell to its pictures", median(taken), CLICK, " s",
                f"median of {CLICKS}, at worst {max(taken):.2f} s")  # fmt: skip
    grown = memory[-1] / memory[WARM - 1] - 1
    yield _goal(f"memory of the server from click {WARM} to {CLICKS}, growth", grown, GROWTH, "",
                f"{memory[WARM - 1]:.0f} to {memory[-1]:.0f} MB")  # fmt: skip


def _view(page: Page, click: Callable[[], None], ready: str, given: str | None = None) -> float:
    """Seconds from a click until what is asked for and the pictures are there; returns when the page is idle."""
    started = time.perf_counter()
    click()
    page.wait_for_function(ready, arg=given)
    page.wait_for_function(_PICTURES)
    seconds = time.perf_counter() - started
    page.wait_for_selector(_IDLE)
    return seconds


_IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
_EVALUATE = """() => document.querySelectorAll('[data-testid=stMetric]').length >= 4
    && document.querySelector('[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg')
    && document.body.innerText.includes('All images, by falling loss')"""
_HEADING = """before => { const h = [...document.querySelectorAll('h3')].map(e => e.innerText)
    .find(t => t.startsWith('Actual ')); return h !== before && h }"""
_PICTURES = """() => { const tiles = [...document.querySelectorAll('[data-testid="stImage"] img')];
    const none = document.body.innerText.includes('No images');
    const old = document.querySelector('[data-stale="true"] img');
    return none || tiles.length > 0 && tiles.every(e => e.complete) && !old }
"""


@contextmanager
def _server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    own = {"STEEL_DATA": str(folder), "STEEL_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.port", str(PORT),
               "--server.headless", "true"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for _ in range(240):
            try:
                urlopen(f"http://127.0.0.1:{PORT}/_stcore/health", timeout=5).read()
                break
            except OSError:
                time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
