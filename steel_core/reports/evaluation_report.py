"""An evaluation to carry away: one HTML file with figures, plots, the worst images with their maps, and the card."""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from steel_core import render
from steel_core.data.index import DatasetIndex
from steel_core.errors import ImageError
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.store import Estimates, compute_estimates
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import explain_tiled
from steel_core.metrics import (
    EvaluationReport,
    Interval,
    curves,
    decisions,
    ece,
    logits_to_probabilities,
    most_confused,
)
from steel_core.metrics.multi_label import MultiLabelReport, mean_ece
from steel_core.render import evaluation_plots, plots
from steel_core.reports import html
from steel_core.reports.image_report import CAUTION, draw_panel

NO_MATRIX = (
    "Several classes can be in one image, so there is no confusion matrix between them: each class has its own counts, "
    "and the verdicts on the sheets (clear, defect) have their matrix."
)


class Worst(NamedTuple):
    """One of the worst images: file, actual, predicted, loss, probability, and its pictures with captions."""

    file: str
    actual: str
    predicted: str
    loss: float
    probability: float
    pictures: list[tuple[str, Markup]]


def render_evaluation_html(
    evaluation: Evaluation,
    predictor: Predictor,
    index: DatasetIndex | None = None,
    *,
    worst: int = 12,
    with_images: bool | None = None,
    estimates: Estimates | None = None,
) -> str:
    """The whole report; without an index the worst images are named only.

    Whether images may stand in a report, which may be passed on, is what the data set's licence says if `with_images`
    is None.
    """
    counted = evaluation.labelled
    estimates = estimates or (compute_estimates(evaluation) if len(counted) else None)
    report = estimates.report if estimates else None
    allowed = index is not None and (index.spec.redistributable if with_images is None else with_images)
    rows = counted.top_losses(worst)
    return html.render_page(
        "evaluation.html",
        title=f"{predictor.card.title}: evaluation on {evaluation.data}",
        card=predictor.card, evaluation=evaluation, remarks=evaluation.remarks, caution=CAUTION,
        created=datetime.now(UTC).isoformat(timespec="seconds"), report=report,
        main=main_estimates(report) if report else {},
        tables=report.tables if isinstance(report, MultiLabelReport) else {},
        per_class=estimates.per_class if estimates else {},
        confused=most_confused(evaluation.confusion()).to_dict("records") if len(counted) else [],
        plant=_tabulate_plant(counted) if len(counted) else [],
        costs=decisions.Costs().describe(counted.verdicts),
        part="which the model has neither learnt from nor been tuned on" if evaluation.part == "held-out"
        else f"part {evaluation.part}",
        no_matrix=NO_MATRIX, outcomes=evaluation.table["outcome"].value_counts().to_dict(),
        figures=[
            html.embed_plot(name, figure, i)
            for i, (name, figure) in enumerate(plot_evaluation(evaluation, estimates).items())
        ],
        worst=[_describe_worst(row, predictor, index, allowed) for row in rows.to_dict("records")],
        images=allowed, licence=index.spec.licence if index else "",
        about=json.dumps(_describe_card(predictor), indent=1, ensure_ascii=False),
    )  # fmt: skip


def main_estimates(report: EvaluationReport | MultiLabelReport) -> dict[str, tuple[float | None, Interval, int]]:
    """The estimates over all images by name: value, interval, and the images it rests on."""
    if isinstance(report, MultiLabelReport):
        return {name: (each.value, (each.low, each.high), each.n) for name, each in report.estimates.items()}
    names = ("accuracy", "macro_recall", "macro_f1", "auc", "ece")
    return {name: (getattr(report, name), report.intervals[name] or (0.0, 1.0), report.n) for name in names}


def _tabulate_plant(counted: Evaluation) -> list[dict[Any, Any]]:
    outcomes = counted.table["outcome"].to_numpy(object)
    table = decisions.plant_estimates(outcomes, counted.verdict_labels, counted.verdicts, groups=list(counted.groups))
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _describe_worst(row: dict[Any, Any], predictor: Predictor, index: DatasetIndex | None, allowed: bool) -> Worst:
    pictures: list[tuple[str, Markup]] = []
    if allowed and index is not None:
        try:
            image = index.image(int(row["row"]))
            pictures.append(("Picture", html.embed_picture(render.thumbnail(image, 320))))
            shown = draw_panel(predictor, image, explain_tiled(predictor, image, "grad-cam", row["pred"]))
            pictures.append((f"{shown.title}. {shown.caption}", html.embed_picture(shown.picture)))
        except ImageError as error:
            pictures = [(str(error), Markup())]
    named = row.get("named", row["pred"]).replace("|", ", ") or "no class"
    return Worst(row["file"], row["label"].replace("|", ", "), named, row["loss"], row["confidence"], pictures)


def _describe_card(predictor: Predictor) -> dict[str, Any]:
    """The card without its long lists: hashes, the course of the training, figures of the maps and former values."""
    card = predictor.card.to_json()
    card["split"] = {name: value for name, value in card["split"].items() if name != "files"}
    card["training"] = {name: value for name, value in card["training"].items() if name == "settings"}
    card["quality"] = {name: f"{of['images']} images, {of['date']}" for name, of in card["quality"].items()}
    card["history"] = [{name: of[name] for name in ("at", "who", "reason")} for of in card["history"]]
    return card | {"checkpoint_hash": predictor.hash}


def plot_evaluation(evaluation: Evaluation, estimates: Estimates | None = None) -> dict[str, plots.Figure]:
    """Plots of an evaluation by heading, fewer where it has no labels; `estimates` are computed here if None."""
    counted = evaluation.labelled
    if not len(counted):
        return {}
    groups = list(counted.groups)
    estimates = estimates or compute_estimates(evaluation)
    matrix = "Verdicts" if counted.multi_label else "Confusion matrix"
    figures = {matrix: evaluation_plots.confusion_matrix(counted.confusion())}
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


def _plot_calibration(counted: Evaluation) -> plots.Figure:
    """How far probabilities can be believed: of the class named, or for a multi-label checkpoint of every class."""
    both = {"before": logits_to_probabilities(counted.logits, counted.head), "after": counted.probs}
    groups = list(counted.groups)
    if counted.multi_label:
        errors = {name: float(mean_ece(probs, counted.targets)[0]) for name, probs in both.items()}
        both = {name: np.stack([1 - probs.ravel(), probs.ravel()], axis=1) for name, probs in both.items()}
        truth, groups = counted.targets.ravel().astype(np.int64), list(np.repeat(groups, len(counted.classes)))
    else:
        truth, errors = counted.labels, {name: float(ece(probs, counted.labels)[0]) for name, probs in both.items()}
    tables = {name: curves.reliability_bins(probs, truth, groups) for name, probs in both.items()}
    return evaluation_plots.reliability(tables, errors)
