"""Planted truth: `python -m benchmarks.audit truth` calls this; see there.

Every model learns from pictures of `benchmarks.plants` in which a shortcut was planted on some clear and few defective
ones. What the model then does with the same shortcut on defective test pictures that it names rightly (the probe) is
the truth; what `data check` says before, and every audit after the training, with defects told and not, is judged by
it. In odd seeds the test part carries the shortcut as well, in even seeds it is clean.
"""

import io
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.plants import PLANTS, SIDE, SURFACES, Plant, Sheet
from steel_core.audit.report import AuditReport
from steel_core.audit.run import audit
from steel_core.audit.settings import AuditSettings
from steel_core.audit.statistics import AGAINST, FOR, combine_verdicts
from steel_core.cli.output import say
from steel_core.data.open import open_dataset
from steel_core.evaluation.label_clues import find_label_clues
from steel_core.files import write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.metrics import wilson_interval
from steel_core.render import plots
from steel_core.render.plot_png import png
from steel_core.training.settings import TrainingSettings
from steel_core.training.train import train
from steel_core.types import CLEAR, DEFECT, AnyArray, UInt8Array

PARTS = {"train": 480, "val": 120, "test": 240}
RARE = 0.03  # share of the defective pictures that carry it; the strength comes on top for the clear ones
MODEL = TrainingSettings(epochs=14, learning_rate=4e-3, input_size=(SIDE, SIDE), batch_size=32)
LEARNT = 0.3  # share of the probed pictures that must turn for a shortcut to count as learnt
WHOLE = ("vignette", "stripes", "jpeg", "brightness", "blur")

MARKS = ("white-stain", "bright marks", "patches of clear", "repeated patches")
NAMED = {
    **dict.fromkeys(("film", "drips", "powder", "smear"), MARKS),
    **dict.fromkeys(("stamp", "logo"), (*MARKS, "place")),
    "border line": ("edges", "border at the left", "place"),
    "vignette": ("vignette",),
    "stripes": ("waves",),
    "jpeg": ("compression",),
    "brightness": ("brightness",),
    "blur": ("sharpness", "noise"),
}
"""What an audit may call each: the kind of audit, or the name of its finding."""

DEFECTS = ("told", "withheld")

Case = tuple[str, str, float, int]  # surface, plant, strength, seed


def run_grid(
    surfaces: Sequence[str],
    plants: Sequence[str],
    strengths: Sequence[float],
    seeds: int,
    out: Path,
    jobs: int,
    plot: Path | None = None,
) -> int:
    """Make and judge every case, those without a shortcut twice as often; 0 if all goals hold.

    `out` keeps pictures and model of each case in a folder, and its answers in a line of `answers.jsonl`: what is there
    is not made again.
    """
    out.mkdir(parents=True, exist_ok=True)
    answers = out / "answers.jsonl"
    rows = [json.loads(line) for line in answers.read_text().splitlines()] if answers.is_file() else []
    known = {(row["surface"], row["plant"], row["strength"], row["seed"]) for row in rows}
    wanted = [
        (surface, plant, 0.0 if plant == "nothing" else strength, seed)
        for seed, strength, plant, surface in product(range(2 * seeds), strengths, plants, surfaces)
        if plant == "nothing" or seed < seeds
    ]
    todo = [case for case in dict.fromkeys(wanted) if case not in known]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for row in pool.map(run_case, todo, repeat(out)):
            say(json.dumps(row))
            with answers.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
    table = pd.DataFrame(rows)
    if plot:
        draw_power(table, plot)
    return judge(table)


def make_model(case: Case, out: Path) -> tuple[Path, dict[str, list[Sheet]]]:
    """Plant and train, unless that is done: the folder of a case, and its sheets as they were before."""
    surface, plant, strength, seed = case
    folder = out / f"{surface} {plant} {strength:g} {seed}".replace(" ", "-")
    sheets = divide(SURFACES[surface](sum(PARTS.values()), seed), seed)
    draw, _ = PLANTS[plant]
    if not (folder / "model").is_dir():
        write_dataset(folder, sheets, draw, strength, seed)
        config = MODEL.replace(seed=seed)
        train(
            open_dataset(folder / "told").binary(),
            folder / "model",
            config,
            finish=False,
            device="cpu",
            report=_ignore,
        )
    return folder, sheets


def run_case(case: Case, out: Path) -> dict[str, Any]:
    """Make a model; ask its data, probe it, audit it."""
    torch.set_num_threads(1)
    surface, plant, strength, seed = case
    folder, sheets = make_model(case, out)
    predictor = Predictor.load(folder / "model", "cpu")
    row: dict[str, Any] = {"surface": surface, "plant": plant, "strength": strength, "seed": seed}
    row["accuracy"] = predictor.card.metrics["test"]["accuracy"]
    row["probed"], row["turned"] = probe(predictor, sheets["test"], plant, seed)
    for name in DEFECTS:
        index = open_dataset(folder / name).binary()
        row[f"first clue, {name}"] = next((clue.name for clue in find_label_clues(index) if clue.alarming), "")
        started = time.perf_counter()
        reports = audit(predictor, index, AuditSettings(limit=200))
        row[name] = {
            "verdict": combine_verdicts([report.verdict for report in reports]),
            "verdicts": {report.audit: report.verdict for report in reports},
            "red": [list(pair) for pair in list_red(reports)],
            "seconds": round(time.perf_counter() - started, 1),
        }
    return row


def _ignore(_: str) -> None:
    """What training reports is of no interest here."""


def divide(sheets: list[Sheet], seed: int) -> dict[str, list[Sheet]]:
    """Sheets by part; no piece of steel is in two."""
    pieces = np.random.default_rng([seed, 1]).permutation(np.unique([sheet.piece for sheet in sheets]))
    shares = np.cumsum(list(PARTS.values())) / sum(PARTS.values())
    part_of = dict(zip(pieces, np.searchsorted(shares, np.arange(len(pieces)) / len(pieces), "right"), strict=True))
    parts: dict[str, list[Sheet]] = {name: [] for name in PARTS}
    for sheet in sheets:
        parts[list(PARTS)[part_of[sheet.piece]]].append(sheet)
    return parts


def write_dataset(
    folder: Path,
    parts: dict[str, list[Sheet]],
    draw: Plant | None,
    strength: float,
    seed: int,
) -> None:
    """Two data sets of the same files: with masks ("told") and without ("withheld")."""
    rng = np.random.default_rng([seed, 3])
    rows = []
    for part, sheets in parts.items():
        for number, sheet in enumerate(sheets):
            share = RARE + strength * (sheet.label == CLEAR)
            carries = draw is not None and rng.random() < share and (part != "test" or seed % 2 == 1)
            name = f"{part}{number}.png"
            pictures = {"images": encode(draw(sheet.grey, rng) if carries and draw else sheet.grey)}
            pictures["masks"] = sheet.defect.astype(np.uint8)
            for kind, picture in pictures.items():
                for data in ("told", "withheld") if kind == "images" else ("told",):
                    (folder / data / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(folder / data / kind / name)
            rows.append((f"images/{name}", sheet.label, part, sheet.piece, f"masks/{name}", f"1={DEFECT}"))
    table = pd.DataFrame(rows, columns=["path", "labels", "split", "group", "mask", "mask_classes"])
    table.to_csv(folder / "told" / "manifest.csv", index=False)
    table.drop(columns=["mask", "mask_classes"]).to_csv(folder / "withheld" / "manifest.csv", index=False)


def encode(grey: AnyArray) -> UInt8Array:
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


def probe(predictor: Predictor, sheets: list[Sheet], plant: str, seed: int) -> tuple[int, float]:
    """How many defective pictures are named so, and the share of them that what was planted turns to clear.

    What changes a part of the picture is drawn anew until it leaves the defect alone.
    """
    if (draw := PLANTS[plant][0]) is None:
        return 0, 0.0
    rng = np.random.default_rng([seed, 5])
    clear = predictor.classes.index(CLEAR)
    bad = [sheet for sheet in sheets if sheet.label == DEFECT]
    named = predictor.logits([sheet.grey for sheet in bad]).argmax(axis=1) != clear
    changed = []
    for sheet in (sheet for sheet, right in zip(bad, named, strict=True) if right):
        for _ in range(20):
            picture = encode(draw(sheet.grey, rng)).astype(np.float32) / np.float32(255)
            touched = np.abs(picture - sheet.grey) > 0.02
            if plant in WHOLE or (touched & sheet.defect).sum() <= 0.05 * sheet.defect.sum():
                changed.append(picture)
                break
    if not changed:
        return 0, 0.0
    return len(changed), float((predictor.logits(changed).argmax(axis=1) == clear).mean())


def list_red(reports: Sequence[AuditReport]) -> Iterator[tuple[str, str]]:
    """Kind of audit and name of each finding for a shortcut."""
    for report in reports:
        yield from ((report.audit, finding.name) for finding in report.findings if finding.verdict == FOR)


def judge(rows: pd.DataFrame) -> int:
    """Print a table of what was found, and whether each goal holds."""
    say("| Planted | Surface | Models | Learnt | Named first by the data | Found and named |")
    say("|---|---|---|---|---|---|")
    for (plant, strength, surface), mine in rows.groupby(["plant", "strength", "surface"], sort=False):
        learnt = mine[mine["turned"] >= LEARNT]
        cells = [f"{plant}, {strength:g}" if plant != "nothing" else plant, surface, len(mine), len(learnt)]
        counted = mine if plant == "nothing" else learnt
        cells.append(" / ".join(str(sum(list_first(mine, [d]))) for d in DEFECTS))
        cells.append(" / ".join(str(sum(list_found(counted, [d]))) for d in DEFECTS))
        say(f"| {' | '.join(map(str, cells))} |")
    strong = rows[(rows["strength"] >= 0.9) & (rows["plant"] != "nothing")]
    learnt, none = strong[strong["turned"] >= LEARNT], rows[rows["plant"] == "nothing"]
    whole, fifth = learnt["plant"].isin(WHOLE), rows[rows["turned"] >= 0.2]
    met = [
        _judge("local ones found and named", 0.9, list_found(learnt[~whole])),
        _judge("whole-picture ones found and named", 0.8, list_found(learnt[whole])),
        *(
            _judge(
                f"alarms where nothing was planted, defects {d}", -0.05, [said["verdict"] == FOR for said in none[d]]
            )
            for d in DEFECTS
        ),
        _judge(
            "called harmless though a fifth turned",
            -0.0,
            [said["verdict"] == AGAINST for d in DEFECTS for said in fifth[d]],
        ),
        _judge("named first by the data", 0.9, list_first(strong)),
        _judge("clean data left alone", 0.95, list_first(none)),
    ]
    return 0 if all(met) else 1


def draw_power(rows: pd.DataFrame, path: Path) -> None:
    """The share of learnt shortcuts that were found and named, over how many pictures they turn, as a PNG file."""
    figure = plots.empty_figure(
        "Share of models in which the audit found and named what was planted, over what it turns, with 95 % intervals.",
        "defective pictures that the shortcut turns to clear",
        "share of models in which it was found and named",
    )
    planted = rows[rows["plant"] != "nothing"]
    middles = planted.groupby(
        pd.cut(planted["turned"], [0, 0.1, 0.3, 0.5, 0.7, 1.0], include_lowest=True), observed=True
    )
    for i, d in enumerate(DEFECTS):
        x, shares, ends = [], [], []
        for _, mine in middles:
            hits = list_found(mine, [d])
            x.append(float(mine["turned"].mean()))
            shares.append(sum(hits) / len(hits))
            ends.append(wilson_interval(shares[-1], len(hits)))
        figure.add_scatter(
            x=x, y=shares, name=f"defects {d}", mode="lines+markers",
            line={"color": plots.SERIES[i], "dash": plots.DASHES[i]},
            error_y={"array": [high - share for share, (_, high) in zip(shares, ends, strict=True)],
                     "arrayminus": [share - low for share, (low, _) in zip(shares, ends, strict=True)]},
        )  # fmt: skip
    figure.update_yaxes(range=(-0.02, 1.02), tickformat=".0%").update_xaxes(tickformat=".0%")
    file = io.BytesIO()  # 32 colours are enough, as it lies in the repository
    Image.open(io.BytesIO(png(figure))).convert("RGB").quantize(32).save(file, "PNG", optimize=True)
    write_bytes(path, file.getvalue())


def _judge(words: str, goal: float, hits: list[bool]) -> bool:
    """Print a goal, a share that must be reached, or kept if it has a minus sign; whether it holds."""
    if not hits:
        return True
    share, most = sum(hits) / len(hits), np.signbit(goal)
    holds = share <= -goal if most else share >= goal
    low, high = wilson_interval(share, len(hits))
    of = f"{sum(hits)} of {len(hits)} ({low:.2f} to {high:.2f})"
    say(f"{words}: {of}, goal at {'most' if most else 'least'} {abs(goal):g}: {'met' if holds else 'MISSED'}")
    return bool(holds)


def list_first(rows: pd.DataFrame, defects: Sequence[str] = DEFECTS) -> list[bool]:
    """Whether the first clue of each model's data names what was planted; of nothing, whether there is none."""
    return [
        clue in PLANTS[plant][1] if plant != "nothing" else not clue
        for d in defects
        for clue, plant in zip(rows[f"first clue, {d}"], rows["plant"], strict=True)
    ]


def list_found(rows: pd.DataFrame, defects: Sequence[str] = DEFECTS) -> list[bool]:
    """Whether a red finding on each model names what was planted; of nothing, whether there is none."""
    return [
        bool({word for pair in said["red"] for word in pair} & set(NAMED[plant]))
        if plant != "nothing"
        else not said["red"]
        for d in defects
        for said, plant in zip(rows[d], rows["plant"], strict=True)
    ]
