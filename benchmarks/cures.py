"""Does the cure cure? `python -m benchmarks.audit cure` calls this; see there."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.plants import PLANTS
from benchmarks.truth import make_model, probe
from steel_core.audit.cure import COSTS, FALLS, cure
from steel_core.audit.settings import CureSettings
from steel_core.cli.output import say
from steel_core.data.open import open_dataset
from steel_core.inference.predictor import Predictor


def run_cures(surfaces: Sequence[str], plants: Sequence[str], strengths: Sequence[float], seeds: int, out: Path) -> int:
    """Cure models that learnt what was planted, and probe them before and after with what was planted, drawn anew.

    0 if each probe falls to a tenth at no cost in balanced accuracy, or the ledger says that the cure failed.
    """
    say("| Planted | Surface | Seed | Turned before | after | Balanced accuracy before | after | The ledger | Goal |")
    say("|---|---|---|---|---|---|---|---|---|")
    met = True
    drawn = [plant for plant in plants if PLANTS[plant][0]]
    for seed, strength, plant, surface in product(range(seeds), strengths, drawn, surfaces):
        folder, sheets = make_model((surface, plant, strength, seed), out)
        ledger = cure(
            folder / "model",
            open_dataset(folder / "told").binary(),
            folder / "cured",
            CureSettings(seed=seed),
            scale_maps=False,
            device="cpu",
            report=lambda _: None,
        )
        turned = [
            probe(Predictor.load(folder / name, "cpu"), sheets["test"], plant, seed) for name in ("model", "cured")
        ]
        balanced = [side.balanced_accuracy for side in (ledger.before, ledger.after)]
        holds = turned[1][1] <= turned[0][1] / FALLS and balanced[1] >= balanced[0] - COSTS
        met &= holds or bool(ledger.failure)
        cells = [f"{share:.0%} of {n}" for n, share in turned] + [f"{value:.3f}" for value in balanced]
        verdict = "reached" if holds else "failed, and said so" if ledger.failure else "MISSED"
        say(f"| {plant} | {surface} | {seed} | {' | '.join(cells)} | {ledger.failure or 'cured'} | {verdict} |")
    return 0 if met else 1
