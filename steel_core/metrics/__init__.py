"""Pure functions on arrays: figures of a classifier with their 95 % intervals.

What training and prediction need is named here; `curves`, `decisions`, `paired` and `segments` are modules of their
own, so that a prediction does not wait for them to load.
"""

from steel_core.metrics.figures import (
    ECE_BINS,
    FEW,
    EvaluationReport,
    auc,
    average_precision,
    confusion,
    confusion_table,
    ece,
    evaluate,
    fit_temperature,
    losses,
    macro_auc,
    macro_f1,
    macro_recall,
    most_confused,
    per_class,
    probabilities,
    refer_thresholds,
)
from steel_core.metrics.intervals import (
    RESAMPLES,
    Figure,
    Floats,
    Interval,
    Ints,
    effective_observations,
    group_weights,
    holm,
    share,
    wilson,
)

__all__ = [
    "ECE_BINS",
    "FEW",
    "RESAMPLES",
    "EvaluationReport",
    "Figure",
    "Floats",
    "Interval",
    "Ints",
    "auc",
    "average_precision",
    "confusion",
    "confusion_table",
    "ece",
    "effective_observations",
    "evaluate",
    "fit_temperature",
    "group_weights",
    "holm",
    "losses",
    "macro_auc",
    "macro_f1",
    "macro_recall",
    "most_confused",
    "per_class",
    "probabilities",
    "refer_thresholds",
    "share",
    "wilson",
]
