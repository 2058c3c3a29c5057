"""Work beside the pages: one board for all that goes on when its page is left, and what is refined while it is seen."""

import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import streamlit as st

from steel_core.progress import Progress

T = TypeVar("T")

_NUMBERS = itertools.count()
_FORGOTTEN = 15.0  # seconds after which a map that no page asks for is given up


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody cancelled the work."""


class Job(Generic[T]):
    """Long work that goes on when its page is left, counts what is `done` of each `stage`, and can be stopped.

    Works of one queue wait for each other. `about` is what a page says of it.
    """

    def __init__(self, queue: str, work: Callable[[Progress], T], about: Any = None) -> None:
        self.about = about
        self.number = next(_NUMBERS)
        self.stage, self.done, self.total = "waiting for other work", 0, 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self.future: Future[T] = _long_worker(queue).submit(work, self._count)

    @property
    def seconds_left(self) -> float | None:
        """Of this stage, judged by what is done of it; None before its first step."""
        spent = time.monotonic() - self._began
        return spent / self.done * (self.total - self.done) if self.done and self.total else None

    @property
    def at_work(self) -> bool:
        """Whether it waits or works: it has neither ended nor was it stopped."""
        return not (self.stopped or self.future.done())

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def failed(self) -> bool:
        """Whether it ended without a result, though nobody stopped it."""
        return not self.stopped and self.future.done() and self.future.exception() is not None

    def cancel(self) -> None:
        """Stop at the next step."""
        self._stop.set()
        self.future.cancel()

    def _count(self, stage: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        if stage != self.stage:
            self._began = time.monotonic()
        self.stage, self.done, self.total = stage, done, total


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of long work; works of one `queue` wait for each other.

    Of more than `kept`, those go first that no page asked for the longest; if `abandoned`, unfinished ones, too.
    """

    name: str
    queue: str
    kept: int = 8
    abandoned: bool = False


class JobBoard:
    """All long work of this server, by kind and key; every session sees the same."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, Hashable], Job[Any]] = {}
        self._lock = threading.Lock()

    def start(self, kind: Kind[T], key: Hashable, work: Callable[[Progress], T], about: Any = None) -> Job[T]:
        """Let a worker do it, unless one is at it."""
        with self._lock:
            job = self._jobs.pop((kind.name, key), None)
            if job is None or not job.at_work:
                job = Job(kind.queue, work, about)
            self._jobs[kind.name, key] = job
            self._clear(kind)
            return job

    def get(self, kind: Kind[T], key: Hashable) -> Job[T] | None:
        """The work of this key: waiting, at work, stopped, failed or finished; None if there is none any more."""
        with self._lock:
            job = self._jobs.pop((kind.name, key), None)
            if job:
                self._jobs[kind.name, key] = job  # the last one: it was asked for now
            return job

    def running(self, kind: Kind[T]) -> list[Job[T]]:
        """All that waits or works, in the order in which it was asked for."""
        with self._lock:
            jobs = [job for (name, _), job in self._jobs.items() if name == kind.name and job.at_work]
        return sorted(jobs, key=lambda job: job.number)

    def forget(self, kind: Kind[Any], key: Hashable) -> None:
        """Take it off, so that it can be started anew."""
        with self._lock:
            self._jobs.pop((kind.name, key), None)

    def _clear(self, kind: Kind[Any]) -> None:
        mine = [place for place in self._jobs if place[0] == kind.name]
        endings = [place for place in mine[:-1] if kind.abandoned or not self._jobs[place].at_work]
        for place in endings[: max(0, len(mine) - kind.kept)]:
            job = self._jobs.pop(place)
            if job.at_work:
                job.cancel()


@st.cache_resource(show_spinner=False)
def board() -> JobBoard:
    return JobBoard()


class RefinementState(NamedTuple, Generic[T]):
    """How far something has come that is made in steps; `waiting` if others must be finished before its turn.

    `latest` is rough until it is `done`; None where there is none yet.
    """

    latest: T | None
    done: bool
    waiting: bool = False


class Refinement(Generic[T]):
    """Something that a worker makes, step by step, for as long as a page asks for it."""

    def __init__(self, steps: Callable[[], Iterable[T]]) -> None:
        self._steps = steps
        self._latest: T | None = None
        self._first = threading.Event()
        self._given_up = False
        self._asked = time.monotonic()
        self._future: Future[None] = map_workers().submit(self._work)

    def look(self, patience: float) -> RefinementState[T]:
        """What there is after waiting up to `patience` seconds for a first step; raises as the steps did."""
        self._asked = time.monotonic()
        if self._future.done() and self._given_up:
            self._given_up = False
            self._future = map_workers().submit(self._work)
        self._first.wait(patience)
        done = self._future.done() and not self._given_up
        if done:
            self._future.result()  # raises what the worker met
        return RefinementState(self._latest, done, not done and not self._future.running())

    def give_up(self) -> None:
        self._asked = -math.inf
        self._future.cancel()

    def _work(self) -> None:
        try:
            for step in self._steps():
                self._latest = step
                self._first.set()
                if time.monotonic() - self._asked > _FORGOTTEN:
                    self._given_up = True
                    return
        finally:
            self._first.set()


@functools.cache
def _long_worker(queue: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=queue)


@functools.cache
def map_workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="maps")
