"""The only callers of the library: what pages may ask for, cached, and nothing of how it looks.

Caches are bounded. What comes from a visitor's own images is cached for that visitor's session only and goes with it.
"""

from dashboard.services import (
    audits,
    chain,
    datasets,
    evaluation,
    explore,
    files,
    leaderboard,
    looks,
    maps,
    models,
    quality,
    training,
    work,
)

__all__ = [
    "audits",
    "chain",
    "datasets",
    "evaluation",
    "explore",
    "files",
    "leaderboard",
    "looks",
    "maps",
    "models",
    "quality",
    "training",
    "work",
]
