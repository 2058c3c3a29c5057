"""Changes to the card of a checkpoint that is in use: one at a time, whole or not at all, each on record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steel_core.errors import UsageError
from steel_core.models.checkpoint import update_card


def amend_card(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], who: str, reason: str) -> None:
    """Replace entries of a card and add to its history what they were, what they are, who did it, when and why.

    The weights and their hash stay as they are.

    Args:
        folder: the checkpoint's.
        change: gets the card's content and returns the entries to replace; it must not alter what it is given.
        who: the person who answers for it.
        reason: in that person's words.

    Raises:
        UsageError: nobody is named, the folder cannot be written, or another session holds the card.
        CheckpointError: there is no readable card, or a new entry is not what a card may hold.
    """
    if not who.strip():
        raise UsageError("a change to a checkpoint needs the name of the person who makes it")

    def on_record(card: dict[str, Any]) -> dict[str, Any]:
        new = change(card)
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": who.strip(),
            "reason": reason.strip(),
            "old": {name: card.get(name) for name in new},
            "new": new,
        }
        return new | {"history": [*card.get("history", []), entry]}

    update_card(folder, on_record)
