"""Workers: something made step by step beside the page, for as long as a page asks for it."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

_FORGOTTEN = 15.0  # seconds after which a map that no page asks for is given up


class Job(Generic[T]):
    """Something that a worker makes, step by step, for as long as a page asks for it."""

    def __init__(self, steps: Callable[[], Iterable[T]]) -> None:
        self._steps = steps
        self._latest: T | None = None
        self._first = threading.Event()
        self._given_up = False
        self._asked = time.monotonic()
        self._future: Future[None] = workers().submit(self._work)

    def look(self, patience: float) -> tuple[T | None, bool, bool]:
        """What there is after waiting up to `patience` seconds for a first step; whether it is done; whether it waits.

        Raises:
            SteelError: as the steps raised it.
        """
        self._asked = time.monotonic()
        if self._future.done() and self._given_up:
            self._given_up = False
            self._future = workers().submit(self._work)
        self._first.wait(patience)
        done = self._future.done() and not self._given_up
        if done:
            self._future.result()  # raises what the worker met
        return self._latest, done, not done and not self._future.running()

    def give_up(self) -> None:
        """Stop at the next step."""
        self._asked = -math.inf
        self._future.cancel()

    def _work(self) -> None:
        try:
            for found in self._steps():
                self._latest = found
                self._first.set()
                if time.monotonic() - self._asked > _FORGOTTEN:
                    self._given_up = True
                    return
        finally:
            self._first.set()


@functools.cache
def workers() -> ThreadPoolExecutor:
    """The threads that make maps."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="maps")


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody cancelled the work."""
