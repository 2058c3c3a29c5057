"""How good the methods are, as measured and stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.services import datasets, files, models
from steel_core.evaluation import map_quality
from steel_core.explain.quality.base import FAMILIES, METRICS, Metric


def metric(name: str) -> Metric:
    """What a metric of explanation quality is, in words."""
    return METRICS[name]


def metrics() -> list[str]:
    """All metrics, by family."""
    return sorted(METRICS, key=lambda name: FAMILIES.index(METRICS[name].family))


def survives(figures: dict[str, Any]) -> bool | None:
    """Whether maps of a method stay as they are when the model forgets what it learnt; None where that is not clear.

    Args:
        figures: of the method, as the card holds them.
    """
    likeness = figures.get("randomised-model") or {}
    told = map_quality.explains_model(likeness.get("low"), likeness.get("high"))
    return None if told is None else not told


def rows(model: str, data: str) -> pd.DataFrame:
    """The value of each image for each method and metric, empty where none were stored.

    Columns: file, row, class, group, method, metric, value, chance.
    """
    folder = models.available()[model]
    return _rows(folder, data, files.stamp(folder))


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


@st.cache_data(max_entries=4, ttl=600, show_spinner=False)
def _rows(folder: Path, data: str, stamp: int) -> pd.DataFrame:  # noqa: ARG001
    return map_quality.stored_rows(folder, data)


def by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each class: columns method, metric, class, value, low, high, n, lift."""
    return map_quality.summarised(rows, by_class=True)
