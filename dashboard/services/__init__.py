"""The only callers of the library: what pages may ask for, cached, and nothing of how it looks.

Caches are bounded. What comes from a visitor's own images is cached for that visitor's session only and goes with it.
"""

from dashboard.services import (
    audits,
    classical_chain,
    datasets,
    evaluation,
    explore,
    files,
    images,
    jobs,
    leaderboard,
    maps,
    models,
    quality,
    training,
)

__all__ = [
    "audits",
    "classical_chain",
    "datasets",
    "evaluation",
    "explore",
    "files",
    "images",
    "jobs",
    "leaderboard",
    "maps",
    "models",
    "quality",
    "training",
]
