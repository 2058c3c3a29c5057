"""Is the audit right, and is it fast?

`python -m benchmarks.audit truth --out FOLDER [--seeds N] [--strengths 0.25,0.5,0.9] [--plot FILE]` plants shortcuts,
trains, asks the data, probes each model, audits it, and judges all of it by its goals in docs/audit.md.
A run that was stopped goes on with the same folder. Crops of NEU are left out where neither `$STEEL_DATA` nor
`../shared/data` has `neu-cls`. `--plot` draws the share that is found over the strength. Exits with 1 where a goal is
missed.

`python -m benchmarks.audit cure --out FOLDER [--plants film,drips] [--seeds 1]` cures models of that folder, and probes
them before and after. Exits with 1 where a cure fails and its ledger does not say so.

`python -m benchmarks.audit coverage` simulates 1,000 audits of each kind of data whose truth is known, and exits with 1
where the intervals cover fewer than 93 or more than 97 %.

`python -m benchmarks.audit speed` times all audits of 150 images against their goal.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import time_call
from benchmarks.cures import run_cures
from benchmarks.plants import PLANTS, SURFACES
from benchmarks.truth import run_grid
from steel_core.audit.run import audit
from steel_core.audit.settings import AuditSettings
from steel_core.audit.statistics import AGAINST, FOR, decide_verdicts, estimate_effect
from steel_core.cli.output import say
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.inference.predictor import Predictor

RUNS = 1000
BORDER = "at what is tolerated"
SIZES = {"150 alone": [1] * 150, "50 groups of 3": [3] * 50, "one holds half of 150": [75] + [1] * 75}
RATES = {
    "one control": (0.3, [0.1]),
    "five controls alike": (0.3, [0.1] * 5),
    "one of five is strong": (0.3, [0.2, 0.05, 0.05, 0.02, 0.02]),
    "two of five are near": (0.4, [0.2, 0.18, 0.05, 0.05, 0.05]),
    BORDER: (0.15, [0.1, 0.05, 0.05, 0.05, 0.05]),
}
GOAL = 120  # seconds for all audits of 150 images on 2 cores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["truth", "cure", "coverage", "speed"])
    parser.add_argument("--out", type=Path, help="truth, cure: where pictures, models and answers are kept")
    parser.add_argument("--surfaces", default=",".join(SURFACES), help="truth: where the shortcuts are planted")
    parser.add_argument("--plants", default=",".join(PLANTS), help="truth: what is planted")
    parser.add_argument("--strengths", default="0.9")
    parser.add_argument("--seeds", type=int, default=5, help="truth: twice as many where nothing is planted")
    parser.add_argument("--jobs", type=int, default=2, help="truth: models at a time")
    parser.add_argument("--plot", type=Path, help="truth: the power curve as a PNG file")
    parser.add_argument("--checkpoint", default="strip-mill")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "speed":
        return time_audits(args.checkpoint)
    if args.what == "coverage":
        return measure_coverage()
    if args.out is None:
        parser.error(f"{args.what} needs --out FOLDER")
    strengths = [float(strength) for strength in args.strengths.split(",")]
    surfaces, plants = args.surfaces.split(","), args.plants.split(",")
    if args.what == "cure":
        return run_cures(surfaces, plants, strengths, args.seeds, args.out)
    return run_grid(surfaces, plants, strengths, args.seeds, args.out, args.jobs, args.plot)


def measure_coverage() -> int:
    """How often the interval of an excess holds it, and what is decided: a table for docs/statistics.md."""
    say("| Images | Groups flip | Flip rates | Covered | Bias | For | Against |")
    say("|---|---|---|---|---|---|---|")
    met = True
    for (images, sizes), (rates, (change, controls)), together in product(SIZES.items(), RATES.items(), (True, False)):
        if together and max(sizes) == 1:
            continue  # alone is alone
        truth, rng = change - max(controls), np.random.default_rng(20261201)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        held, bias, said = 0, 0.0, []
        for _ in range(RUNS):
            luck = rng.random((len(sizes), 1 + len(controls)))[groups]
            luck = luck if together else rng.random(luck.shape)
            turned = luck < [change, *controls]
            named = {f"c{k}": turned[:, 1 + k] for k in range(len(controls))}
            effect = estimate_effect(turned[:, 0], named, groups)
            held += effect.interval[0] <= truth <= effect.interval[1]
            bias += ((effect.excess or 0.0) - truth) / RUNS
            said += decide_verdicts([effect], 0.05)[0]
        if rates == BORDER:  # rare flips: here the two wrong answers are judged, 2.5 % of each and 3 standard errors
            met &= max(said.count(FOR), said.count(AGAINST)) <= 0.04 * RUNS and held >= 0.93 * RUNS
        else:
            met &= 0.93 <= held / RUNS <= 0.97
        whole = "-" if max(sizes) == 1 else "together" if together else "each by itself"
        shares = (f"{said.count(verdict) / RUNS:.3f}" for verdict in (FOR, AGAINST))
        say(f"| {images} | {whole} | {rates} | {held / RUNS:.3f} | {bias:+.3f} | {' | '.join(shares)} |")
    say(f"goal: 93 to 97 % in each, at the border at most 4 % of either answer: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def time_audits(checkpoint: str) -> int:
    """All audits of 150 images, and the bare forward pass of as many, in turn."""
    predictor = Predictor.load(checkpoint, "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "sheets"
        mill = StripMill(size=predictor.card.input_size, seed=5, clear_share=0.5, stained_clear=0.3)
        write_sheets(mill, 450, folder)
        index = open_dataset(folder).binary()
        grids = [predictor.card.preprocessing.to_grid(index.image(i))[0] for i in range(150)]
        bare, _ = time_call(lambda: predictor.logits(grids))
        seconds, reports = time_call(lambda: audit(predictor, index, AuditSettings(limit=150)))
    met = seconds <= GOAL
    say(
        f"{', '.join(report.audit for report in reports)} of {reports[0].images} images, {torch.get_num_threads()} "
        f"threads: {seconds:.0f} s (goal {GOAL} s), {seconds / bare:.0f} x a forward pass of them: "
        f"{'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
