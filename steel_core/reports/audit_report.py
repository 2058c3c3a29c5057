"""An audit as one HTML file, and its plots, tables and pictures, from what `AuditReport.to_json` wrote.

Only the pairs of pictures need checkpoint and data set again; where either has changed, they are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from steel_core import render
from steel_core.audit.bench import BenchRow, run_bench
from steel_core.audit.discover import format_retest_command
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.audit.stains import derive_image_seed, make_stain, read_stencil
from steel_core.audit.white_stain import REMOVED
from steel_core.data.index import DatasetIndex
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import wilson_interval
from steel_core.perturb.stencil import Stencil
from steel_core.render import audit_plots
from steel_core.render.plots import Figure
from steel_core.reports import audit_sentences, html
from steel_core.reports.image_report import CAUTION, draw_panel
from steel_core.types import Box, SteelImage, UInt8Array

_GROUND = 0.2  # grey behind a stain that was cut out
_CHANGES = {"white-stain": "white stain", "edges": "border replaced", "discover": "the pasted patch"}


class Pair(NamedTuple):
    """One image of an audit with and without the stain: its file, and what the bench showed of it."""

    file: str
    rows: tuple[BenchRow, ...]


def draw_exemplar(image: SteelImage, box: Sequence[int], longest: int = 320) -> UInt8Array:
    """A square part of an image around a box (left, top, width, height; pixels), which is outlined."""
    left, top, width, height = box
    side = min(image.height, image.width)
    rows, columns = (
        int(np.clip(start + own / 2 - side / 2, 0, full - side))
        for start, own, full in ((top, height, image.height), (left, width, image.width))
    )
    part = replace(image, pixels=image.pixels[rows : rows + side, columns : columns + side])
    frame = Box("", left - columns, top - rows, left - columns + width, top - rows + height)
    return render.draw_boxes(render.thumbnail(part, longest), [frame], (side, side))


def draw_cut_stain(stain: Stencil) -> UInt8Array:
    """A stain that was cut out (h, w, 3), with a rim of dark grey, so that its soft edge is seen."""
    assert stain.grey is not None
    shown = np.pad(stain.cover * stain.grey + (1 - stain.cover) * _GROUND, 2, constant_values=_GROUND)
    return np.repeat(np.rint(255 * shown).astype(np.uint8)[..., None], 3, axis=2)


def tabulate_classes(finding: dict[str, Any]) -> pd.DataFrame:
    """One row a class: flip rate, that of the strongest control, excess with its interval, confidence lost, images."""
    return pd.DataFrame(
        {
            "class": name,
            **{column: effect[column] for column in ("flip_rate", "control_flip_rate", "excess")},
            **dict(zip(("low", "high"), effect["interval"], strict=True)),
            **{column: effect[column] for column in ("drop", "n")},
        }
        for name, effect in finding["per_class"].items()
        if effect["n"]
    )


def tabulate_outcomes(finding: dict[str, Any]) -> pd.DataFrame:
    """One row for each picture shown: shares of defective sheets passed, referred, named wrong; images."""
    return pd.DataFrame(
        {"shown": name.replace("-", " "), **{word: of[word] for word in ("passed", "referred", "named wrong")}}
        | {"images": of["n"]}
        for name, of in finding.get("outcomes", {}).items()
        if of["n"]
    )


def plot_controls(report: dict[str, Any]) -> Figure | None:
    """The change against each of its controls, with Wilson intervals over independent images; None without any."""
    if not report["findings"] or report["audit"] not in _CHANGES or report["excess"] is None:
        return None
    first = report["findings"][0]
    changed = "stain painted over" if first["name"] == REMOVED else _CHANGES[report["audit"]]
    changed = "cut-out stain" if changed == "white stain" and "cut_stain" in report["detail"] else changed
    shares = {changed: first["flip_rate"]} | {name.replace("-", " "): rate for name, rate in first["controls"].items()}
    # The rates are of n images in fewer independent groups: the interval counts the groups.
    rates = {name: (rate, *wilson_interval(rate, first["groups"])) for name, rate in shares.items()}
    return audit_plots.flip_rates(rates, first["n"], changed)


def plot_doses(report: dict[str, Any]) -> Figure | None:
    """Each stain that was tested, and the worst where it is no evidence; None without several.

    Reports before December 2026 hold doses by area and brightness, and have no such plot.
    """
    rows = report["detail"].get("doses", [])
    if len(rows) < 2 or "words" not in rows[0]:
        return None
    places = {"anywhere": "the worst of these, wherever it falls", "on": "the same, on the defect: no evidence"}
    rows = rows + [row | {"words": places[row["position"]], "proved": False} for row in report["detail"]["elsewhere"]]
    table = pd.DataFrame(rows)
    return audit_plots.doses(
        table.assign(low=[row["interval"][0] for row in rows], high=[row["interval"][1] for row in rows])
    )


def make_pairs(predictor: Predictor, index: DatasetIndex, report: dict[str, Any], most: int = 4) -> list[Pair]:
    """The images of a white-stain audit that the stain moved the most, with the very same stain made again.

    At most `most`; fewer where files have changed since, and none for audits of other kinds.
    """
    if report["audit"] != "white-stain" or report["model_hash"] != predictor.hash:
        return []
    described = report["detail"].get("dose", report["settings"])  # the worst of a family
    settings = StainSettings.from_json(described).replace(cut_stain=report["detail"].get("cut_stain", ""))
    stain, pairs = make_stain(settings), []
    for example in report["detail"]["examples"][:most]:
        try:
            image = index.image(example["row"])
            if image.sha256 != example["sha256"]:
                continue
            grid, _ = predictor.card.preprocessing.to_grid(image)
            defect = read_defect_mask(index, example["row"], (image.height, image.width), grid.shape)
            rows = run_bench(
                predictor,
                image,
                stain,
                settings.area,
                defect=defect,
                watched=report["detail"]["towards"],
                seed=derive_image_seed(report["seed"], image.sha256),
            )
        except (SteelError, IndexError):  # the file has gone or changed; the others still show
            continue
        pairs.append(Pair(example["file"], rows))
    return pairs


Captioned = list[tuple[str, Markup]]  # pictures, each with its caption


def render_audit_html(
    reports: Sequence[dict[str, Any]],
    predictor: Predictor | None = None,
    index: DatasetIndex | None = None,
) -> str:
    """One self-contained file: verdicts, estimates, plots, pairs of pictures, settings and hashes.

    The reports are of the same model and data. Pairs of pictures need `predictor` and `index`, and a data set whose
    licence lets pictures stand in a report to be passed on.
    """
    first = reports[0]
    if predictor is None or not (index and index.spec.redistributable):
        index = None
    return html.render_page(
        "audit.html",
        title=f"Shortcut audit of {first['model']} on {first['data']}",
        first=first,
        audits=[_describe(report, 100 * turn, predictor, index) for turn, report in enumerate(reports)],
        caution=CAUTION,
        sentences=audit_sentences,
        retest_command=partial(format_retest_command, checkpoint=first["model"], data=Path("FOLDER")),
    )


def _describe(
    report: dict[str, Any], number: int, predictor: Predictor | None, index: DatasetIndex | None
) -> dict[str, Any]:
    """What the page shows of one audit: its plots are counted from `number`; no pictures without an index."""
    stain = read_stencil(report["detail"].get("cut_stain", "")) if index else None
    figures = {"Against each control": plot_controls(report), "Each stain that was tested": plot_doses(report)}
    pairs = make_pairs(predictor, index, report) if predictor and index else []
    return {
        "report": report,
        "classes": tabulate_classes(report["findings"][0]).to_dict("records") if report["findings"] else [],
        "outcomes": tabulate_outcomes(report["findings"][0]).to_dict("records") if report["findings"] else [],
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
