"""Evaluations of a model on a data set, made once by a worker."""

import contextlib
import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboard.services import datasets, files, jobs
from dashboard.services.cache import cached_resource
from steel_core.data.index import DatasetIndex
from steel_core.evaluation.compare import Comparison, compare
from steel_core.evaluation.evaluation import PARTS, Evaluation, map_labels
from steel_core.evaluation.store import (
    Estimates,
    cached_estimates,
    cached_paired_estimates,
    find_evaluation,
    load_or_evaluate,
)
from steel_core.evaluation.thresholds import propose_thresholds, save_thresholds
from steel_core.inference.keys import data_key
from steel_core.inference.predictor import Predictor
from steel_core.metrics import Estimate, curves, decisions, most_confused
from steel_core.metrics.decisions import Costs
from steel_core.metrics.multi_label import MultiLabelReport
from steel_core.progress import Progress
from steel_core.render import evaluation_plots
from steel_core.render.plot_png import pngs
from steel_core.render.plots import Figure
from steel_core.reports.evaluation_report import NO_MATRIX, plot_evaluation, render_evaluation_html
from steel_core.reports.evaluation_report import main_estimates as report_estimates
from steel_core.store.triage import FINDINGS, Triage, TriageStore
from steel_core.types import BoolArray, Float64Array

__all__ = ["NO_MATRIX", "PARTS", "Costs", "Estimate", "most_confused", "propose_thresholds", "save_thresholds"]

ANY = "any"  # stands for every class where a cell of a confusion matrix is asked for
TRIAGE = FINDINGS[:-1]  # what a person may find about an image; without "open", which takes it back

EVALUATION: jobs.Kind[Evaluation] = jobs.Kind("evaluation", queue="evaluation")

_SECONDS_AN_IMAGE = 0.08  # to decode, predict and measure


class _NotStored(Exception):  # noqa: N818
    """Nobody has made this evaluation yet. Raised, because what a cached function raises is not kept."""


def running(model: Predictor, data: str) -> jobs.Job[Evaluation] | None:
    """The evaluation of a model on a data set that is being made, if one is; all sessions share it."""
    job = jobs.board().get(EVALUATION, (model.hash, data))
    return None if job is None or job.stopped else job


def start(model: Predictor, data: str) -> None:
    index = datasets.dataset(data)

    def work(progress: Progress) -> Evaluation:
        whole = load_or_evaluate(model, index, None, progress)
        for part in PARTS:  # a page shall not wait for a bootstrap, whichever part it shows
            progress(f"counting figures, {part}", 0, 0)
            if len((chosen := whole.select(part)).labelled):
                cached_estimates(chosen)
        return whole

    jobs.board().start(EVALUATION, (model.hash, data), work)


def seconds_to_evaluate(data: str) -> float:
    return len(datasets.dataset(data)) * _SECONDS_AN_IMAGE


def find(model: Predictor, data: str, part: str = "all") -> Evaluation | None:
    """What the model said of a part of a data set; None where nobody has computed it yet.

    Raises:
        SteelError: a worker could not make it, or the part is unknown.
    """
    if job := running(model, data):
        if not job.future.done():
            return None
        if job.future.exception():
            jobs.board().forget(EVALUATION, (model.hash, data))
        job.future.result()
    try:
        index, key = _index_and_key(datasets.available()[data], model.classes)
        whole = _find(model, key, index, data)
    except _NotStored:
        return None
    jobs.board().forget(EVALUATION, (model.hash, data))
    return select_part(whole, part)


@cached_resource(lambda folder, classes: (folder, files.stamp(folder), classes), max_entries=8, ttl=60)
def _index_and_key(folder: Path, classes: tuple[str, ...]) -> tuple[DatasetIndex, str]:
    index = datasets.open_folder(folder)
    return index, data_key(map_labels(index, classes))


@cached_resource(lambda model, key: (model.hash, key), max_entries=4)
def _find(model: Predictor, key: str, index: DatasetIndex, data: str) -> Evaluation:
    if evaluation := find_evaluation(model, index, key=key):
        return evaluation
    if job := running(model, data):  # made, though it could not be stored
        with contextlib.suppress(TimeoutError):
            return job.future.result(0)
    raise _NotStored


def _identity(evaluation: Evaluation) -> tuple[str, str, str]:
    return evaluation.checkpoint_hash, evaluation.data_key, evaluation.part


@cached_resource(lambda whole, part: (*_identity(whole), part), max_entries=16)
def select_part(whole: Evaluation, part: str) -> Evaluation:
    return whole.select(part)


@cached_resource(lambda evaluation, outcomes: (*_identity(evaluation), outcomes), max_entries=16)
def confusion_cells(evaluation: Evaluation, outcomes: bool) -> pd.DataFrame:
    return evaluation.confusion(outcomes)


def class_counts(evaluation: Evaluation) -> pd.DataFrame:
    """How often a multi-label model finds, misses, falsely names and rightly leaves out each class."""
    report = estimates(evaluation).report
    tables = report.tables if isinstance(report, MultiLabelReport) else {}
    return pd.DataFrame([{"label": name} | counts for name, counts in tables.items()])


def in_cell(evaluation: Evaluation, actual: str, predicted: str, outcomes: bool = False) -> pd.DataFrame:
    """The labelled images of one cell by falling loss; `ANY` takes a whole row or column."""
    table, labelled = evaluation.top_losses(), evaluation.labelled
    names = np.array(evaluation.verdicts, object)[labelled.verdict_labels]
    truth = pd.Series(names, labelled.table.index).loc[table.index]
    answer = table["outcome" if outcomes or evaluation.multi_label else "pred"]
    return table[((truth == actual) | (actual == ANY)) & ((answer == predicted) | (predicted == ANY))]


def uncounted(evaluation: Evaluation, predicted: str = ANY) -> pd.DataFrame:
    """The images whose label is missing or unknown to the model, the least sure first."""
    table = evaluation.table[~evaluation.has_truth].sort_values("confidence", kind="stable")
    answer = table["outcome" if evaluation.multi_label else "pred"]
    return table[(answer == predicted) | (predicted == ANY)]


def in_segment(evaluation: Evaluation, segment: "pd.Series[Any]") -> pd.DataFrame:
    """The labelled images of a segment by falling loss; `segment` is a row of `Estimates.segments`."""
    table = evaluation.top_losses()
    values = table[segment["property"]]
    if pd.isna(segment["start"]):
        return table[values.astype(str) == segment["segment"]]
    below = (values < segment["end"]) | (values == segment["end"]) & (values.max() == segment["end"])
    return table[(values >= segment["start"]) & below]


@cached_resource(_identity, max_entries=16, spinner="Counting")
def estimates(evaluation: Evaluation) -> Estimates:
    """Every metric with its interval; the worker that made the evaluation has counted them."""
    return cached_estimates(evaluation)


def main_estimates(evaluation: Evaluation) -> dict[str, tuple[float | None, tuple[float, float], int]]:
    """The metrics of all images, such as accuracy, by name: value, interval, and the images it rests on."""
    return report_estimates(estimates(evaluation).report)


@cached_resource(_identity, max_entries=8, spinner="Drawing")
def plots(evaluation: Evaluation) -> dict[str, Figure]:
    """Every plot of an evaluation by its heading: the same as in its report."""
    return plot_evaluation(evaluation, estimates(evaluation) if len(evaluation.labelled) else None)


def both_heads(evaluation: Evaluation, file: str) -> pd.DataFrame:
    """Softmax beside sigmoid for one image: columns label, softmax, sigmoid."""
    row = int(np.flatnonzero(evaluation.table["file"] == file)[0])
    return curves.compare_heads(evaluation.logits[row], evaluation.classes, evaluation.temperature)


def triage(evaluation: Evaluation, row: Mapping[Any, Any], finding: str, who: str, should_be: str = "") -> None:
    """Keep what a person found about an image, or raise `SteelError`; "open" takes an earlier finding back."""
    image = {name: str(row[name]) for name in ("image_sha256", "file", "label", "pred")}
    TriageStore().add(
        Triage(**image, checkpoint=evaluation.checkpoint_hash, finding=finding, who=who.strip(), should_be=should_be)
    )


def plant_estimates(
    evaluation: Evaluation, thresholds: Mapping[str, float], asked: Costs, mix: Mapping[str, float] | None
) -> pd.DataFrame:
    """Escapes, false calls, referrals and costs under some thresholds, by class, see `decisions.plant_estimates`."""
    part = evaluation.under(thresholds=thresholds).labelled
    outcomes = part.table["outcome"].to_numpy(object)
    return decisions.plant_estimates(outcomes, part.verdict_labels, part.verdicts, asked, mix, list(part.groups))


def threshold_plot(
    evaluation: Evaluation, label: str, asked: Costs, thresholds: Mapping[str, float], mix: Mapping[str, float] | None
) -> Figure:
    part = evaluation.labelled
    decided = np.where(part.decidable[:, None], part.probs, part.probs - 2)  # no threshold passes the others
    curve = decisions.threshold_curve(decided, part.labels, part.classes, label, asked, thresholds, mix)
    return evaluation_plots.threshold_costs(curve, label, thresholds.get(label, 0.5))


@dataclass(frozen=True, slots=True)
class PredictionSets:
    """Prediction sets, chosen on the validation images and counted on the test images that get a verdict.

    A blank or an unfamiliar image gets no verdict, and so no set: `unjudged`, of the test images. Where those that were
    `chosen_on` are not `enough` for the coverage, every set holds every class.
    """

    chosen_on: int
    enough: bool
    unjudged: int
    estimates: dict[str, Estimate | float]


def prediction_sets(whole: Evaluation, coverage: float, method: str) -> PredictionSets:
    """Prediction sets that hold the true class as often as is asked for."""
    (val_probs, val_labels, _), (probs, labels, groups) = (
        (part.verdict_probs[part.decidable], part.verdict_labels[part.decidable], part.groups[part.decidable])
        for part in (whole.select("val").labelled, whole.select("test").labelled)
    )
    quantile = decisions.conformal_quantile(val_probs, val_labels, coverage, method)
    sets = decisions.conformal_sets(probs, quantile, method)
    counted = decisions.estimate_coverage(sets, labels, list(groups))
    unjudged = len(whole.select("test").labelled) - len(labels)
    return PredictionSets(len(val_labels), math.isfinite(quantile), unjudged, counted)


@cached_resource(lambda a, b: (*_identity(a), *_identity(b)), max_entries=4, spinner="Comparing")
def comparison(a: Evaluation, b: Evaluation) -> Comparison:
    """How b differs from a on the images that both have not learnt from."""
    return compare(a, b, paired=cached_paired_estimates)


def overlaid_curves(a: Evaluation, b: Evaluation, label: str) -> dict[str, Figure]:
    """Curves of one class by both models, on the images they share; none where these are all of it or all not."""
    both = set(a.labelled.table["image_sha256"]) & set(b.labelled.table["image_sha256"])
    sides = {}
    for each in (a.labelled, b.labelled):
        one = replace(each, table=each.table[each.table["image_sha256"].isin(both)].reset_index(drop=True))
        k = one.classes.index(label)
        shows = one.targets[:, k] > 0 if one.multi_label else one.labels == k
        sides[one.checkpoint] = (one.probs[:, k], np.asarray(shows), list(one.groups))
    return draw_curves(sides)


def draw_curves(sides: Mapping[str, tuple[Float64Array, BoolArray, list[Any]]]) -> dict[str, Figure]:
    """Curves of one class by several models, from scores, truth and groups; none where all truth is alike."""
    if not all(0 < positive.sum() < len(positive) for _, positive, _ in sides.values()):
        return {}
    return {
        "ROC curves": evaluation_plots.roc({name: curves.roc_points(*side) for name, side in sides.items()}),
        "Precision and recall": evaluation_plots.precision_recall(
            {name: curves.precision_recall_points(*side) for name, side in sides.items()}
        ),
    }


def plots_zip(evaluation: Evaluation) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, picture in pngs(plots(evaluation)).items():
            archive.writestr(name, picture)
    return sink.getvalue()


def report_html(evaluation: Evaluation, model: Predictor, data: str) -> bytes:
    """One self-contained page: metrics, plots, worst images with maps, card."""
    counted = estimates(evaluation) if len(evaluation.labelled) else None
    return render_evaluation_html(evaluation, model, datasets.dataset(data), estimates=counted).encode()
