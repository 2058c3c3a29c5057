"""Confusion matrices, and the recall and F1 that follow from them.

Legend: N samples, K classes, R resamples.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from steel_core.metrics.intervals import (
    FEW,
    estimate_share,
    group_names,
)
from steel_core.types import Float64Array, Int64Array


def confusion_counts(
    labels: Int64Array, pred: Int64Array, classes: int, weights: Float64Array | None = None
) -> Float64Array:
    """Weighted counts (R, K, K), rows actual and columns predicted, for weights (R, N); ones if None."""
    weights = np.ones((1, len(labels))) if weights is None else weights
    cells = np.eye(classes * classes)[labels * classes + pred]
    return np.asarray(weights @ cells).reshape(-1, classes, classes)


def macro_recall(counts: Float64Array) -> Float64Array:
    """Mean recall (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support = counts.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.nanmean(np.diagonal(counts, axis1=1, axis2=2) / np.where(support, support, np.nan), axis=1)
        )


def macro_f1(counts: Float64Array) -> Float64Array:
    """Mean F1 (R,) over the classes that occur in the confusion matrices (R, K, K)."""
    support, predicted = counts.sum(axis=2), counts.sum(axis=1)
    both = np.where(support, support + predicted, np.nan)
    return np.asarray(np.nanmean(2 * np.diagonal(counts, axis1=1, axis2=2) / both, axis=1))


def confusion_table(
    actual: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    columns: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row a cell of the confusion matrix, row by row; rows are the classes, columns these too if None.

    `predicted`: each sample's outcome (N,), a class or an outcome such as "refer"; `groups` as in `evaluate`.

    Returns:
        Columns actual, predicted, n (images in the cell), of (images in its row), share, low, high (of the row's
        images, with the Wilson interval), n_low, n_high (the same as counts, given the row's number) and few (the row
        has fewer than `FEW` images). share is NaN where the row is empty.
    """
    truth, outcomes = np.asarray(actual, dtype=object), np.asarray(predicted, dtype=object)
    names = group_names(groups, len(truth))
    rows = []
    for row in classes:
        mine = truth == row
        for column in columns or classes:
            cell = estimate_share(outcomes[mine] == column, names[mine])
            value = np.nan if cell.value is None else cell.value
            count = int((outcomes[mine] == column).sum())
            rows.append((row, column, count, cell.n, value, cell.low, cell.high, cell.low * cell.n, cell.high * cell.n,
                         cell.n < FEW))  # fmt: skip
    heads = ["actual", "predicted", "n", "of", "share", "low", "high", "n_low", "n_high", "few"]
    return pd.DataFrame(rows, columns=heads)


def most_confused(cells: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """The wrong cells of a `confusion_table` that hold images, the fullest first; to refer an image is not wrong."""
    wrong = cells[(cells["actual"] != cells["predicted"]) & cells["predicted"].isin(cells["actual"]) & (cells["n"] > 0)]
    return wrong.sort_values(["n", "share"], ascending=False, kind="stable").head(most).reset_index(drop=True)
