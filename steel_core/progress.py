"""How long work tells how far it is: one kind of function for all of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
"""Receives one line about the course of some work."""

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is done, and of how much. What it raises ends the work."""


def no_progress(what: str, done: int, of: int, /) -> None:
    """Nobody asked."""


def within(progress: Progress, where: str) -> Progress:
    """The progress of one part of a larger work: what it does is told after `where`."""
    return lambda what, done, of: progress(f"{where}: {what}", done, of)


class Stages:
    """The stages of long work: each is announced when it begins, and its seconds are kept when it ends."""

    def __init__(self, report: Say) -> None:
        self._report = report
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._report(f"{name} …")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)

    @property
    def summary(self) -> str:
        """One line for people."""
        return "seconds: " + ", ".join(f"{name} {taken:.0f}" for name, taken in self.seconds.items())
