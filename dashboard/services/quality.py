"""How good the methods are, as measured and stored."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.services import datasets, files, models
from dashboard.services.cache import cached_data
from steel_core.evaluation.quality_report import summarise_rows
from steel_core.evaluation.quality_store import load_quality_rows
from steel_core.explain.quality.base import FAMILIES, METRICS
from steel_core.explain.quality.randomisation import explains_model
from steel_core.models.card import QualityEstimate

__all__ = ["METRICS", "summarise_rows"]


def metrics() -> list[str]:
    """All metrics, by family."""
    return sorted(METRICS, key=lambda name: FAMILIES.index(METRICS[name].family))


def survives(estimates: Mapping[str, QualityEstimate]) -> bool | None:
    """Whether maps of a method stay as they are when the model forgets what it learnt; None where that is not clear."""
    likeness = estimates.get("randomised-model")
    explains = explains_model(likeness.low, likeness.high) if likeness else None
    return None if explains is None else not explains


@cached_data(
    lambda model, data: (models.available()[model], data, files.stamp(models.available()[model])),
    max_entries=4, ttl=600,
)  # fmt: skip
def rows(model: str, data: str) -> pd.DataFrame:
    """Each image, where stored: columns file, row, class, group, method, metric, value, chance."""
    return load_quality_rows(models.available()[model], data)


def images_behind(model: str, data: str, names: Sequence[str]) -> list[tuple[str, datasets.Source]]:
    """Path and source of measured images, by their base names; none where the data set here is not the measured one."""
    return [] if stand_in(model, data) else datasets.named(data, names)


def stand_in(model: str, data: str) -> tuple[int, int] | None:
    """Images of the data set here and of the measured one, where they share a name only: other files, same names.

    A card tells the size of the data set that its model learnt from; any other is taken for the measured one.
    """
    card = models.card(model)
    if card is None or card.data.get("name") != data or data not in datasets.available():
        return None
    here, measured = len(datasets.dataset(data)), int(card.data.get("images") or 0)
    return (here, measured) if measured and here != measured else None
