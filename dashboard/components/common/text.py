"""Words on a page."""

import re


def plain(text: str) -> str:
    """Text from elsewhere (a file name, a card) that shall not act as Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def capital(words: str) -> str:
    """The first letter in upper case, the others as they are."""
    return words[:1].upper() + words[1:]


def counted(n: int, what: str) -> str:
    """A number of things, in the plural unless it is one."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
