"""Choice of the device, thread and memory settings, seeds."""

import ctypes
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import chain, islice
from threading import Thread
from typing import TypeVar

import numpy as np
import torch

from steel_core.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_OWN_BLOCK_BYTES = 1 << 25  # the largest that glibc accepts; larger blocks go back to the kernel
_KEEP_BYTES = 1 << 30  # of free memory at the end of the heap, where the layers of a batch come and go


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


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """What `work` makes of each item, in order; on a CPU one item a core, where torch would share each among the cores.

    The operators of a small network are too short to be shared: two cores do a fifth more so. Items are drawn as cores
    get free. What `work` raises is raised here, and items that nobody began are dropped.
    """
    cores, pending = torch.get_num_threads(), iter(items)
    first = list(islice(pending, 2))
    if device.type != "cpu" or cores == 1 or len(first) < 2:
        yield from map(work, chain(first, pending))
        return
    workers = ThreadPoolExecutor(cores, "one-core", _settle_on_one_core, (cores,))
    begun: deque[Future[Result]] = deque()
    try:
        for item in chain(first, pending):
            begun.append(workers.submit(work, item))
            if len(begun) == 2 * cores:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        workers.shutdown(cancel_futures=True)


def _settle_on_one_core(cores: int) -> None:
    """Let operators of the calling thread run on one core, and those of threads that begin later on all of them."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # the thread reads the setting when first asked, and keeps it
    other = Thread(target=torch.set_num_threads, args=(cores,))
    other.start()
    other.join()


@cache
def tune_memory() -> None:
    """Let glibc, if it is there, keep freed memory instead of giving it back to the kernel after every layer.

    Unset, a forward pass of 32 images takes 39,000 page faults. Up to 1 GB that was used once stays with the process.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
