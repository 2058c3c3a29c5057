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

from markupsafe import Markup

from steel_core import html, plots, render
from steel_core.data.index import DatasetIndex
from steel_core.errors import ImageError
from steel_core.inference import Predictor
from steel_core.metrics import curves, decisions, most_confused, probabilities
from steel_core.recipes.evaluate import Evaluation
from steel_core.report import CAUTION, panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

WORST = 12
METHODS = ("grad-cam",)


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
    """
    counted = evaluation.labelled
    allowed = index is not None and (index.spec.redistributable if with_images is None else with_images)
    rows = counted.top_losses(worst)
    return html.document(
        _TEMPLATE,
        title=f"{predictor.card.title}: evaluation on {evaluation.data}",
        card=predictor.card, evaluation=evaluation, remarks=evaluation.remarks, caution=CAUTION,
        made=datetime.now(UTC).isoformat(timespec="seconds"), report=evaluation.report if len(counted) else None,
        per_class=evaluation.per_class() if len(counted) else {},
        confused=most_confused(evaluation.confusion()).to_dict("records") if len(counted) else [],
        plant=_plant(counted, costs) if len(counted) else [],
        outcomes=evaluation.table["outcome"].value_counts().to_dict(),
        figures=[html.drawn(name, figure, i) for i, (name, figure) in enumerate(evaluation_plots(evaluation).items())],
        worst=[_worst(row, predictor, index, methods, allowed) for row in rows.to_dict("records")],
        images=allowed, licence=index.spec.licence if index else "",
        about=json.dumps(_about(predictor), indent=1, ensure_ascii=False),
    )  # fmt: skip


def evaluation_plots(evaluation: Evaluation) -> dict[str, go.Figure]:
    """Every plot of an evaluation by its heading; those that need labels only where there are some."""
    counted = evaluation.labelled
    if not len(counted):
        return {}
    labels, groups = counted.labels, list(counted.groups)
    figures = counted.per_class()
    drawn = {"Confusion matrix": plots.confusion_matrix(counted.confusion())}
    flat = probabilities(counted.logits, counted.head)
    drawn["Calibration"] = plots.reliability(
        {
            "before": curves.reliability(flat, labels, groups),
            "after": curves.reliability(counted.probs, labels, groups),
        },
        curves.calibration(counted.logits, labels, counted.head, counted.temperature),
    )
    sides = {name: labels == k for k, name in enumerate(counted.classes) if 0 < (labels == k).sum() < len(labels)}
    place = {name: k for k, name in enumerate(counted.classes)}
    if sides:
        for heading, draw, curve, area in (
            ("ROC curves", plots.roc, curves.roc, "auc"),
            ("Precision and recall", plots.precision_recall, curves.precision_recall, "average_precision"),
        ):
            drawn[heading] = draw(
                {name: curve(counted.probs[:, place[name]], side, groups) for name, side in sides.items()},
                {name: figures[name][area].value for name in sides},
            )
    confidence = counted.table["confidence"].to_numpy()
    drawn["Risk against coverage"] = plots.risk_coverage(
        {counted.checkpoint: curves.risk_coverage(confidence, ~counted.wrong, groups)}
    )
    for name, side in sides.items():
        histogram = curves.score_histogram(counted.probs[:, place[name]], side)
        drawn[f"Scores of {name}"] = plots.score_histogram(histogram, name)
    weak = counted.segments()
    if len(weak):
        drawn["Weak segments"] = plots.segments(weak)
    return drawn


def _plant(counted: Evaluation, costs: decisions.Costs | None) -> list[dict[Any, Any]]:
    said = counted.table["outcome"].to_numpy(object)
    found = decisions.plant_figures(said, counted.labels, counted.classes, costs, groups=list(counted.groups))
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
                shown = panel(predictor, image, predictor.explain(image, method, row["pred"]))
                pictures.append((f"{shown.title}. {shown.caption}", html.inline(shown.picture)))
        except ImageError as error:
            pictures = [(str(error), Markup())]
    return Worst(row["file"], row["label"], row["pred"], row["loss"], row["confidence"], pictures)


def _about(predictor: Predictor) -> dict[str, Any]:
    """The card without the long lists of hashes."""
    card = asdict(predictor.card)
    card["split"] = {name: value for name, value in card["split"].items() if name != "files"}
    return card | {"checkpoint_hash": predictor.hash}


_TEMPLATE = """<h1>{{ title }}</h1>
<p>Part: {{ evaluation.part }}. {{ evaluation|length }} images. Made {{ made }} with checkpoint
{{ evaluation.checkpoint }} ({{ evaluation.checkpoint_hash[:12] }}).</p>
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
<table><tr><th>figure</th><th>value</th><th>from</th><th>to</th></tr>
{% for name in ("accuracy", "macro_recall", "macro_f1", "auc", "ece") %}{% set value = report[name] %}
<tr><td>{{ name.replace("_", " ") }}</td>{% if value is none %}<td colspan="3">one class only</td>{% else %}
<td>{{ "%.3f"|format(value) }}</td><td>{{ "%.3f"|format(report.intervals[name][0]) }}</td>
<td>{{ "%.3f"|format(report.intervals[name][1]) }}</td>{% endif %}</tr>{% endfor %}</table>
<p class="small">n = {{ report.n }} images in {{ report.groups }} groups of near-duplicates.</p>
<table><tr><th>class</th><th>n</th><th>recall</th><th>precision</th><th>F1</th><th>AUC</th>
<th>average precision</th></tr>
{% for name, row in per_class.items() %}<tr><td>{{ name }}</td><td>{{ row.recall.n }}</td>
{% for figure in row.values() %}<td>{% if figure.value is none %}–{% else %}{{ "%.3f"|format(figure.value) }}
({{ "%.3f"|format(figure.low) }} to {{ "%.3f"|format(figure.high) }}){% endif %}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if confused %}<h2>Most confused</h2>
<ul>{% for row in confused %}<li>{{ row.actual }} called {{ row.predicted }}: {{ row.n }} of {{ row.of }}
({{ row.low|percent }} to {{ row.high|percent }})</li>{% endfor %}</ul>{% endif %}
<h2>Escapes, false calls and costs</h2>
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
<pre>{{ about }}</pre>
"""
