"""An audit as one HTML file, from what `AuditReport.to_json` wrote: its sentences, plots and pairs of pictures."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from steel_core import render
from steel_core.audit.discover import format_retest_command
from steel_core.audit.stains import read_stencil
from steel_core.data.index import DatasetIndex
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.reports import audit_sentences, html
from steel_core.reports.audit_figures import (
    POSITIONS,
    Pair,
    draw_cut_stain,
    draw_exemplar,
    make_pairs,
    plot_controls,
    plot_doses,
    tabulate_classes,
)
from steel_core.reports.image_report import CAUTION, draw_panel

Captioned = list[tuple[str, Markup]]  # pictures, each with its caption


def render_audit_html(
    reports: Sequence[dict[str, Any]],
    predictor: Predictor | None = None,
    index: DatasetIndex | None = None,
    *,
    with_images: bool | None = None,
    most: int = 4,
) -> str:
    """One self-contained file: verdicts, estimates, plots, pairs of pictures, settings and hashes.

    The reports are of the same model and data. Pairs of pictures, at most `most`, need `predictor` and `index`. Whether
    pictures may stand in a report to be passed on is what the data set's licence says if `with_images` is None.
    """
    first = reports[0]
    if predictor is None or not (index and (index.spec.redistributable if with_images is None else with_images)):
        index = None
    return html.render_page(
        "audit.html",
        title=f"Shortcut audit of {first['model']} on {first['data']}",
        first=first,
        audits=[_describe(report, 100 * turn, predictor, index, most) for turn, report in enumerate(reports)],
        caution=CAUTION,
        sentences=audit_sentences,
        retest_command=partial(format_retest_command, checkpoint=first["model"], data=Path("FOLDER")),
    )


def _describe(
    report: dict[str, Any], number: int, predictor: Predictor | None, index: DatasetIndex | None, most: int
) -> dict[str, Any]:
    """What the page shows of one audit: its plots are counted from `number`; no pictures without an index."""
    stain = read_stencil(report["detail"].get("cut_stain", "")) if index else None
    figures = {"Against each control": plot_controls(report)} | {
        f"Dose and response, stains {words}": plot_doses(report, name) for name, words in POSITIONS.items()
    }
    pairs = make_pairs(predictor, index, report, most) if predictor and index else []
    return {
        "report": report,
        "classes": tabulate_classes(report["findings"][0]).to_dict("records") if report["findings"] else [],
        "figures": [
            html.embed_plot(name, figure, number + i)
            for i, (name, figure) in enumerate(figures.items())
            if figure is not None
        ],
        "pairs": [(pair.file, _draw_pair(predictor, pair)) for pair in pairs if predictor],
        "stain": stain and html.embed_picture(draw_cut_stain(stain)),
        "suspects": [
            (suspect, _draw_exemplars(suspect.cluster, index)) for suspect in audit_sentences.list_suspects(report)
        ],
        "settings": json.dumps(report["settings"], indent=1, ensure_ascii=False, default=str),
    }


def _draw_pair(predictor: Predictor, pair: Pair) -> Captioned:
    pictures: Captioned = []
    for row in pair.rows[:2]:
        watched = row.attribution.target
        outcome = f"{row.prediction.outcome}; {watched} {render.percent(row.prediction.probs[watched])}"
        pictures.append((f"{row.title}: {outcome}", html.embed_picture(render.thumbnail(row.image, 320))))
        shown = draw_panel(predictor, row.image, row.attribution)
        pictures.append((f"{row.title}, Grad-CAM. {shown.caption}", html.embed_picture(shown.picture)))
    return pictures


def _draw_exemplars(cluster: dict[str, Any], index: DatasetIndex | None) -> Captioned:
    pictures: Captioned = []
    if index is None:
        return pictures
    for example in cluster["exemplars"]:
        try:
            image = index.image(example["row"])
        except (SteelError, IndexError):  # the file has gone; the others still show
            continue
        if image.sha256 == example["sha256"]:
            caption = f"{example['file']}, box {','.join(map(str, example['box']))}"
            pictures.append((caption, html.embed_picture(draw_exemplar(image, example["box"]))))
    return pictures
