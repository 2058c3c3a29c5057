"""An evaluation to carry away: one HTML file with figures, plots, the worst images with their maps, and the card.

The file needs no network and no other file: Plotly's script lies in it once, pictures are part of it, and its policy
(Content-Security-Policy) forbids to load anything. Everything that came from data is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from steel_core import render
from steel_core.data.index import DatasetIndex
from steel_core.errors import ImageError
from steel_core.evaluation.estimates import Figures, count_figures
from steel_core.evaluation.evaluate import Evaluation
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import explain_whole
from steel_core.metrics import EvaluationReport, Interval, curves, decisions, ece, most_confused, probabilities
from steel_core.metrics.multi_label import MultiLabelReport, mean_ece
from steel_core.render import plots
from steel_core.reports import html
from steel_core.reports.image_report import CAUTION, panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

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


def evaluation_html(
    evaluation: Evaluation,
    predictor: Predictor,
    index: DatasetIndex | None = None,
    *,
    costs: decisions.Costs | None = None,
    methods: Sequence[str] = METHODS,
    worst: int = WORST,
    with_images: bool | None = None,
    figures: Figures | None = None,
) -> str:
    """The whole report.

    Args:
        evaluation: of one part.
        predictor: the checkpoint that was evaluated.
        index: the data set, for the worst images; without it they are named only.
        costs: as the plant states them; 1 for each error and 0.1 for a person's look if None.
        methods: explainers whose maps stand beside the worst images.
        worst: how many of them.
        with_images: whether images may stand in the report, which may be passed on; as the data set's licence says if
            None.
        figures: of this evaluation, where they are known; counted here if None.
    """
    counted = evaluation.labelled
    figures = figures or (count_figures(evaluation) if len(counted) else None)
    report = figures.report if figures else None
    allowed = index is not None and (index.spec.redistributable if with_images is None else with_images)
    rows = counted.top_losses(worst)
    return html.document(
        _TEMPLATE,
        title=f"{predictor.card.title}: evaluation on {evaluation.data}",
        card=predictor.card, evaluation=evaluation, remarks=evaluation.remarks, caution=CAUTION,
        made=datetime.now(UTC).isoformat(timespec="seconds"), report=report,
        main=main_figures(report) if report else {},
        tables=report.tables if isinstance(report, MultiLabelReport) else {},
        per_class=figures.per_class if figures else {},
        confused=most_confused(evaluation.confusion()).to_dict("records") if len(counted) else [],
        plant=_plant(counted, costs) if len(counted) else [],
        costs=(costs or decisions.Costs()).in_words(counted.verdicts),
        part="which the model has neither learnt from nor been tuned on" if evaluation.part == "held-out"
        else f"part {evaluation.part}",
        no_matrix=NO_MATRIX, outcomes=evaluation.table["outcome"].value_counts().to_dict(),
        figures=[
            html.drawn(name, figure, i)
            for i, (name, figure) in enumerate(evaluation_plots(evaluation, figures).items())
        ],
        worst=[_worst(row, predictor, index, methods, allowed) for row in rows.to_dict("records")],
        images=allowed, licence=index.spec.licence if index else "",
        about=json.dumps(_about(predictor), indent=1, ensure_ascii=False),
    )  # fmt: skip


def evaluation_plots(evaluation: Evaluation, figures: Figures | None = None) -> dict[str, go.Figure]:
    """Every plot of an evaluation by its heading; those that need labels only where there are some.

    `figures` as in `evaluation_html`.
    """
    counted = evaluation.labelled
    if not len(counted):
        return {}
    groups = list(counted.groups)
    figures = figures or count_figures(evaluation)
    drawn = {"Verdicts" if counted.multi_label else "Confusion matrix": plots.confusion_matrix(counted.confusion())}
    drawn["Calibration"] = _calibration(counted)
    truth = counted.targets > 0 if counted.multi_label else np.eye(len(counted.classes), dtype=bool)[counted.labels]
    sides = {name: side for name, side in zip(counted.classes, truth.T, strict=True) if side.any() and not side.all()}
    place = {name: k for k, name in enumerate(counted.classes)}
    if sides:
        for heading, draw, curve, area in (
            ("ROC curves", plots.roc, curves.roc, "auc"),
            ("Precision and recall", plots.precision_recall, curves.precision_recall, "average_precision"),
        ):
            drawn[heading] = draw(
                {name: curve(counted.probs[:, place[name]], side, groups) for name, side in sides.items()},
                {name: figures.per_class[name][area].value for name in sides},
            )
    probs = counted.verdict_probs
    risk = curves.risk_coverage(probs.max(axis=1), probs.argmax(axis=1) == counted.verdict_labels, groups)
    drawn["Risk against coverage"] = plots.risk_coverage({counted.checkpoint: risk})
    for name, side in sides.items():
        histogram = curves.score_histogram(counted.probs[:, place[name]], side)
        drawn[f"Scores of {name}"] = plots.score_histogram(histogram, name)
    drawn["Losses"] = plots.loss_histogram(curves.loss_histogram(counted.table["loss"].to_numpy(), counted.wrong))
    if len(figures.segments):
        drawn["Weak segments"] = plots.segments(figures.segments)
    return drawn


def _calibration(counted: Evaluation) -> go.Figure:
    """How far probabilities can be believed: of the class named, or for a multi-label checkpoint of every class."""
    both = {"before": probabilities(counted.logits, counted.head), "after": counted.probs}
    groups = list(counted.groups)
    if not counted.multi_label:
        return plots.reliability(
            {name: curves.reliability(probs, counted.labels, groups) for name, probs in both.items()},
            {name: float(ece(probs, counted.labels)[0]) for name, probs in both.items()},
        )
    there = counted.targets.ravel().astype(np.int64)
    groups = list(np.repeat(groups, len(counted.classes)))
    answers = {name: np.stack([1 - probs.ravel(), probs.ravel()], axis=1) for name, probs in both.items()}
    return plots.reliability(
        {name: curves.reliability(answer, there, groups) for name, answer in answers.items()},
        {name: float(mean_ece(probs, counted.targets)[0]) for name, probs in both.items()},
    )


def main_figures(report: EvaluationReport | MultiLabelReport) -> dict[str, tuple[float | None, Interval, int]]:
    """The figures of all images by name: value, interval, and the images it rests on."""
    if isinstance(report, MultiLabelReport):
        return {name: (found.value, (found.low, found.high), found.n) for name, found in report.figures.items()}
    names = ("accuracy", "macro_recall", "macro_f1", "auc", "ece")
    return {name: (getattr(report, name), report.intervals[name] or (0.0, 1.0), report.n) for name in names}


def _plant(counted: Evaluation, costs: decisions.Costs | None) -> list[dict[Any, Any]]:
    said = counted.table["outcome"].to_numpy(object)
    groups = list(counted.groups)
    found = decisions.plant_figures(said, counted.verdict_labels, counted.verdicts, costs, groups=groups)
    return found.astype(object).where(found.notna(), None).to_dict("records")


def _worst(
    row: dict[Any, Any], predictor: Predictor, index: DatasetIndex | None, methods: Sequence[str], allowed: bool
) -> Worst:
    pictures: list[tuple[str, Markup]] = []
    if allowed and index is not None:
        try:
            image = index.image(int(row["row"]))
            pictures.append(("Picture", html.inline(render.thumbnail(image, 320))))
            for method in methods:
                shown = panel(predictor, image, explain_whole(predictor, image, method, row["pred"]))
                pictures.append((f"{shown.title}. {shown.caption}", html.inline(shown.picture)))
        except ImageError as error:
            pictures = [(str(error), Markup())]
    said = row.get("named", row["pred"]).replace("|", ", ") or "no class"
    return Worst(row["file"], row["label"].replace("|", ", "), said, row["loss"], row["confidence"], pictures)


def _about(predictor: Predictor) -> dict[str, Any]:
    """The card without its long lists: hashes, the course of the training, figures of the maps and former values."""
    card = asdict(predictor.card)
    card["split"] = {name: value for name, value in card["split"].items() if name != "files"}
    card["training"] = {name: value for name, value in card["training"].items() if name == "settings"}
    card["quality"] = {name: f"{of['images']} images, {of.get('date', '')}" for name, of in card["quality"].items()}
    card["history"] = [{name: of.get(name) for name in ("at", "who", "reason")} for of in card["history"]]
    return card | {"checkpoint_hash": predictor.hash}


_TEMPLATE = """<h1>{{ title }}</h1>
<p><strong>{{ evaluation|length }} images ({{ part }}){% if main %}:
{% set name = "exact_match" if tables else "accuracy" %}
{{ "exactly the true classes are named" if tables else "the likeliest class is right" }} on
{{ main[name][0]|percent }} of {{ main[name][2] }} (95 %: {{ main[name][1][0]|percent }} to
{{ main[name][1][1]|percent }}){% endif %}.</strong></p>
<p class="small">Made {{ made }} with checkpoint {{ evaluation.checkpoint }}
({{ evaluation.checkpoint_hash[:12] }}).</p>
{% for sentence in card.warnings %}<p><strong>{{ sentence }}</strong></p>{% endfor %}
{% if remarks or evaluation.left_out %}<h2>What to know first</h2>
<ul>{% for sentence in remarks %}<li>{{ sentence }}</li>{% endfor %}
{% for sentence in evaluation.left_out[:20] %}<li>Left out: {{ sentence }}</li>{% endfor %}
{% if evaluation.left_out|length > 20 %}<li>… and {{ evaluation.left_out|length - 20 }} more left out</li>{% endif %}
</ul>{% endif %}
<h2>What the model said</h2>
<ul>{% for outcome, n in outcomes.items() %}<li>{{ outcome }}: {{ n }}</li>{% endfor %}</ul>
{% if report %}
<h2>Figures, with 95 % intervals</h2>
<table><tr><th>figure</th><th>value</th><th>from</th><th>to</th><th>n</th></tr>
{% for name, (value, ends, n) in main.items() %}
<tr><td>{{ name.replace("_", " ") }}</td>{% if value is none %}<td colspan="4">no such images</td>{% else %}
<td>{{ "%.3f"|format(value) }}</td><td>{{ "%.3f"|format(ends[0]) }}</td>
<td>{{ "%.3f"|format(ends[1]) }}</td><td>{{ n }}</td>{% endif %}</tr>{% endfor %}</table>
<p class="small">n = {{ report.n }} images{% if evaluation.grouped %} in {{ report.groups }} groups of near-duplicates,
each of which counts as one in the intervals{% endif %}.</p>
<table><tr><th>class</th><th>n</th><th>recall</th><th>precision</th><th>F1</th><th>AUC</th>
<th>average precision</th></tr>
{% for name, row in per_class.items() %}<tr><td>{{ name }}</td><td>{{ row.recall.n }}</td>
{% for figure in row.values() %}<td>{% if figure.value is none %}–{% else %}{{ "%.3f"|format(figure.value) }}
({{ "%.3f"|format(figure.low) }} to {{ "%.3f"|format(figure.high) }}){% endif %}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if tables %}<h2>Found and missed, class by class</h2>
<p class="small">{{ no_matrix }}</p>
<table><tr><th>class</th><th>there and named</th><th>there and not named</th><th>named and not there</th>
<th>neither</th></tr>
{% for name, cells in tables.items() %}<tr><td>{{ name }}</td>
{% for n in cells.values() %}<td>{{ n }}</td>{% endfor %}</tr>{% endfor %}</table>{% endif %}
{% if confused %}<h2>Most confused</h2>
<ul>{% for row in confused %}<li>{{ row.actual }} called {{ row.predicted }}: {{ row.n }} of {{ row.of }}
({{ row.low|percent }} to {{ row.high|percent }})</li>{% endfor %}</ul>{% endif %}
<h2>Escapes, false calls and costs</h2>
<p class="small">Costs of a sheet: {{ costs }}.</p>
<table><tr><th>class</th><th>n</th><th>escapes</th><th>false calls</th><th>referred</th><th>cost per 1,000</th></tr>
{% for row in plant %}<tr><td>{{ row.label }}</td><td>{{ row.n }}</td>
{% for name in ("escape", "false_call", "referred") %}<td>{{ row[name]|percent }}
{% if row[name] is not none %}({{ row[name ~ "_low"]|percent }} to {{ row[name ~ "_high"]|percent }}){% endif %}</td>
{% endfor %}<td>{{ "%.1f"|format(row.cost_per_1000) }}</td></tr>{% endfor %}</table>
{% endif %}
{% for figure in figures %}<h2>{{ figure.name }}</h2>
<figure role="img" aria-label="{{ figure.alternative }}">{{ figure.html }}
<figcaption>{{ figure.alternative }}</figcaption>
</figure>{% endfor %}
{% if worst %}<h2>The {{ worst|length }} images with the largest loss</h2>
{% if images %}<p class="small">{{ caution }}</p>{% else %}
<p class="small">Their pictures are not in this report, which may be passed on. {{ licence }}</p>{% endif %}
{% for item in worst %}<section class="worst"><div><strong>{{ item.file }}</strong><br>
predicted {{ item.predicted }}<br>actual {{ item.actual }}<br>loss {{ "%.2f"|format(item.loss) }}<br>
probability {{ item.probability|percent }}</div>
{% for caption, picture in item.pictures %}<div>{% if picture %}
<img src="{{ picture }}" alt="{{ item.file }}: {{ caption }}">
{% endif %}<p class="small">{{ caption }}</p></div>{% endfor %}</section>{% endfor %}{% endif %}
<h2>The checkpoint's card</h2>
<details><summary>All that is known of it, but for its long lists</summary><pre>{{ about }}</pre></details>
"""
