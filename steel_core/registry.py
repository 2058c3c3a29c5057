"""A registry of plug-ins: explicit lower-case names, a collision raises.

A broken plug-in of this library raises when it is discovered. One of another package is left out with a warning.
"""

import importlib
import logging
import pkgutil
import re
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from steel_core.errors import UsageError

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class NameTakenError(UsageError, ValueError):
    """Two plug-ins have the same name."""


class Registry(Generic[T]):
    """Maps a name to a plug-in: a module of one package or of others' entry points, imported at the first look-up."""

    def __init__(self, kind: str, package: str, group: str = "") -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._entries: dict[str, T] = {}
        self._families: dict[str, Callable[[str], T]] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a plug-in under `name` (lower case, digits and hyphens).

        Raises:
            ValueError: the name is malformed.
            NameTakenError: the name is taken.
        """
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(f"{self.kind} name {name!r}: expected lower-case words joined by hyphens")

        def enter(entry: T) -> T:
            if name in self._entries:
                raise NameTakenError(f"{self.kind} name {name!r} is taken by {self._entries[name]!r}")
            self._entries[name] = entry
            return entry

        return enter

    def family(self, prefix: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
        """Decorator for a function that makes the unlisted plug-in "prefix:REST" of its REST, or raises UsageError."""

        def enter(make: Callable[[str], T]) -> Callable[[str], T]:
            self._families[prefix] = make
            return make

        return enter

    def __getitem__(self, name: str) -> T:
        """The plug-in of that name; if there is none, a UsageError lists those there are."""
        self._discover()
        prefix, _, rest = name.partition(":")
        if rest and prefix in self._families:
            return self._families[prefix](rest)
        try:
            return self._entries[name]
        except KeyError:
            names = ", ".join([*sorted(self._entries), *(f"{prefix}:NAME" for prefix in self._families)])
            raise UsageError(f"unknown {self.kind} {name!r}; there are: {names}") from None

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except UsageError:
            return False
        return True

    def _discover(self) -> None:
        with self._lock:
            if self._discovered:
                return
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            if self._group:
                self._discover_entry_points()
            self._discovered = True

    def _discover_entry_points(self) -> None:
        for point in entry_points(group=self._group):
            before = dict(self._entries), dict(self._families)
            try:
                point.load()
            except NameTakenError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises must not stop this library
                self._entries, self._families = before  # nothing of it stays, not even what it registered first
                _LOG.warning(
                    "the %s plug-in %r of %s is left out, because it cannot be loaded: %s: %s",
                    self.kind,
                    point.name,
                    point.dist.name if point.dist else "an unknown package",
                    type(error).__name__,
                    error,
                )
