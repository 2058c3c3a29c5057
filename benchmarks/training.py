"""What training promises: `python -m benchmarks.training [speed|memory|kills]`, all unless one is named.

speed: an epoch of the recipe (variations, optimiser, averaged weights, schedule, the state it writes) against a bare
loop of the same forward and backward passes on images that lie ready, in turn; promised at least 0.85 of its pace. In
the same turns, the making of its batches alone (images chosen, moved, varied and normalised, for which the network
waits), promised at most 0.1 of the epoch. How far from the limit of the processor: the operations a second of its
forward and backward passes, as a share of those of a product of two large matrices in the same precision.

memory: what is in use after the second and after the last of 30 epochs, promised to grow by at most 1 %, and what the
process holds then, by at most 10 %: blocks that glibc keeps free lie between others, and more of them do in time. Then
what the process holds for itself while it learns from 512 images of 512, and from 512 of as many as take 4.3 GB;
promised to be at most 10 % more, because they lie on the disk. Linux alone.

kills: a training is killed at a random moment and called again, until it was killed 20 times; what comes out must have
the weights of a run that nobody disturbed, bit for bit on the CPU, and no checkpoint may be found that does not load.

Exits with 1 where a promise is missed.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import judge, resident_megabytes, time_call, time_in_turn
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.data.transforms import Preprocessing
from steel_core.device import choose_device, tune_memory
from steel_core.models.checkpoint import load_checkpoint
from steel_core.training.fit import Fit, has_bfloat16, run_fit
from steel_core.training.images import ImageTable, read_images
from steel_core.training.new_model import new_model
from steel_core.training.settings import TrainingSettings
from steel_core.types import Float64Array

PACE, WAITING, TURNS, SIDE, IMAGES = 0.85, 0.1, 9, 200, 512
IN_USE, HELD, EPOCHS, MANY = 1.01, 1.10, 30, 54_000
SPED = ("efficientnet-lite-reduced", "squeezenet-reduced", "resnet18")
KILLS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["speed", "memory", "kills"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kept = []
    with tempfile.TemporaryDirectory() as scratch:
        if args.what in (None, "memory"):  # first, while the process holds nothing else
            kept.append(_memory(args.device, Path(scratch)))
        if args.what in (None, "speed"):
            kept += [_speed(name, args.device, Path(scratch)) for name in SPED]
        if args.what in (None, "kills"):
            kept.append(_kills(args.kills, args.seed, Path(scratch)))
    return 0 if all(kept) else 1


def _fit_of(backbone: str, epochs: int, device: str) -> tuple[Fit, Tensor, Tensor]:
    """A fit to noise, and the positions of the images to train and to validate on."""
    tune_memory()
    config = TrainingSettings(backbone=backbone, epochs=epochs, learning_rate=1e-3)
    rng = torch.Generator().manual_seed(0)
    table = ImageTable(
        torch.rand(IMAGES + 8, 1, SIDE, SIDE, generator=rng).half(), torch.arange(IMAGES + 8) % 6,
        np.arange(IMAGES + 8), ("",) * (IMAGES + 8), (),
    )  # fmt: skip
    fit = Fit(new_model(config, 6), table, Preprocessing((SIDE, SIDE), 0.5, 0.3), config, choose_device(device))
    return fit, torch.arange(IMAGES), IMAGES + torch.arange(8)


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = (
        ("before", ctypes.c_size_t * 4), ("hblkhd", ctypes.c_size_t), ("between", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t), ("after", ctypes.c_size_t * 2),
    )  # fmt: skip


def _memory(device: str, scratch: Path) -> bool:
    mallinfo2 = ctypes.CDLL("libc.so.6").mallinfo2
    mallinfo2.restype = _Heap
    fit, rows, val = _fit_of("squeezenet-reduced", EPOCHS, device)
    fit.config = fit.config.replace(patience=EPOCHS)
    used: list[float] = []
    held: list[float] = []

    def look(history: list[dict[str, float]], best: int, logits: Float64Array) -> bool:  # noqa: ARG001
        heap = mallinfo2()
        used.append((heap.uordblks + heap.hblkhd) / 1e6)
        held.append(resident_megabytes("VmRSS"))
        return False

    run_fit(fit, rows, val, 1e-3, scratch / "memory.pt", lambda _: None, lambda *_: None, look)
    kept = [
        _grown(f"memory {what} after epochs 2 and {EPOCHS}", seen[1], seen[-1], promised)
        for what, seen, promised in (("in use", used, IN_USE), ("held", held, HELD))
    ]

    write_sheets(StripMill(size=(SIDE, SIDE), seed=5), 100, scratch / "few")
    os.environ["STEEL_CACHE"] = str(scratch)
    index = open_dataset(scratch / "few")
    peaks = []
    for n in (IMAGES, MANY):
        table = read_images(index.select(rows=np.arange(n) % 100), (SIDE, SIDE), lambda *_: None)
        fit.table = replace(table, labels=table.labels % 6)
        fit.config = fit.config.replace(epochs=2)
        few, own = torch.randperm(n)[:IMAGES], [0.0]
        (scratch / "memory.pt").unlink()
        run_fit(
            fit, few, few[:8], 1e-3, scratch / "memory.pt", lambda _: None,
            lambda *_, own=own: own.append(resident_megabytes("RssAnon")),
        )  # fmt: skip
        peaks.append(max(own))
    what = f"its own memory while it learns from {IMAGES} images of {IMAGES} and of {MANY:,}"
    return all([*kept, _grown(what, *peaks, HELD)])


def _grown(what: str, before: float, after: float, promised: float) -> bool:
    kept = after <= promised * before
    print(
        f"{what}: {before:.0f} and {after:.0f} MB, {after / before:.3f} times, promised at most {promised}: "
        f"{judge(kept)}",
        flush=True,
    )
    return kept


def _speed(backbone: str, name: str, scratch: Path) -> bool:
    fit, rows, val = _fit_of(backbone, 1, name)
    model, device = fit.model, fit.device
    chosen = rows.split(fit.config.batch_size)
    ready = [fit.batch(positions) for positions in chosen]

    def bare() -> None:
        model.train()
        for images, labels in ready:
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
                logits = model(images)
            F.cross_entropy(logits.float(), labels).backward()
            model.zero_grad(set_to_none=True)

    def recipe() -> None:
        state = scratch / "state.pt"
        state.unlink(missing_ok=True)
        run_fit(fit, rows, val, 1e-3, state, lambda _: None, lambda *_: None)

    def batches() -> None:
        for positions in chosen:
            fit.batch(positions)

    seconds = time_in_turn({"bare": bare, "recipe": recipe, "batches": batches}, TURNS)
    with FlopCounterMode(display=False) as counted:
        bare()
    share = counted.get_total_flops() / min(seconds["recipe"]) / _operations_a_second(device)
    pace, waiting = (float(np.median(np.divide(seconds[kind], seconds["recipe"]))) for kind in ("bare", "batches"))
    print(
        f"speed, {backbone} on {device.type}: {IMAGES / min(seconds['recipe']):.0f} images a second, "
        f"{share:.2f} of the operations a second that a product of matrices reaches; "
        f"{pace:.2f} of the pace of a bare loop, promised {PACE}: {judge(pace >= PACE)}; "
        f"{waiting:.2f} of an epoch is spent on batches, promised at most {WAITING}: {judge(waiting <= WAITING)}",
        flush=True,
    )
    return pace >= PACE and waiting <= WAITING


def _operations_a_second(device: torch.device, side: int = 4096) -> float:
    kind = torch.bfloat16 if has_bfloat16(device) else torch.float32
    one = torch.rand(side, side, device=device, dtype=kind)

    def multiply() -> None:
        float((one @ one)[0, 0])  # waits for the device

    return 2 * side**3 / min(time_call(multiply)[0] for _ in range(TURNS))


def _kills(wanted: int, seed: int, scratch: Path) -> bool:
    write_sheets(StripMill(size=(48, 48), seed=5, clear_share=0.5), 80, scratch / "sheets")
    whole, _ = time_call(_start(scratch, "undisturbed").wait)
    expected = load_checkpoint(scratch / "undisturbed").card.weights_sha256
    rng = np.random.default_rng(seed)
    kills = ends = wrong = 0
    while kills < wanted or not ends:
        process = _start(scratch, f"disturbed-{ends}")
        try:
            process.wait(rng.uniform(0.2, 1.0) * whole if kills < wanted else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        out = scratch / f"disturbed-{ends}"
        if (out / "card.json").exists():  # what stands there must load, whenever it was killed
            wrong += load_checkpoint(out).card.weights_sha256 != expected
            ends += 1
    print(
        f"kills: {kills} kills at random moments, {ends} runs that ended, {wrong} with other weights than undisturbed: "
        f"{judge(not wrong)}",
        flush=True,
    )
    return not wrong


def _start(scratch: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "steel_core", "train", "--data", str(scratch / "sheets"), "--binary"]
    command += ["--out", str(scratch / out), "--backbone", "small-cnn", "--epochs", "8", "--learning-rate", "1e-3"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


if __name__ == "__main__":
    sys.exit(main())
