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

Count = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

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


class Task(Generic[T]):
    """Long work that goes on when its page is left, counts what is done, and can be stopped.

    Args:
        queue: works of one queue wait for each other.
        make: the work; it tells what it is given how far it is.

    Attributes:
        stage: what is being done.
        done: how much of it.
        total: and of how much.
        made: gives the result.
    """

    def __init__(self, queue: str, make: Callable[[Count], T]) -> None:
        self.stage, self.done, self.total = "waiting for other work", 0, 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self.made: Future[T] = _long_worker(queue).submit(make, self._count)

    @property
    def seconds_left(self) -> float | None:
        """Of this stage, judged by what is done of it; None before its first step."""
        spent = time.monotonic() - self._began
        return spent / self.done * (self.total - self.done) if self.done and self.total else None

    @property
    def at_work(self) -> bool:
        """Whether it waits or works: it is neither finished nor stopped."""
        return not (self.stopped or self.made.done())

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Stop at the next step."""
        self._stop.set()
        self.made.cancel()

    def _count(self, stage: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        if stage != self.stage:
            self._began = time.monotonic()
        self.stage, self.done, self.total = stage, done, total


@functools.cache
def _long_worker(queue: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=queue)


@functools.cache
def workers() -> ThreadPoolExecutor:
    """The threads that make maps."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="maps")


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody cancelled the work."""
