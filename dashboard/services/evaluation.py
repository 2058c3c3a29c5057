"""Evaluations of a model on a data set, made once by a worker."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.services import datasets, files, jobs, models
from steel_core.data.index import DatasetIndex
from steel_core.evaluation.compare import Comparison, compare
from steel_core.evaluation.estimates import Figures, kept_figures, kept_paired
from steel_core.evaluation.evaluate import (
    PARTS,
    Evaluation,
    data_key,
    find_evaluation,
    in_words_of,
    stored_evaluation,
)
from steel_core.evaluation.thresholds import Choice, propose_thresholds, save_thresholds
from steel_core.inference.predictor import Predictor
from steel_core.metrics import Figure, curves, decisions, most_confused
from steel_core.metrics.decisions import Costs
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.render import plots
from steel_core.render.plot_png import pngs
from steel_core.reports.evaluation_report import NO_MATRIX, evaluation_html, evaluation_plots, main_figures
from steel_core.store.triage import FINDINGS, Triage, TriageStore

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["NO_MATRIX"]

ANY = "any"
"""Stands for every class where a cell of a confusion matrix is asked for."""

EVALUATION_PARTS = PARTS

TRIAGE = FINDINGS[:-1]
"""What a person may find about an image; without "open", which takes it back."""

_SECONDS_AN_IMAGE = 0.08  # to decode, predict and measure, until it was timed here


class _NotStored(Exception):  # noqa: N818
    """Nobody has made this evaluation yet. Raised, because what a cached function raises is not kept."""


@st.cache_resource(show_spinner=False)
def _in_work() -> dict[tuple[str, str], jobs.Task[Evaluation]]:
    return {}


def evaluating(model: Predictor, data: str) -> jobs.Task[Evaluation] | None:
    """The evaluation of a model on a data set that is being made, if one is; all sessions share it."""
    job = _in_work().get((model.hash, data))
    return None if job is None or job.stopped else job


def start(model: Predictor, data: str) -> None:
    """Let a worker make an evaluation, unless one is at it."""
    if not evaluating(model, data):
        _in_work()[model.hash, data] = jobs.Task("evaluation", functools.partial(_make, model, datasets.dataset(data)))


def _make(model: Predictor, index: DatasetIndex, count: jobs.Count) -> Evaluation:
    made = stored_evaluation(model, index, None, count)
    for part in PARTS:  # a page shall not wait for a bootstrap, whichever part it shows
        count(f"counting figures, {part}", 0, 0)
        if len((chosen := made.select(part)).labelled):
            kept_figures(chosen)
    return made


def seconds_to_evaluate(data: str) -> float:
    """How long an evaluation will take, roughly."""
    return len(datasets.dataset(data)) * _SECONDS_AN_IMAGE


def stored(model: Predictor, data: str, part: str = "all") -> Evaluation | None:
    """What the model said of a part of a data set; None where nobody has computed it yet.

    Raises:
        SteelError: a worker could not make it, or the part is unknown.
    """
    if job := evaluating(model, data):
        if not job.made.done():
            return None
        if job.made.exception():
            _in_work().pop((model.hash, data), None)
        job.made.result()
    try:
        folder = datasets.available()[data]
        index, key = _keyed(folder, files.stamp(folder), model.classes)
        whole = _stored(model.hash, key, model, index, data)
    except _NotStored:
        return None
    _in_work().pop((model.hash, data), None)
    return _part(whole, part)


def part_of(whole: Evaluation, part: str) -> Evaluation:
    """A part of an evaluation of all images."""
    return _part(whole, part)


@st.cache_resource(max_entries=8, ttl=60, show_spinner=False)
def _keyed(folder: Path, stamp: int, classes: tuple[str, ...]) -> tuple[DatasetIndex, str]:
    """A data set, and the key of its evaluations by a model of these classes."""
    index = datasets.opened(folder, stamp)
    return index, data_key(in_words_of(index, classes))


@st.cache_resource(max_entries=4, show_spinner=False)
def _stored(checkpoint: str, key: str, _model: Predictor, _index: DatasetIndex, _data: str) -> Evaluation:  # noqa: ARG001
    if found := find_evaluation(_model, _index, key=key):
        return found
    if job := evaluating(_model, _data):  # made, though it could not be stored
        with contextlib.suppress(TimeoutError):
            return job.made.result(0)
    raise _NotStored


_SAME: dict[str | type[Any], Callable[[Any], Any]] = {
    Evaluation: lambda found: (found.checkpoint_hash, found.data_key, found.part)
}


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def _part(whole: Evaluation, part: str) -> Evaluation:
    return whole.select(part)


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=_SAME)
def cells(found: Evaluation, outcomes: bool) -> pd.DataFrame:
    """The cells of the confusion matrix, see `Evaluation.confusion`."""
    return found.confusion(outcomes)


def tables(found: Evaluation) -> pd.DataFrame:
    """How often a multi-label model finds, misses, falsely names and rightly leaves out each class."""
    report = counted(found).report
    found_and_missed = report.tables if isinstance(report, MultiLabelReport) else {}
    return pd.DataFrame([{"label": name} | cells for name, cells in found_and_missed.items()])


def confused(found: Evaluation) -> pd.DataFrame:
    """The wrong cells that hold images, the fullest first."""
    return most_confused(cells(found, False))


def in_cell(found: Evaluation, actual: str, predicted: str, outcomes: bool = False) -> pd.DataFrame:
    """The labelled images of one cell by falling loss; `ANY` takes a whole row or column."""
    table, counted = found.top_losses(), found.labelled
    truth = pd.Series(np.array(found.verdicts, object)[counted.verdict_labels], counted.table.index).loc[table.index]
    said = table["outcome" if outcomes or found.multi_label else "pred"]
    return table[((truth == actual) | (actual == ANY)) & ((said == predicted) | (predicted == ANY))]


def uncounted(found: Evaluation, predicted: str = ANY) -> pd.DataFrame:
    """The images whose label is missing or unknown to the model, the least sure first."""
    table = found.table[~found.known].sort_values("confidence", kind="stable")
    said = table["outcome" if found.multi_label else "pred"]
    return table[(said == predicted) | (predicted == ANY)]


def in_segment(found: Evaluation, segment: pd.Series[Any]) -> pd.DataFrame:
    """The labelled images of a segment by falling loss; `segment` is a row of `Figures.segments`."""
    table = found.top_losses()
    values = table[segment["property"]]
    if pd.isna(segment["start"]):
        return table[values.astype(str) == segment["segment"]]
    below = (values < segment["end"]) | (values == segment["end"]) & (values.max() == segment["end"])
    return table[(values >= segment["start"]) & below]


@st.cache_resource(max_entries=16, show_spinner="Counting", hash_funcs=_SAME)
def counted(found: Evaluation) -> Figures:
    """Every figure with its interval; the worker that made the evaluation has counted them."""
    return kept_figures(found)


def headline(found: Evaluation) -> dict[str, tuple[float | None, tuple[float, float], int]]:
    """The figures of all images, such as accuracy, by name: value, interval, and the images it rests on."""
    return main_figures(counted(found).report)


@st.cache_resource(max_entries=8, show_spinner="Drawing", hash_funcs=_SAME)
def figures(found: Evaluation) -> dict[str, go.Figure]:
    """Every plot of an evaluation by its heading: the same as in its report."""
    return evaluation_plots(found, counted(found) if len(found.labelled) else None)


def alternative(figure: go.Figure) -> str:
    """What a figure shows, for those who cannot see it."""
    return plots.alternative(figure)


def both_heads(found: Evaluation, file: str) -> pd.DataFrame:
    """Softmax beside sigmoid for one image: columns label, softmax, sigmoid."""
    row = int(np.flatnonzero(found.table["file"] == file)[0])
    return curves.both_heads(found.logits[row], found.classes, found.temperature)


def triaged() -> dict[str, Triage]:
    """The finding that counts for each image, by its hash."""
    return TriageStore().latest()


def triage(found: Evaluation, row: Mapping[Any, Any], finding: str, who: str, should_be: str = "") -> None:
    """Keep what a person found about an image; "open" takes an earlier finding back.

    Raises:
        SteelError: nobody is named, or it cannot be kept.
    """
    said = {name: str(row[name]) for name in ("image_sha256", "file", "label", "pred")}
    TriageStore().add(
        Triage(**said, checkpoint=found.checkpoint_hash, finding=finding, who=who.strip(), should_be=should_be)
    )


def relabelling_csv() -> bytes:
    """The images whose label is wrong or ambiguous."""
    return TriageStore().relabelling_csv().encode("utf-8-sig")


def propose(whole: Evaluation, asked: Costs, mix: Mapping[str, float] | None) -> Choice:
    """The cheapest thresholds on the validation images, tried on the test images, see `propose_thresholds`."""
    return propose_thresholds(whole, asked, mix)


def plant_figures(
    found: Evaluation, thresholds: Mapping[str, float], asked: Costs, mix: Mapping[str, float] | None
) -> pd.DataFrame:
    """Escapes, false calls, referrals and costs under some thresholds, by class, see `decisions.plant_figures`."""
    counted = found.under(thresholds=thresholds).labelled
    said = counted.table["outcome"].to_numpy(object)
    return decisions.plant_figures(said, counted.verdict_labels, counted.verdicts, asked, mix, list(counted.groups))


def threshold_figure(
    found: Evaluation, label: str, asked: Costs, thresholds: Mapping[str, float], mix: Mapping[str, float] | None
) -> go.Figure:
    """What happens as the threshold of one class moves."""
    counted = found.labelled
    decided = np.where(counted.judged[:, None], counted.probs, counted.probs - 2)  # no threshold passes the others
    curve = decisions.threshold_curve(decided, counted.labels, counted.classes, label, asked, thresholds, mix)
    return plots.threshold_costs(curve, label, thresholds.get(label, 0.5))


def keep_thresholds(name: str, thresholds: Mapping[str, float], who: str, reason: str) -> None:
    """Write thresholds into the card of a model; verdicts obey at once.

    Raises:
        SteelError: the model is shipped or cannot be written, or nobody or no reason is named.
    """
    save_thresholds(models.available()[name], thresholds, who, reason)


@dataclass(frozen=True, slots=True)
class Sets:
    """Prediction sets, chosen on the validation images and counted on the test images that get a verdict.

    Attributes:
        chosen_on: validation images; a blank or an unfamiliar one gets no verdict, and so no set.
        enough: whether these suffice for the coverage asked for; else every set holds every class.
        unjudged: test images without a set.
        found: see `decisions.coverage_found`.
    """

    chosen_on: int
    enough: bool
    unjudged: int
    found: dict[str, Figure | float]


def conformal(whole: Evaluation, coverage: float, method: str) -> Sets:
    """Prediction sets that hold the true class as often as is asked for."""
    (val_probs, val_labels, _), (probs, labels, groups) = (
        (part.verdict_probs[part.judged], part.verdict_labels[part.judged], part.groups[part.judged])
        for part in (whole.select("val").labelled, whole.select("test").labelled)
    )
    quantile = decisions.conformal_quantile(val_probs, val_labels, coverage, method)
    sets = decisions.conformal_sets(probs, quantile, method)
    found = decisions.coverage_found(sets, labels, list(groups))
    unjudged = len(whole.select("test").labelled) - len(labels)
    return Sets(len(val_labels), math.isfinite(quantile), unjudged, found)


@st.cache_resource(max_entries=4, show_spinner="Comparing", hash_funcs=_SAME)
def comparison(a: Evaluation, b: Evaluation) -> Comparison:
    """How b differs from a on the images that both have not learnt from."""
    return compare(a, b, paired=kept_paired)


def overlaid(a: Evaluation, b: Evaluation, label: str) -> dict[str, go.Figure]:
    """Curves of one class by both models, on the images they share; none where these are all of it or all not."""
    both = set(a.labelled.table["image_sha256"]) & set(b.labelled.table["image_sha256"])
    sides = {}
    for each in (a.labelled, b.labelled):
        one = replace(each, table=each.table[each.table["image_sha256"].isin(both)].reset_index(drop=True))
        k = one.classes.index(label)
        sides[one.checkpoint] = (one.probs[:, k], _shows(one, k), list(one.groups))
    if not all(0 < positive.sum() < len(positive) for _, positive, _ in sides.values()):
        return {}
    return {
        "ROC curves": plots.roc({name: curves.roc(*side) for name, side in sides.items()}),
        "Precision and recall": plots.precision_recall(
            {name: curves.precision_recall(*side) for name, side in sides.items()}
        ),
    }


def _shows(found: Evaluation, k: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(found.targets[:, k] > 0 if found.multi_label else found.labels == k)


def csv(found: Evaluation) -> bytes:
    """Every image with what the model said of it; no cell runs as a formula."""
    return found.to_csv().encode("utf-8-sig")


def plots_zip(found: Evaluation) -> bytes:
    """Each plot as PNG."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, picture in pngs(figures(found)).items():
            archive.writestr(name, picture)
    return sink.getvalue()


def report_html(found: Evaluation, model: Predictor, data: str) -> bytes:
    """One self-contained page: figures, plots, worst images with maps, card."""
    known = counted(found) if len(found.labelled) else None
    return evaluation_html(found, model, datasets.dataset(data), figures=known).encode()
