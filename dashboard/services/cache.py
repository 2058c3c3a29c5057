"""Results that are kept under a short key: Streamlit would hash whole models, images and data sets.

What comes from a visitor's own images is kept per session: it goes when the visitor does.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import streamlit as st

P = ParamSpec("P")
R = TypeVar("R")

Key = Callable[..., object]  # what tells calls apart, from those arguments that it names


def cached_data(key: Key, *, max_entries: int, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep results as copies, which a caller may change; options as of `cached_resource`, but for `on_release`."""
    return cached_resource(key, max_entries=max_entries, store=st.cache_data, **options)


def cached_resource(
    key: Key, *, per_session: bool = False, spinner: str | bool = False, store: Any = st.cache_resource, **limits: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the very objects, for all callers, which must not change them.

    `limits` are Streamlit's: of more than `max_entries` the oldest goes first, each after `ttl` seconds, and
    `on_release` is called with those that go.
    """
    kept = store(scope="session" if per_session else "global", show_spinner=spinner, **limits)
    return lambda function: _keyed(function, key, kept)


def _keyed(function: Callable[P, R], key: Key, store: Callable[[Callable[..., R]], Callable[..., R]]) -> Callable[P, R]:
    signature, names = inspect.signature(function), list(inspect.signature(key).parameters)

    def work(key: object, _arguments: inspect.BoundArguments) -> R:  # noqa: ARG001 - Streamlit hashes it
        return function(*_arguments.args, **_arguments.kwargs)

    # Streamlit tells functions apart by these; all would share one store otherwise.
    work.__module__, work.__qualname__ = function.__module__, function.__qualname__
    kept = store(work)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return kept(key(**{name: arguments.arguments[name] for name in names}), arguments)

    call.clear = kept.clear  # type: ignore[attr-defined]
    return call
