"""Words on a page."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Text from elsewhere (a file name, a card) that shall not act as Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def percent(share: float) -> str:
    """A share in percent with one decimal. What is not all is not rounded up to all, what is not nothing not to it."""
    shown = min(max(share, 0.001), 0.999) if 0 < share < 1 else share
    return f"{shown:.1%}".replace("%", " %")


def capital(words: str) -> str:
    """The first letter in upper case, the others as they are."""
    return words[:1].upper() + words[1:]
