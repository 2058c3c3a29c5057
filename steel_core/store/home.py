"""Where what people decide is kept."""

from __future__ import annotations

import os
from pathlib import Path


def steel_home() -> Path:
    """The folder for what cannot be computed again: `$STEEL_HOME`, or `~/.steel-lens`."""
    return Path(os.environ.get("STEEL_HOME") or Path.home() / ".steel-lens")
