"""How numbers are spread in the classes of a data set, and what the images of a class have in common."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd

from dashboard.services.cache import cached_data, cached_resource
from dashboard.services.explore import NUMBERS_OF_VERDICTS, Collection, rows, title
from steel_core.data.filters import PLACES, Filter
from steel_core.data.index import DatasetIndex
from steel_core.data.quality import properties
from steel_core.errors import ImageError
from steel_core.render import data_plots
from steel_core.render.plots import Figure
from steel_core.types import Float64Array, IndexArray, UInt8Array

AVERAGED = 200  # images of a class that its average is made of, at most
_SIDE = 128  # pixels of an average


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of the grey of a class, (H, W, 3), of `n` images, and its standard deviation.

    `spread` is the deviation stretched to its own largest value, (H, W, 3); `largest` is that value, 0 to 0.5.
    """

    mean: UInt8Array
    spread: UInt8Array
    largest: float
    n: int


def _choice(collection: Collection, asked: Filter) -> tuple[str, Filter]:
    return collection.key, asked


@cached_data(_choice, max_entries=32, spinner="Averaging")
def averages(collection: Collection, asked: Filter) -> dict[str, Average]:
    """The average image of each class among those that match, of images drawn evenly from all of them."""
    labels = [label for label in collection.names("labels") if asked.label in (None, label)]
    means = {label: _average(collection.index, rows(collection, replace(asked, label=label))) for label in labels}
    return {label: mean for label, mean in means.items() if mean is not None}


def _average(index: DatasetIndex, matching: IndexArray) -> Average | None:
    chosen = matching[np.unique(np.linspace(0, len(matching) - 1, min(len(matching), AVERAGED)).astype(int))]
    total, squares, n = np.zeros((_SIDE, _SIDE)), np.zeros((_SIDE, _SIDE)), 0
    for row in chosen.tolist():
        try:
            grey = cv2.resize(index.image(row).grey(), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        except ImageError:
            continue
        total, squares, n = total + grey, squares + np.square(grey), n + 1
    if not n:
        return None
    mean = total / n
    spread = np.sqrt(np.maximum(squares / n - mean**2, 0))
    largest = float(spread.max())
    return Average(_grey_picture(mean), _grey_picture(spread / largest if largest else spread), largest, n)


def _grey_picture(grey: Float64Array) -> UInt8Array:
    return np.repeat((255 * grey).round().astype(np.uint8)[..., None], 3, axis=2)


@cached_resource(_choice, max_entries=16, spinner="Drawing")
def plots(collection: Collection, asked: Filter) -> dict[str, Figure]:
    """Counts, distributions and places of the images that match, by heading; what is the same for all is not drawn."""
    table = collection.facts.iloc[rows(collection, asked)]
    labels = _rows_by_class(collection, asked, table)
    figures = {}
    if labels:
        counts = {label: len(mine) for label, mine in labels.items()}
        figures["Images by class"] = data_plots.class_counts(counts, len(table))
    drawn = dict(sorted(labels.items(), key=lambda pair: -len(pair[1]))[: data_plots.CLASSES])
    for name in (*properties.PROPERTIES, *NUMBERS_OF_VERDICTS):
        if name in ("defect_row", "defect_column") or name not in collection.numbers:
            continue
        if table[name].min() < table[name].max():
            values = table[name].to_numpy(float)
            by = {label: values[mine][np.isfinite(values[mine])] for label, mine in drawn.items()}
            figures[title(name)] = data_plots.distributions(by, name, title(name))
    if "defect_row" in collection.numbers and table["defect_row"].notna().any():
        places = (table[name].to_numpy(float) for name in ("defect_row", "defect_column"))
        figures["Where defects lie"] = data_plots.defect_places(*places)
    return figures


@cached_data(_choice, max_entries=16)
def class_marks(collection: Collection, asked: Filter) -> dict[str, tuple[str, str]]:
    """Colour and sign of each class in the plots of distributions: the largest classes among the images that match."""
    labels = _rows_by_class(collection, asked, collection.facts.iloc[rows(collection, asked)])
    return dict(zip(sorted(labels, key=lambda label: -len(labels[label])), data_plots.MARKS, strict=False))


def _rows_by_class(collection: Collection, asked: Filter, table: pd.DataFrame) -> dict[str, IndexArray]:
    wanted = [label for label in collection.names("labels") if asked.label in (None, label)]
    matching = {label: Filter(label=label).rows(table) for label in wanted}
    return {label: mine for label, mine in matching.items() if len(mine)}


@cached_data(_choice, max_entries=16)
def quartiles(collection: Collection, asked: Filter) -> pd.DataFrame:
    """Quartiles of each number for each class among the images that match."""
    table = collection.facts.iloc[rows(collection, asked)]
    heads = ("Class", "Number", "Images", "Quartile", "Median", "Upper quartile")
    lines = []
    for label, mine in _rows_by_class(collection, asked, table).items():
        for name in collection.numbers:
            values = table[name].iloc[mine].dropna()
            if name not in PLACES and len(values):
                line = (label or "unlabelled", title(name), len(values), *values.quantile([0.25, 0.5, 0.75]))
                lines.append(dict(zip(heads, line, strict=True)))
    return pd.DataFrame(lines)


def standing(collection: Collection, row: int) -> pd.DataFrame:
    """Where the numbers of one image lie among all images, and among those of its first class, in percent."""
    label = collection.index[row].label
    mine = rows(collection, Filter(label=label))
    heads = ("Number", "Value", "Above, of all", f"Above, of {label or 'unlabelled'}", "Images", "Of the class")
    lines = []
    for name in collection.numbers:
        values = collection.facts[name].to_numpy(float)
        value = float(values[row])
        if name in PLACES or not np.isfinite(value):
            continue
        shares = (_share_below(values, value), _share_below(values[mine], value))
        counts = (int(np.isfinite(values).sum()), int(np.isfinite(values[mine]).sum()))
        lines.append(dict(zip(heads, (title(name), value, *shares, *counts), strict=True)))
    return pd.DataFrame(lines)


def _share_below(values: Float64Array, value: float) -> float:
    """Share of the known values that are smaller; those that are equal count half."""
    known = values[np.isfinite(values)]
    return float(((known < value).sum() + 0.5 * (known == value).sum()) / max(len(known), 1))
