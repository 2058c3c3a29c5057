"""An audit for people: its verdict in plain sentences, its plots, its pairs of pictures, and one HTML file of it all.

Everything here starts from what `AuditReport.to_json` wrote, so an audit of last year reads like one of today. Only the
pairs of pictures need the checkpoint and the data set again; where either has changed, they are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from steel_core import render
from steel_core.audit.bench import BenchRow, bench
from steel_core.audit.discover import retest
from steel_core.audit.sheets import defect_mask
from steel_core.audit.statistics import AGAINST, ALPHA, FOR, LEAST
from steel_core.audit.white_stain import REMOVED, cut_stain, seed_of
from steel_core.data.index import DatasetIndex
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import wilson
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.stencil import Stencil
from steel_core.render import plots
from steel_core.reports import html
from steel_core.reports.image_report import CAUTION, panel
from steel_core.types import Box, SteelImage

if TYPE_CHECKING:
    import plotly.graph_objects as go

Report = dict[str, Any]
"""What `AuditReport.to_json` gave, perhaps read back from a file."""

SHORTCUT, SUSPICIOUS, QUIET = "shortcut", "worth a look", "no finding"
"""How severe a finding is, the worst first."""

POSITIONS = {"off": "beside the defect", "anywhere": "anywhere", "on": "on the defect"}

EXCESS = (
    "Excess: the verdicts that the change turns beyond those that its strongest control turns, on the same images at "
    "the same places. Hiding steel turns verdicts too; only what goes beyond that is the doing of what is shown. The "
    "interval holds the true value in 95 of 100 such audits."
)
"""What the figure at the heart of every audit means."""

_GROUND = 0.2  # grey behind a stain that was cut out

_CHANGES = {"white-stain": "white stain", "edges": "border replaced", "discover": "the pasted patch"}
_FOUND = {
    "white-stain": "This model takes a harmless white stain for a sign of {towards}.",
    "edges": "The border of the picture turns verdicts of this model.",
    "properties": "A property of the picture, and not the steel, goes with the label and moves this model.",
    "discover": "There is something beside the defects that goes with a label and turns verdicts by itself.",
}
_ABSENT = {
    "white-stain": "A white stain turns hardly more verdicts of this model than a patch that is no stain.",
    "edges": "The border of the picture turns hardly more verdicts than a band inside it.",
    "properties": "No property of the picture goes with the label, moves this model and holds its evidence at once.",
    "discover": "No evidence beside the defects was found that turns verdicts by itself.",
}


class Suspect(NamedTuple):
    """Evidence of one kind that a search found: the cluster, and what pasting it showed.

    Attributes:
        cluster: of the report's `detail["clusters"]`.
        severity: of the finding.
        finding: None for a cluster that was not pasted.
    """

    cluster: dict[str, Any]
    severity: str
    finding: dict[str, Any] | None


class Pair(NamedTuple):
    """One image of an audit with and without the stain: its file, and what the bench showed of it."""

    file: str
    rows: tuple[BenchRow, ...]


def in_plain_words(report: Report) -> str:
    """What the verdict means, in one sentence."""
    if report["verdict"] == FOR and "cut_stain" in report["detail"]:
        return f"This model takes a stain like the one that was cut out for a sign of {report['detail']['towards']}."
    if report["verdict"] == FOR:
        return _FOUND[report["audit"]].format(towards=report["detail"].get("towards", "a class"))
    if report["verdict"] == AGAINST:
        return _ABSENT[report["audit"]]
    if not report["findings"]:
        return "No image could be tested, so nothing can be said."
    return "These images are too few, or the effect lies too close to what is put up with, to tell."


def missed(report: Report) -> str:
    """What effect would have been found in so many images, and what could have been missed, in one sentence."""
    if report["excess"] is None:
        return "No image could be tested."
    if report["detectable"] >= 1:
        return f"{report['groups']} independent images are too few to find any effect dependably; {LEAST} is the least."
    return (
        f"With {report['groups']} independent images, an excess of {render.percent(report['detectable'])} or more "
        "would have been found 4 times in 5. A smaller one could have been missed."
    )


def in_words(finding: dict[str, Any]) -> str:
    """A finding with its own verdict, in one line."""
    # Audits of before November 2026 had one verdict for all of their findings.
    if "verdict" not in finding:
        return str(finding["sentence"])
    verdict = finding["verdict"]
    return f"{verdict[0].upper()}{verdict[1:]}. {finding['sentence']}"


def severity(report: Report, finding: dict[str, Any]) -> str:
    """How severe a finding is: `SHORTCUT`, `SUSPICIOUS` or `QUIET`."""
    excess, legs = finding["excess"], list(finding["legs"].values())
    beyond = (
        excess is not None
        and finding["groups"] >= LEAST
        and finding["p_corrected"] < ALPHA / 2
        and excess > report["settings"].get("tolerated", 0.05)
    )
    if beyond and all(leg is True for leg in legs if report["audit"] == "properties"):
        return SHORTCUT
    hint = sum(leg is True for leg in legs) >= 2 if report["audit"] == "properties" else finding["interval"][0] > 0
    return SUSPICIOUS if beyond or (excess is not None and hint) else QUIET


def evidence_in_words(report: Report) -> str:
    """How much of the evidence lies where no steel should count, in one sentence; "" where that was not measured."""
    inside, border = (report["detail"].get(name) or {} for name in ("evidence_inside", "evidence_in_border"))
    if inside.get("stain") is not None:
        shares = {name: render.percent(inside[name]) for name in ("stain", "before", "clean steel", "area")}
        return (
            f"Of the evidence for {inside['class']}, {shares['stain']} lies inside the stain, against "
            f"{shares['before']} at the same place before, {shares['clean steel']} with clean steel, and "
            f"{shares['area']} of the area (n = {inside['n']})."
        )
    if border.get("share") is not None:
        low, high = (f"{100 * end:+.1f} %" for end in border["interval_of_difference"])
        return (
            f"{render.percent(border['share'])} of the evidence lies in the border, which is "
            f"{render.percent(border['area'])} of the area (difference {low} to {high}, n = {border['n']})."
        )
    return ""


def by_severity(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """Severity and finding of each, the worst first, then in the order of the report."""
    order = [SHORTCUT, SUSPICIOUS, QUIET]
    return sorted(
        ((severity(report, found), found) for found in report["findings"]), key=lambda pair: order.index(pair[0])
    )


def other_directions(report: Report) -> list[str]:
    """What the stain does towards the classes that the verdict does not rest on, a sentence each."""
    return [
        f"The other way, {name}: the stain turns {render.percent(effect['flip_rate'])} of {effect['n']} images, its "
        f"strongest control, {effect['control'].replace('-', ' ')}, {render.percent(effect['control_flip_rate'])}. "
        "The verdict does not rest on it."
        for name, effect in report["detail"].get("other_direction", {}).items()
        if effect["n"]
    ]


def why_not_pasted(report: Report, cluster: dict[str, Any]) -> str:
    """Why a search left it at looking at this cluster, in one sentence."""
    if cluster["kind"] == "maps":
        return "Shown, not pasted: a place cannot be cut out."
    beside, least = cluster["beside_the_defect"], report["settings"].get("beside", 0.8)
    if beside is not None and beside < least:
        met = render.percent(1 - beside)
        return f"Not pasted: {met} of these patches meet the defect, and to look at a defect is no shortcut."
    return "Not pasted: others go with a label more closely."


def suspects(report: Report, most: int = 6) -> list[Suspect]:
    """The clusters of a search, those that were pasted first; none of other audits."""
    pasted = by_severity(report)
    told = [
        Suspect(cluster, *next((pair for pair in pasted if pair[1].get("cluster") == cluster), (QUIET, None)))
        for cluster in report["detail"].get("clusters", [])
    ]
    return sorted(told, key=lambda one: one.finding is None)[:most]


def cluster_in_words(cluster: dict[str, Any]) -> str:
    """What images share and which label it goes with, in one sentence."""
    low, high = (render.percent(end) for end in cluster["interval"])
    alike = {"maps": "evidence lies in the same place", "patches": "evidence lies on a patch that looks alike"}
    return (
        f"{cluster['n']} images whose {alike[cluster['kind']]}: {render.percent(cluster['share'])} of them are "
        f"{cluster['label']} (95 % interval {low} to {high}), which is the label of "
        f"{render.percent(cluster['prior'])} of all."
    )


def exemplar_picture(image: SteelImage, box: Sequence[int], longest: int = 320) -> render.Picture:
    """A square part of an image around a box (left, top, width, height; pixels), which is outlined."""
    left, top, width, height = box
    side = min(image.height, image.width)
    rows, columns = (
        int(np.clip(start + own / 2 - side / 2, 0, full - side))
        for start, own, full in ((top, height, image.height), (left, width, image.width))
    )
    part = replace(image, pixels=image.pixels[rows : rows + side, columns : columns + side])
    frame = Box("", left - columns, top - rows, left - columns + width, top - rows + height)
    return render.outlined(render.thumbnail(part, longest), [frame], (side, side))


def stain_picture(stain: Stencil) -> render.Picture:
    """A stain that was cut out (h, w, 3), with a rim of dark grey, so that its soft edge is seen."""
    assert stain.grey is not None
    shown = np.pad(stain.cover * stain.grey + (1 - stain.cover) * _GROUND, 2, constant_values=_GROUND)
    return np.repeat(np.rint(255 * shown).astype(np.uint8)[..., None], 3, axis=2)


def classes(finding: dict[str, Any]) -> pd.DataFrame:
    """One row a class: flip rate, that of the strongest control, excess with its interval, confidence lost, images."""
    return pd.DataFrame(
        {
            "class": name,
            "flip_rate": effect["flip_rate"],
            "control_flip_rate": effect["control_flip_rate"],
            "excess": effect["excess"],
            "low": effect["interval"][0],
            "high": effect["interval"][1],
            "drop": effect["drop"],
            "n": effect["n"],
        }
        for name, effect in finding["per_class"].items()
        if effect["n"]
    )


def compared(report: Report) -> go.Figure | None:
    """The change against each of its controls, with Wilson intervals over independent images; None without any."""
    if not report["findings"] or report["audit"] not in _CHANGES or report["excess"] is None:
        return None
    first = report["findings"][0]
    changed = "stain painted over" if first["name"] == REMOVED else _CHANGES[report["audit"]]
    changed = "cut-out stain" if changed == "white stain" and "cut_stain" in report["detail"] else changed
    shares = {changed: first["flip_rate"]} | {name.replace("-", " "): rate for name, rate in first["controls"].items()}
    # The rates are of n images in fewer independent groups: the interval counts the groups.
    rates = {name: (rate, *wilson(rate, first["groups"])) for name, rate in shares.items()}
    return plots.flip_rates(rates, first["n"], changed)


def dose_response(report: Report, position: str) -> go.Figure | None:
    """Area by brightness for stains in one position out of `POSITIONS`; None without several doses."""
    table = pd.DataFrame(report["detail"].get("doses", []))
    if (
        table.empty
        or not (table["position"] == position).any()
        or len(table[["area", "brightness"]].value_counts()) < 2
    ):
        return None
    figure = plots.doses(table[table["position"] == position], POSITIONS[position])
    if "cut_stain" in report["detail"]:  # it keeps its own brightness
        figure.update_yaxes(title="", showticklabels=False)
    return figure


def pairs(predictor: Predictor, index: DatasetIndex, report: Report, most: int = 4) -> list[Pair]:
    """The images of a white-stain audit that the stain moved the most, with the very same stain made again.

    Args:
        predictor: the checkpoint that was audited.
        index: the data set that it was audited on.
        report: of kind "white-stain"; others have no pairs.
        most: how many.

    Returns:
        Fewer, or none, where files have changed since.
    """
    if report["audit"] != "white-stain" or report["model_hash"] != predictor.hash:
        return []
    settings, source = report["settings"], cut_stain(report)
    if source is None and settings["stain"] != "drawn":  # cut out before November 2026, and not kept
        return []
    stain = WhiteStain(
        shape=settings["shape"],
        number=settings["number"],
        source=source,
        brightness=settings["brightness"],
        texture=settings["texture"],
    )
    made = []
    for example in report["detail"]["examples"][:most]:
        try:
            image = index.image(example["row"])
            if image.sha256 != example["sha256"]:
                continue
            grid, _ = predictor.card.preprocessing.to_grid(image)
            defect = defect_mask(index, example["row"], (image.height, image.width), grid.shape)
            rows = bench(
                predictor,
                image,
                stain,
                settings["area"],
                defect=defect,
                watched=report["detail"]["towards"],
                seed=seed_of(report["seed"], image.sha256),
            )
        except (SteelError, IndexError):  # the file has gone or changed; the others still show
            continue
        made.append(Pair(example["file"], rows))
    return made


def audit_html(
    reports: Sequence[Report],
    predictor: Predictor | None = None,
    index: DatasetIndex | None = None,
    *,
    with_images: bool | None = None,
    most: int = 4,
) -> str:
    """One self-contained file: verdicts, figures, plots, pairs of pictures, settings and hashes.

    Args:
        reports: one for each question that was asked of the same model and data.
        predictor: the checkpoint, for the pairs of pictures; without it there are none.
        index: the data set, for the same.
        with_images: whether pictures may stand in the report, which may be passed on; as the data set's licence says
            if None.
        most: pairs of pictures at the most.
    """
    allowed = predictor is not None and index is not None
    if allowed and index is not None:
        allowed = index.spec.redistributable if with_images is None else with_images
    told: list[dict[str, Any]] = []
    for report in reports:
        stain = cut_stain(report) if allowed else None
        figures = {"Against each control": compared(report)} | {
            f"Dose and response, stains {words}": dose_response(report, name) for name, words in POSITIONS.items()
        }
        told.append(
            {
                "report": report,
                "plain": in_plain_words(report),
                "missed": missed(report),
                "evidence": evidence_in_words(report),
                "findings": by_severity(report),
                "classes": classes(report["findings"][0]).to_dict("records") if report["findings"] else [],
                "figures": [
                    html.drawn(name, figure, 100 * len(told) + i)
                    for i, (name, figure) in enumerate(figures.items())
                    if figure is not None
                ],
                "pairs": [
                    _drawn_pair(predictor, pair)
                    for pair in (pairs(predictor, index, report, most) if predictor and index and allowed else [])
                    if predictor
                ],
                "stain": stain and html.inline(stain_picture(stain)),
                "suspects": [_drawn_suspect(report, one, index if allowed else None) for one in suspects(report)],
                "settings": json.dumps(report["settings"], indent=1, ensure_ascii=False, default=str),
            }
        )
    first = reports[0]
    return html.document(
        _TEMPLATE,
        title=f"Shortcut audit of {first['model']} on {first['data']}",
        first=first,
        told=told,
        caution=CAUTION,
        excess_means=EXCESS,
        in_words=in_words,
        cluster_in_words=cluster_in_words,
        why_not_pasted=why_not_pasted,
        other_directions=other_directions,
    )


def _drawn_pair(predictor: Predictor, pair: Pair) -> dict[str, Any]:
    pictures: list[tuple[str, Markup]] = []
    for row in pair.rows[:2]:
        watched = row.attribution.target
        said = f"{row.prediction.outcome}; {watched} {render.percent(row.prediction.probs[watched])}"
        pictures.append((f"{row.title}: {said}", html.inline(render.thumbnail(row.image, 320))))
        shown = panel(predictor, row.image, row.attribution)
        pictures.append((f"{row.title}, Grad-CAM. {shown.caption}", html.inline(shown.picture)))
    return {"file": pair.file, "pictures": pictures}


def _drawn_suspect(report: Report, one: Suspect, index: DatasetIndex | None) -> dict[str, Any]:
    """A cluster with its exemplars, each with the box of its patch, and the command that tests the first by itself."""
    pictures: list[tuple[str, Markup]] = []
    boxed = [example for example in one.cluster["exemplars"] if "box" in example]  # none before November 2026
    for example in boxed:
        if index is None:
            break
        try:
            image = index.image(example["row"])
        except (SteelError, IndexError):  # the file has gone; the others still show
            continue
        if image.sha256 == example["sha256"]:
            said = f"{example['file']}, box {','.join(map(str, example['box']))}"
            pictures.append((said, html.inline(exemplar_picture(image, example["box"]))))
    again = retest(one.cluster, report["model"], Path("FOLDER")) if boxed else ""
    return {**one._asdict(), "pictures": pictures, "retest": again}


_TEMPLATE = """<h1>{{ title }}</h1>
<p>{{ first.images }} images. Made {{ first.created }} with steel_core {{ first.code_version }},
seed {{ first.seed }}.</p>
{% for item in told %}{% set report = item.report %}
<h2>{{ report.question }}</h2>
<p><strong>{{ report.verdict[0]|upper }}{{ report.verdict[1:] }}.</strong> {{ item.plain }}</p>
{% if report.excess is not none %}
<table><tr><th>{{ report.finding }}</th><th>value</th></tr>
<tr><td>verdicts turned</td><td>{{ report.flip_rate|percent }} of {{ report.n }}</td></tr>
<tr><td>by the strongest control</td><td>{{ report.control_flip_rate|percent }}</td></tr>
<tr><td>excess</td><td>{{ "%+.1f"|format(100 * report.excess) }} %</td></tr>
<tr><td>its 95 % interval</td><td>{{ "%+.1f"|format(100 * report.interval[0]) }} to
{{ "%+.1f"|format(100 * report.interval[1]) }} %</td></tr></table>
<p class="small">{{ excess_means }}</p>
{% endif %}<p>{{ item.missed }}</p>
<h3>Findings, the most severe first</h3>
<ul>{% for severity, finding in item.findings %}<li><strong>{{ severity }}</strong>: {{ in_words(finding) }}</li>
{% else %}<li>Nothing could be tested.</li>{% endfor %}
{% for sentence in other_directions(report) %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% if item.classes %}<h3>By class</h3>
<table><tr><th>class</th><th>turned</th><th>strongest control</th><th>excess</th><th>from</th><th>to</th>
<th>confidence lost</th><th>n</th></tr>
{% for row in item.classes %}<tr><td>{{ row["class"] }}</td><td>{{ row.flip_rate|percent }}</td>
<td>{{ row.control_flip_rate|percent }}</td>{% for name in ("excess", "low", "high") %}
<td>{{ "%+.1f"|format(100 * row[name]) }} %</td>{% endfor %}
<td>{% if row.drop == row.drop and row.drop is not none %}{{ "%+.1f"|format(100 * row.drop) }} %{% endif %}</td>
<td>{{ row.n }}</td></tr>{% endfor %}</table>{% endif %}
{% if item.evidence %}<p>{{ item.evidence }}</p>{% endif %}
{% if report.detail.get("moves") %}<h3>The whole picture moved, or cut</h3>
<table><tr><th>change</th><th>share of the side</th><th>turned</th><th>confidence lost</th><th>n</th></tr>
{% for row in report.detail.moves %}<tr><td>{{ row.change }}</td><td>{{ row.severity|percent }}</td>
<td>{{ row.flip_rate|percent }}</td><td>{{ "%+.1f"|format(100 * row.confidence_drop) }} %</td><td>{{ row.n }}</td></tr>
{% endfor %}</table>{% endif %}
{% for figure in item.figures %}<h3>{{ figure.name }}</h3>
<figure role="img" aria-label="{{ figure.alternative }}">{{ figure.html }}
<figcaption>{{ figure.alternative }}</figcaption></figure>{% endfor %}
{% if item.pairs %}<h3>Pairs: the images that the stain moved the most</h3>
<p class="small">They were chosen because they moved; the figures above say how often that happens. {{ caution }}</p>
{% for pair in item.pairs %}<h4>{{ pair.file }}</h4><section class="worst">
{% for caption, picture in pair.pictures %}<div><img src="{{ picture }}" alt="{{ pair.file }}. {{ caption }}">
<p class="small">{{ caption }}</p></div>{% endfor %}</section>{% endfor %}{% endif %}
{% if item.stain %}<h3>The stain that was cut out and pasted</h3>
<p><img src="{{ item.stain }}" alt="The stain, on dark grey"> {{ report.settings.cut_from }}</p>{% endif %}
{% if item.suspects %}<h3>Evidence of one kind</h3>
{% for one in item.suspects %}<p>{{ cluster_in_words(one.cluster) }}
{% if one.finding %}<strong>{{ one.severity }}</strong>: {{ in_words(one.finding) }}
{% else %}{{ why_not_pasted(report, one.cluster) }}{% endif %}</p>
{% if one.pictures %}<section class="worst">{% for caption, picture in one.pictures %}<div>
<img src="{{ picture }}" alt="{{ caption }}"><p class="small">{{ caption }}</p></div>{% endfor %}</section>{% endif %}
{% if one.finding and one.retest %}<p class="small">The first patch tested by itself, FOLDER being that of the images:
<code>{{ one.retest }}</code></p>{% endif %}{% endfor %}{% endif %}
<h3>Limits</h3>
<ul><li>A map shows influence, not cause.</li>
{% for limit in report.limits %}<li>{{ limit }}</li>{% endfor %}</ul>
<h3>Settings</h3>
<pre>{{ item.settings }}</pre>
{% endfor %}
<h2>What was audited</h2>
<table><tr><td>model</td><td>{{ first.model }}</td></tr><tr><td>model hash</td><td>{{ first.model_hash }}</td></tr>
<tr><td>data</td><td>{{ first.data }}</td></tr><tr><td>data hash</td><td>{{ first.data_hash }}</td></tr></table>
"""
