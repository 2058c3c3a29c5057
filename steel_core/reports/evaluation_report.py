"""An evaluation to carry away: one HTML file with figures, plots, the worst images with their maps, and the card."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from steel_core import render
from steel_core.data.index import DatasetIndex
from steel_core.errors import ImageError
from steel_core.evaluation.estimates import Estimates, compute_estimates
from steel_core.evaluation.evaluation import Evaluation
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import explain_tiled
from steel_core.metrics import EvaluationReport, Interval, decisions, most_confused
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.reports import html
from steel_core.reports.evaluation_figures import plot_evaluation
from steel_core.reports.image_report import CAUTION, draw_panel

if TYPE_CHECKING:
    pass

WORST = 12
METHODS = ("grad-cam",)
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
    costs: decisions.Costs | None = None,
    methods: Sequence[str] = METHODS,
    worst: int = WORST,
    with_images: bool | None = None,
    estimates: Estimates | None = None,
) -> str:
    """The whole report; without an index the worst images are named only.

    `costs` are as the plant states them; 1 for each error and 0.1 for a person's look if None. Whether images may stand
    in a report, which may be passed on, is what the data set's licence says if `with_images` is None.
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
        plant=_tabulate_plant(counted, costs) if len(counted) else [],
        costs=(costs or decisions.Costs()).describe(counted.verdicts),
        part="which the model has neither learnt from nor been tuned on" if evaluation.part == "held-out"
        else f"part {evaluation.part}",
        no_matrix=NO_MATRIX, outcomes=evaluation.table["outcome"].value_counts().to_dict(),
        figures=[
            html.embed_plot(name, figure, i)
            for i, (name, figure) in enumerate(plot_evaluation(evaluation, estimates).items())
        ],
        worst=[_describe_worst(row, predictor, index, methods, allowed) for row in rows.to_dict("records")],
        images=allowed, licence=index.spec.licence if index else "",
        about=json.dumps(_describe_card(predictor), indent=1, ensure_ascii=False),
    )  # fmt: skip


def main_estimates(report: EvaluationReport | MultiLabelReport) -> dict[str, tuple[float | None, Interval, int]]:
    """The estimates over all images by name: value, interval, and the images it rests on."""
    if isinstance(report, MultiLabelReport):
        return {name: (each.value, (each.low, each.high), each.n) for name, each in report.estimates.items()}
    names = ("accuracy", "macro_recall", "macro_f1", "auc", "ece")
    return {name: (getattr(report, name), report.intervals[name] or (0.0, 1.0), report.n) for name in names}


def _tabulate_plant(counted: Evaluation, costs: decisions.Costs | None) -> list[dict[Any, Any]]:
    outcomes = counted.table["outcome"].to_numpy(object)
    table = decisions.plant_estimates(
        outcomes, counted.verdict_labels, counted.verdicts, costs, groups=list(counted.groups)
    )
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _describe_worst(
    row: dict[Any, Any], predictor: Predictor, index: DatasetIndex | None, methods: Sequence[str], allowed: bool
) -> Worst:
    pictures: list[tuple[str, Markup]] = []
    if allowed and index is not None:
        try:
            image = index.image(int(row["row"]))
            pictures.append(("Picture", html.embed_picture(render.thumbnail(image, 320))))
            for method in methods:
                shown = draw_panel(predictor, image, explain_tiled(predictor, image, method, row["pred"]))
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
