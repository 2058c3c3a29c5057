"""Pure functions on arrays: metrics of a classifier with their 95 % intervals.

`curves`, `decisions`, `paired` and `segments` are not imported here, so that a prediction does not wait for them.
"""

from steel_core.metrics import multi_label
from steel_core.metrics.classification import (
    EvaluationReport,
    beats_chance,
    chance_level,
    confusion_counts,
    confusion_table,
    ece,
    evaluate,
    fit_refer_thresholds,
    fit_temperature,
    log_losses,
    logits_to_probabilities,
    macro_recall,
    most_confused,
    per_class_estimates,
)
from steel_core.metrics.intervals import (
    FEW,
    Estimate,
    Interval,
    effective_observations,
    estimate_share,
    group_weights,
    holm_correction,
    wilson_interval,
)

__all__ = [
    "FEW", "Estimate", "EvaluationReport", "Interval", "beats_chance", "chance_level", "confusion_counts",
    "confusion_table", "ece", "effective_observations", "estimate_share", "evaluate", "fit_refer_thresholds",
    "fit_temperature", "group_weights", "holm_correction", "log_losses", "logits_to_probabilities", "macro_recall",
    "most_confused", "multi_label", "per_class_estimates", "wilson_interval",
]  # fmt: skip
