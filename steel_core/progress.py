"""How long work tells how far it is: one kind of function for all of it."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Receives one line about the course of some work."""

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is done, and of how much. What it raises ends the work."""


def no_progress(what: str, done: int, of: int, /) -> None:
    """Nobody asked."""


def within(progress: Progress, where: str) -> Progress:
    """The progress of one part of a larger work: what it does is told after `where`."""
    return lambda what, done, of: progress(f"{where}: {what}", done, of)
