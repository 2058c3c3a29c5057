"""The plots of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from steel_core.evaluation.estimates import Estimates, compute_estimates
from steel_core.evaluation.evaluation import Evaluation
from steel_core.metrics import curves, ece, logits_to_probabilities
from steel_core.metrics.multi_label import mean_ece
from steel_core.render import evaluation_plots

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_evaluation(evaluation: Evaluation, estimates: Estimates | None = None) -> dict[str, go.Figure]:
    """Plots of an evaluation by heading, fewer where it has no labels; `estimates` are computed here if None."""
    counted = evaluation.labelled
    if not len(counted):
        return {}
    groups = list(counted.groups)
    estimates = estimates or compute_estimates(evaluation)
    figures = {
        "Verdicts" if counted.multi_label else "Confusion matrix": evaluation_plots.confusion_matrix(
            counted.confusion()
        )
    }
    figures["Calibration"] = _plot_calibration(counted)
    truth = counted.targets > 0 if counted.multi_label else np.eye(len(counted.classes), dtype=bool)[counted.labels]
    sides = {name: side for name, side in zip(counted.classes, truth.T, strict=True) if side.any() and not side.all()}
    place = {name: k for k, name in enumerate(counted.classes)}
    if sides:
        for heading, draw, curve, area in (
            ("ROC curves", evaluation_plots.roc, curves.roc_points, "auc"),
            (
                "Precision and recall",
                evaluation_plots.precision_recall,
                curves.precision_recall_points,
                "average_precision",
            ),
        ):
            figures[heading] = draw(
                {name: curve(counted.probs[:, place[name]], side, groups) for name, side in sides.items()},
                {name: estimates.per_class[name][area].value for name in sides},
            )
    probs = counted.verdict_probs
    risk = curves.risk_coverage(probs.max(axis=1), probs.argmax(axis=1) == counted.verdict_labels, groups)
    figures["Risk against coverage"] = evaluation_plots.risk_coverage({counted.checkpoint: risk})
    for name, side in sides.items():
        histogram = curves.score_histogram(counted.probs[:, place[name]], side)
        figures[f"Scores of {name}"] = evaluation_plots.score_histogram(histogram, name)
    figures["Losses"] = evaluation_plots.loss_histogram(
        curves.loss_histogram(counted.table["loss"].to_numpy(), counted.wrong)
    )
    if len(estimates.segments):
        figures["Weak segments"] = evaluation_plots.segments(estimates.segments)
    return figures


def _plot_calibration(counted: Evaluation) -> go.Figure:
    """How far probabilities can be believed: of the class named, or for a multi-label checkpoint of every class."""
    both = {"before": logits_to_probabilities(counted.logits, counted.head), "after": counted.probs}
    groups = list(counted.groups)
    if not counted.multi_label:
        return evaluation_plots.reliability(
            {name: curves.reliability_bins(probs, counted.labels, groups) for name, probs in both.items()},
            {name: float(ece(probs, counted.labels)[0]) for name, probs in both.items()},
        )
    there = counted.targets.ravel().astype(np.int64)
    groups = list(np.repeat(groups, len(counted.classes)))
    answers = {name: np.stack([1 - probs.ravel(), probs.ravel()], axis=1) for name, probs in both.items()}
    return evaluation_plots.reliability(
        {name: curves.reliability_bins(answer, there, groups) for name, answer in answers.items()},
        {name: float(mean_ece(probs, counted.targets)[0]) for name, probs in both.items()},
    )
