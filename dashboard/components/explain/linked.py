"""Choices that lie in the URL although their options change with the image, which a bound widget cannot follow."""

from collections.abc import Sequence

import streamlit as st


def from_link(name: str, allowed: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """What the URL says under `name`, as far as it is allowed; what it may not hold at all falls back."""
    values = [value for value in st.query_params.get_all(name) if value in allowed]
    return values or list(otherwise)


def to_link(name: str, chosen: Sequence[str], otherwise: Sequence[str]) -> None:
    """Keep a choice in the URL, unless it is the one that a visitor meets anyway."""
    if list(chosen) != list(otherwise):
        st.query_params[name] = list(chosen)
    elif name in st.query_params:
        del st.query_params[name]
