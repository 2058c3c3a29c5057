"""What the benchmarks share: steps timed in turn, what they took, what a process holds."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def find_real_data() -> Path:
    """Where real images lie, if anywhere: `$STEEL_DATA`, or the folder beside the project."""
    return Path(os.environ.get("STEEL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def time_call(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, until the GPU, where there is one, has done its part; and what the call gave."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def time_in_turn(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step in each round: in turn, so that a busy machine slows all, after one round for warmth.

    A `float` that a step gives is what it took elsewhere.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, work in steps.items():
            here, given = time_call(work)
            if turn:
                seconds[name].append(given if isinstance(given, float) else here)
    return seconds


def take_medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: median(each) for name, each in seconds.items()}


def judge(kept: bool) -> str:
    return "kept" if kept else "MISSED"


def resident_megabytes(kind: str, pid: int | str = "self") -> float:
    """Memory of a process: all ("VmRSS"), or without what lies on the disk as well ("RssAnon"). Linux alone."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024 / 1e6


def forward_backward(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    """FB: the gradient of the highest logits by autograd, and nothing else."""
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).max(dim=1).values.sum(), leaf)[0]
