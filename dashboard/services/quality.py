"""How good the methods are, as measured and stored."""

from collections.abc import Sequence

import pandas as pd

from dashboard.services import datasets, files, models
from dashboard.services.cache import cached_data
from steel_core.evaluation.quality_report import load_quality_rows, summarise_rows
from steel_core.explain.quality.base import FAMILIES, METRICS
from steel_core.explain.quality.randomisation import explains_model
from steel_core.models.card import QualityTable

__all__ = ["METRICS", "explains_model", "summarise_rows"]


def metrics(quality: QualityTable) -> list[str]:
    """The metrics that any method was measured by, by family."""
    measured = {name for of in quality.methods.values() for name in of}
    return [name for family in FAMILIES for name in METRICS if name in measured and METRICS[name].family == family]


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
