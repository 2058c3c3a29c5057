"""The shortcut audits: one image live, whole splits by a worker, and what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from dashboard.services import datasets, files, images, jobs, maps, models
from steel_core import render
from steel_core.audit import white_stain
from steel_core.audit.bench import BenchRow, SmallestFlip, bench, smallest_flip
from steel_core.audit.discover import retest
from steel_core.audit.run import AUDITS, audit, auditable
from steel_core.audit.sheets import defect_mask
from steel_core.audit.white_stain import StainSettings
from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, SteelError
from steel_core.files import new_name
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import CARD
from steel_core.perturb.methods.white_stain import TEXTURES, WhiteStain
from steel_core.perturb.patch import LARGEST_AREA
from steel_core.perturb.stencil import SHAPES, Stencil
from steel_core.render import plots
from steel_core.reports import audit_report, image_report
from steel_core.reports.audit_report import Pair, audit_html
from steel_core.store.audits import AuditRun, AuditStore
from steel_core.types import CLEAR

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUESTIONS = AUDITS
"""What can be asked of a whole data set, by name."""

STAIN_SHAPES, STAIN_TEXTURES, LARGEST_STAIN = SHAPES, TEXTURES, LARGEST_AREA

in_plain_words, missed, by_severity = audit_report.in_plain_words, audit_report.missed, audit_report.by_severity

in_words, evidence_in_words = audit_report.in_words, audit_report.evidence_in_words

suspects, cluster_in_words, why_not_pasted = (
    audit_report.suspects,
    audit_report.cluster_in_words,
    audit_report.why_not_pasted,
)

other_directions, EXCESS = audit_report.other_directions, audit_report.EXCESS

cut_stain, cut_picture = white_stain.cut_stain, audit_report.stain_picture

compared, dose_response, effect_by_class = audit_report.compared, audit_report.dose_response, audit_report.classes

POSITIONS, SEVERITIES = audit_report.POSITIONS, (audit_report.SHORTCUT, audit_report.SUSPICIOUS, audit_report.QUIET)

_SHOWN_FIRST = "images/sheet-000014.png"  # a shipped sheet that the stain turns; the page says why it comes first

_SECONDS_AN_AUDITED_IMAGE = {"white-stain": 0.7, "edges": 0.15, "properties": 0.3, "discover": 0.3}  # until timed here


@dataclass(frozen=True, slots=True)
class Stain:
    """A stain on one image.

    Attributes:
        area: share of the picture.
        brightness: grey of the film, 0 to 1.
        shape: one of `STAIN_SHAPES`.
        texture: one of `STAIN_TEXTURES`.
        number: of stains that share the area.
        centre: row and column of its middle, 0 to 1; beside the defect if None.
        seed: of its outline and of a place that is not given.
        source: a stain that was cut out of an image; it keeps its own brightness, shape and texture.
        cut_from: the content of that image and the box in it; two stains cut out alike are equal.
    """

    area: float = 0.05
    brightness: float = 0.92
    shape: str = "blot"
    texture: str = "film"
    number: int = 1
    centre: tuple[float, float] | None = None
    seed: int = 0
    source: Stencil | None = field(default=None, compare=False)
    cut_from: str = ""

    def made(self) -> WhiteStain:
        """For the library."""
        return WhiteStain(self.shape, self.number, self.centre, self.source, self.brightness, self.texture)


def cut_out(source: datasets.Source, box: tuple[int, int, int, int]) -> StainSettings | datasets.Refused:
    """The stain that a box marks in an image (left, top, width, height; pixels), or why there is none."""
    return _cut_out(source.key, box, source)


@st.cache_data(max_entries=8, scope="session", show_spinner=False)
def _cut_out(
    key: str,  # noqa: ARG001
    box: tuple[int, int, int, int],
    _source: datasets.Source,
) -> StainSettings | datasets.Refused:
    try:
        return StainSettings().cut_out_of(_source.read(), box)
    except SteelError as error:
        return datasets.Refused(str(error))


def watched_class(model: Predictor, seen: images.Look) -> str:
    """The class whose gain is shown: "clear" where the model knows it, else the one it names now."""
    return CLEAR if CLEAR in model.classes else seen.prediction.pred


def defective(index: DatasetIndex, most: int = 200) -> list[str]:
    """Paths of the first sheets that are not clear."""
    labels = index.table["labels"]
    paths = index.table["path"][(labels != CLEAR) & (labels != "")].head(most).tolist()
    return sorted(paths, key=lambda path: path != _SHOWN_FIRST)


def shown_for_its_effect(source: datasets.Source) -> bool:
    """Whether this is the sheet that `defective` puts first because a stain turns it."""
    return isinstance(source.origin, Path) and source.origin.as_posix().endswith(_SHOWN_FIRST)


def perhaps_stained(index: DatasetIndex, most: int = 200) -> list[str]:
    """Paths of images to cut a stain out of: the clear ones, where they are known, before all others."""
    table = index.table
    return table.sort_values("labels", kind="stable", key=lambda labels: labels != CLEAR)["path"].head(most).tolist()


def demonstration(model: Predictor) -> str:
    """Name of the shipped model with a planted shortcut, where it is here and another one is chosen; else ""."""
    shown = "strip-mill"
    return shown if shown in models.available() and model.card.name != shown else ""


def stained(model: Predictor, source: datasets.Source, asked: Stain, watched: str) -> tuple[BenchRow, ...]:
    """The image as it is, with the stain, and with each control at the same place.

    Raises:
        SteelError: the image is refused, or the stain is out of range.
    """
    return _stained(model.hash, source.key, asked, watched, model, source)


@st.cache_data(max_entries=24, scope="session", show_spinner=False)
def _stained(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    asked: Stain,
    watched: str,
    _model: Predictor,
    _source: datasets.Source,
) -> tuple[BenchRow, ...]:
    defect = _defect(_model, _source)
    return bench(_model, _source.read(), asked.made(), asked.area, defect=defect, watched=watched, seed=asked.seed)


def smallest_stain(model: Predictor, source: datasets.Source, asked: Stain) -> SmallestFlip | None:
    """The smallest stain of this kind and place that turns the image; to "clear", where the model knows it."""
    towards = CLEAR if CLEAR in model.classes else ""
    return _smallest(model.hash, source.key, replace(asked, area=0.0), towards, model, source)


@st.cache_data(max_entries=64, scope="session", show_spinner=False)
def _smallest(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    asked: Stain,
    towards: str,
    _model: Predictor,
    _source: datasets.Source,
) -> SmallestFlip | None:
    defect = _defect(_model, _source)
    return smallest_flip(_model, _source.read(), asked.made(), defect=defect, towards=towards, seed=asked.seed)


def defect_known(model: Predictor, source: datasets.Source) -> bool:
    """Whether a mask or a box tells where the defect of an image is."""
    return _defect(model, source) is not None


def _defect(model: Predictor, source: datasets.Source) -> Any:
    """Mask (H, W) of the defect as the network sees it; None where nothing tells."""
    if not isinstance(source.origin, Path):
        return None
    for folder in datasets.available().values():
        if not source.origin.is_relative_to(folder):
            continue
        index = datasets.opened(folder, files.stamp(folder))
        inside = source.origin.relative_to(folder).as_posix()
        for i in np.flatnonzero(index.table["path"] == inside):
            image = source.read()
            grid, _ = model.card.preprocessing.to_grid(image)
            return defect_mask(index, int(i), (image.height, image.width), grid.shape)
    return None


def bench_map(model: Predictor, row: BenchRow, rows: Sequence[BenchRow]) -> render.Panel:
    """The evidence of one picture of the bench, drawn on it; all its rows have the same scale."""
    scale, _ = maps.scale_of(model, [one.attribution for one in rows])
    return image_report.panel(model, row.image, row.attribution, scale=scale)


def bench_picture(row: BenchRow) -> render.Picture:
    """One picture of the bench."""
    return render.thumbnail(row.image, images.PREVIEW)


def cure_of(model: Predictor) -> dict[str, Any] | None:
    """What the card says of the cure that made this model; None for one that was not cured."""
    return model.card.training.get("cure")


def cured_models(model: Predictor) -> list[str]:
    """Names of the models that were made by curing this one."""
    found = []
    for name, folder in models.available().items():
        of = _cure_in(folder, files.stamp(folder / CARD))
        if of and (of.get("of_hash") == model.hash or of.get("of") == model.card.name):
            found.append(name)
    return found


@st.cache_data(max_entries=100, show_spinner=False)
def _cure_in(folder: Path, stamp: int) -> dict[str, Any] | None:  # noqa: ARG001
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8")).get("training", {}).get("cure")
    except (OSError, ValueError, AttributeError):
        return None  # a damaged card gets its sentence where the model is chosen


class Auditing(jobs.Task[AuditRun]):
    """An audit that a worker makes; the link to it holds its name.

    Attributes:
        name: of the run.
        model: name of the model.
        data: name of the data set.
        kinds: what is asked.
    """

    def __init__(
        self, model: Predictor, data: str, kinds: tuple[str, ...], part: str, limit: int, stain: StainSettings
    ) -> None:
        self.name, self.model, self.data, self.kinds = new_name(), model.card.name, data, kinds
        index = datasets.dataset(data)

        def make(count: jobs.Count) -> AuditRun:
            began = time.monotonic()
            found = audit(model, index, kinds, part=part, limit=limit, stain=stain, progress=count)
            said = [one.to_json() for one in found]
            return AuditStore().add(self.name, data, round(time.monotonic() - began, 1), said)

        super().__init__("audit", make)


def why_not(model: Predictor, data: str) -> str:
    """Why a model cannot be audited on a data set, in a sentence; "" where it can."""
    try:
        auditable(model, datasets.dataset(data))
    except SteelError as error:
        return str(error)
    return ""


def start(model: Predictor, data: str, kinds: tuple[str, ...], part: str, limit: int, stain: StainSettings) -> str:
    """Let a worker audit a model on a data set; the name of the run."""
    job = Auditing(model, data, kinds, part, limit, stain)
    jobs = _auditing()
    for name, old in list(jobs.items()):
        if old.made.done():
            jobs.pop(name, None)  # finished ones lie in the store
    jobs[job.name] = job
    return job.name


def auditing(name: str) -> Auditing | None:
    """The job of that name, if this server has it: waiting, at work, failed, or finished not long ago."""
    return _auditing().get(name)


def at_work() -> list[Auditing]:
    """Jobs that are neither finished nor stopped."""
    return [job for job in list(_auditing().values()) if job.at_work]


@st.cache_resource(show_spinner=False)
def _auditing() -> dict[str, Auditing]:
    return {}


def run(name: str) -> AuditRun | None:
    """The finished run of that name; None if there is none.

    Raises:
        DataError: its file is damaged.
    """
    return AuditStore().get(name)


def history() -> tuple[list[AuditRun], list[str]]:
    """Every finished run, the newest first, and a sentence for each file that cannot be read."""
    store = AuditStore()
    return _history(str(store.folder), files.stamp(store.folder))


@st.cache_data(max_entries=2, show_spinner=False)
def _history(folder: str, stamp: int) -> tuple[list[AuditRun], list[str]]:  # noqa: ARG001
    return AuditStore().history()


def seconds_to_audit(kinds: Sequence[str], data: str, limit: int) -> float:
    """How long an audit will take, judged by the last one of the same questions, else by what was measured once."""
    images = min(limit, len(datasets.dataset(data)))
    for run in history()[0][:20]:
        if sorted(one["audit"] for one in run.reports) == sorted(kinds) and run.reports[0].get("images"):
            return images * run.seconds / run.reports[0]["images"]
    return images * sum(_SECONDS_AN_AUDITED_IMAGE[kind] for kind in kinds)


def audited(run: AuditRun) -> Predictor | None:
    """The very model of a run; None where it is not here any more, or is another by now."""
    told = run.reports[0]
    if told["model"] not in models.available():
        return None
    model = models.predictor(told["model"])
    return model if model.hash == told["model_hash"] else None


def pairs(run: AuditRun, report: dict[str, Any], most: int = 4) -> list[Pair]:
    """The images that the stain moved the most, with and without it; none where model or data are not here."""
    return _pairs(run.name, report["audit"], most, run, report)


@st.cache_data(max_entries=16, show_spinner="Making the pairs of pictures again")
def _pairs(name: str, kind: str, most: int, _run: AuditRun, _report: dict[str, Any]) -> list[Pair]:  # noqa: ARG001
    model = audited(_run)
    if model is None or _run.data not in datasets.available():
        return []
    return audit_report.pairs(model, datasets.dataset(_run.data), _report, most)


def exemplars(data: str, cluster: dict[str, Any]) -> list[tuple[str, datasets.Source, dict[str, Any]]]:
    """Path, source and what is told of each of a cluster's images; those that are not in the data set are left out."""
    if data not in datasets.available():
        return []
    index, found = datasets.dataset(data), []
    for one in cluster["exemplars"]:
        with suppress(DataError):  # moved away since; or an old run, which tells only a name that several have
            row = datasets.row_of(index, one.get("path", one["file"]))
            found.append((str(index.table["path"].iat[row]), datasets.source(index, row), one))
    return found


def exemplar(source: datasets.Source, told: dict[str, Any]) -> bytes | datasets.Refused:
    """The patch that a search found in an image, outlined on the steel around it; the image as it is where it changed.

    Args:
        source: the image.
        told: one of the `exemplars` of a cluster.
    """
    if "box" not in told:  # searched before November 2026
        return datasets.thumbnail(source)
    return _exemplar(source.key, tuple(told["box"]), told["sha256"], source)


@st.cache_data(max_entries=500, show_spinner=False)
def _exemplar(
    key: str,  # noqa: ARG001
    box: tuple[int, int, int, int],
    sha256: str,
    _source: datasets.Source,
) -> bytes | datasets.Refused:
    try:
        image = _source.read()
    except SteelError as error:
        return datasets.Refused(str(error))
    if image.sha256 != sha256:
        return datasets.Refused(f"{_source.name} has changed since")
    return files.jpeg(audit_report.exemplar_picture(image, box, datasets.THUMBNAIL))


def can_retest(run: AuditRun, cluster: dict[str, Any]) -> bool:
    """Whether the very model, the data set, and the place of the patch are here."""
    return "box" in cluster["exemplars"][0] and run.data in datasets.available() and audited(run) is not None


def retest_command(run: AuditRun, cluster: dict[str, Any]) -> str:
    """What `start_retest` does, for the command line."""
    return retest(cluster, run.reports[0]["model"], Path("FOLDER"))


def retested(run: AuditRun, cluster: dict[str, Any]) -> list[AuditRun]:
    """The finished tests of the first exemplar of a cluster, with the same model, the newest first."""
    first = cluster["exemplars"][0]
    cut_from = white_stain.cut_name(first["file"], first["sha256"], first["box"])
    told = [(other, other.reports[0]) for other in history()[0]]
    model = run.reports[0]["model_hash"]
    return [other for other, one in told if one["model_hash"] == model and one["settings"].get("cut_from") == cut_from]


def start_retest(run: AuditRun, cluster: dict[str, Any]) -> str:
    """Let a worker ask the white-stain test of the first exemplar of a cluster; the name of the run.

    Raises:
        SteelError: model or image have gone or changed.
    """
    model = audited(run)
    if model is None:
        raise DataError("the model of this run is not here any more, or is another by now")
    report = next(one for one in run.reports if cluster in one["detail"].get("clusters", []))
    first = cluster["exemplars"][0]
    image = datasets.find(datasets.dataset(run.data), first["path"]).read()
    left, top, width, height = first["box"]
    asked = StainSettings(tolerated=report["settings"]["tolerated"], towards=cluster["label"])
    stain = asked.cut_out_of(image, (left, top, width, height))
    return start(model, run.data, ("white-stain",), "held-out", report["images"], stain)


def page(run: AuditRun) -> bytes:
    """A run as one self-contained HTML file."""
    model = audited(run)
    index = datasets.dataset(run.data) if run.data in datasets.available() else None
    return audit_html(run.reports, model, index).encode()


def json_of(run: AuditRun) -> bytes:
    """A run in numbers."""
    return files.as_json(run.to_json())


def box_pad(picture: render.Picture, box: tuple[float, float, float, float] | None) -> go.Figure:
    """A picture as a plot on which a box can be dragged; all in percent of its sides: left, top, right, bottom."""
    return plots.box_pad(picture, box)


def click_pad(picture: render.Picture, places: int) -> go.Figure:
    """A picture as a plot with a grid of points that can be clicked; x and y in percent of its sides."""
    return plots.click_pad(picture, places)
