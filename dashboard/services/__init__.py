"""The only callers of the library: what pages may ask for, cached, and nothing of how it looks."""

from dashboard.services import (  # noqa: F401
    audits,
    bench,
    cache,
    classical_chain,
    clues,
    datasets,
    distributions,
    evaluation,
    explore,
    files,
    images,
    jobs,
    leaderboard,
    maps,
    models,
    quality,
    retests,
    strips,
    training,
)
