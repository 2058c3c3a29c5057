"""Choice of the device, thread and memory settings, seeds."""

from __future__ import annotations

import ctypes
import random
import sys
from functools import cache

import numpy as np
import torch

from steel_core.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEEP_BYTES = 1 << 25  # the largest that glibc accepts as threshold; larger blocks go back to the kernel


def choose_device(wanted: str = "auto") -> torch.device:
    """The device to run on: CUDA, then Apple's MPS, then the CPU; or the one that is named.

    Raises:
        UsageError: the name is unknown, or that device is not here.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or not present.get(device.type, False):
        raise UsageError(f"device {wanted!r}: expected auto or one of {', '.join(k for k, v in present.items() if v)}")
    return device


def batch_size(device: torch.device) -> int:
    """Images in a batch that suit the device: caches on a CPU, occupancy on a GPU."""
    return 8 if device.type == "cpu" else 128


@cache
def tune_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel after every layer.

    Unset, a forward pass of 32 images takes 39,000 page faults. Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
