"""Plots, tables and pictures of an audit, from what `AuditReport.to_json` wrote.

Only the pairs of pictures need checkpoint and data set again; where either has changed, they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from steel_core import render
from steel_core.audit.bench import BenchRow, run_bench
from steel_core.audit.settings import StainSettings
from steel_core.audit.sheets import read_defect_mask
from steel_core.audit.stains import derive_image_seed, make_stain
from steel_core.audit.white_stain import REMOVED
from steel_core.data.index import DatasetIndex
from steel_core.errors import SteelError
from steel_core.inference.predictor import Predictor
from steel_core.metrics.intervals import wilson_interval
from steel_core.perturb.stencil import Stencil
from steel_core.render import audit_plots
from steel_core.types import Box, SteelImage, UInt8Array

if TYPE_CHECKING:
    import plotly.graph_objects as go


POSITIONS = {"off": "beside the defect", "anywhere": "anywhere", "on": "on the defect"}


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


def plot_controls(report: dict[str, Any]) -> go.Figure | None:
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


def plot_doses(report: dict[str, Any], position: str) -> go.Figure | None:
    """Area by brightness for stains in one position out of `POSITIONS`; None without several doses."""
    table = pd.DataFrame(report["detail"].get("doses", []))
    if (
        table.empty
        or not (table["position"] == position).any()
        or len(table[["area", "brightness"]].value_counts()) < 2
    ):
        return None
    figure = audit_plots.doses(table[table["position"] == position], POSITIONS[position])
    if "cut_stain" in report["detail"]:  # it keeps its own brightness
        figure.update_yaxes(title="", showticklabels=False)
    return figure


def make_pairs(predictor: Predictor, index: DatasetIndex, report: dict[str, Any], most: int = 4) -> list[Pair]:
    """The images of a white-stain audit that the stain moved the most, with the very same stain made again.

    At most `most`; fewer where files have changed since, and none for audits of other kinds.
    """
    if report["audit"] != "white-stain" or report["model_hash"] != predictor.hash:
        return []
    settings = StainSettings.from_json(report["settings"]).replace(cut_stain=report["detail"].get("cut_stain", ""))
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
