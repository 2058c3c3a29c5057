"""A registry of plug-ins: explicit lower-case names, a collision raises, a broken plug-in raises when discovered."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from steel_core.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to a plug-in. The plug-ins are the modules of one package, imported at the first look-up.

    Args:
        kind: what is registered, in words for messages ("explainer").
        package: dotted name of the package whose modules register the entries.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._families: dict[str, Callable[[str], T]] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a plug-in under `name` (lower case, digits and hyphens).

        Raises:
            ValueError: the name is malformed or taken.
        """
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(f"{self.kind} name {name!r}: expected lower-case words joined by hyphens")

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} name {name!r} is taken by {self._entries[name]!r}")
            self._entries[name] = entry
            return entry

        return enter

    def family(self, prefix: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
        """Decorator for a function that makes the plug-in of any name "prefix:REST" of its REST, or raises UsageError.

        Such plug-ins are not listed.
        """

        def enter(make: Callable[[str], T]) -> Callable[[str], T]:
            self._families[prefix] = make
            return make

        return enter

    def __getitem__(self, name: str) -> T:
        """The plug-in of that name.

        Raises:
            UsageError: there is none; the message lists those there are.
        """
        self._discover()
        prefix, _, rest = name.partition(":")
        if rest and prefix in self._families:
            return self._families[prefix](rest)
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join([*sorted(self._entries), *(f"{prefix}:NAME" for prefix in self._families)])
            raise UsageError(f"unknown {self.kind} {name!r}; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        """Names, sorted."""
        self._discover()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        """How many plug-ins there are."""
        self._discover()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Whether a plug-in of that name exists."""
        try:
            self[str(name)]
        except UsageError:
            return False
        return True

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._discovered = True
