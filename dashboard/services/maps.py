"""Maps: which there are, how far they have come, how they are drawn, and what they mark."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import streamlit as st
from PIL import Image

from dashboard.services import datasets, files, images, jobs
from steel_core import render
from steel_core.errors import SteelError
from steel_core.evaluation import map_quality
from steel_core.explain.base import EXPLAINERS, ExplainerInfo
from steel_core.explain.quality.agreement import agreement
from steel_core.explain.regions import Region, RegionRule, region
from steel_core.inference.predictor import Predictor, evidence
from steel_core.inference.tiling import explain_whole
from steel_core.reports import image_report
from steel_core.types import Attribution, SteelImage

Read = Callable[[], SteelImage]
"""Gives a decoded image."""

CAUTION = image_report.CAUTION

Trust = map_quality.Trust

MAPS = ("grad-cam", "guided-grad-cam", "shap")
"""The explainers that Inspect shows, cheap ones first."""

_QUICK = 8  # forward and backward passes: a map of so few is made while the page is drawn

_PASS = 0.015  # seconds a pass, until one was measured here


@dataclass(frozen=True, slots=True)
class Wanted:
    """One map that a page asks for.

    Attributes:
        method: name of an explainer.
        target: the class to explain.
        against: the class it is contrasted with, or "".
        layer: the layer to read, or "" for the model's own choice.
        background: name of the SHAP background, or "" for the model's own choice.
    """

    method: str
    target: str
    against: str = ""
    layer: str = ""
    background: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """How far a map has come.

    Attributes:
        found: the raw map, rough while it is being refined; None where there is none yet.
        done: whether it will not change any more.
        waiting: whether other maps must be finished before its turn.
    """

    found: Attribution | None
    done: bool
    waiting: bool = False


def methods() -> tuple[list[str], list[str]]:
    """The explainers that are made at once, and those that take their time; controls last, else cheap ones first."""
    named = sorted(EXPLAINERS, key=lambda name: (EXPLAINERS[name].info.control, _passes(name)))
    return [name for name in named if quick(name)], [name for name in named if not quick(name)]


def quick(name: str) -> bool:
    """Whether a method's map is made while the page is drawn."""
    return _passes(name) <= _QUICK


def layers(model: Predictor) -> dict[str, tuple[int, int]]:
    """The layers that Grad-CAM can read, with rows and columns of their grids; the model's own choice included."""
    return model.layers()


def usual_layer(model: Predictor) -> str:
    """The model's own choice among its layers: the last convolutional stage."""
    return model.model.config.cam_layer


def backgrounds(model: Predictor) -> dict[str, str]:
    """Name and title of what SHAP can compare with."""
    return model.backgrounds


def method(name: str) -> ExplainerInfo:
    """What an explainer is, in words."""
    return EXPLAINERS[name].info


def wanted(name: str, target: str, against: str = "", layer: str = "", background: str = "") -> Wanted:
    """A map of one method, with those of the settings that the method reads."""
    needs = EXPLAINERS[name].info.needs
    return Wanted(
        name,
        target,
        against if against != target else "",
        layer if "cam layer" in needs else "",
        background if "background" in needs else "",
    )


def explain(model: Predictor, seen: images.Look, read: Read, asked: Wanted, patience: float = 0.0) -> Made:
    """A raw map. One that takes long comes from a worker, step by step: ask again until it is done.

    Args:
        model: the model to explain.
        seen: the first look at the image.
        read: gives the decoded image; called only if the map is not cached, perhaps by a worker.
        asked: which map.
        patience: how long to wait for the first step of a worker, in seconds.

    Raises:
        SteelError: there is no such map of this image.
    """
    image_sha256 = seen.prediction.image_sha256
    if quick(asked.method):
        made = Made(_explain(model.hash, image_sha256, asked, model, read), True)
    else:
        made = Made(*_job(model.hash, image_sha256, asked, model, read).look(patience))
    if made.found and made.done:
        _seconds()[model.hash, asked.method] = made.found.seconds
    return made


@st.cache_data(max_entries=96, scope="session", show_spinner=False)
def _explain(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,
    _model: Predictor,
    _read: Read,
) -> Attribution:
    return _model.explain(_read(), asked.method, asked.target, **_settings(asked))


@st.cache_resource(max_entries=64, scope="session", show_spinner=False, on_release=jobs.Job.give_up)
def _job(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,
    _model: Predictor,
    _read: Read,
) -> jobs.Job[Attribution]:
    return jobs.Job(lambda: _model.refine(_read(), asked.method, asked.target, **_settings(asked)))


def measured(model: Predictor) -> bool:
    """Whether the quality of this model's maps was measured, so that `trust` has something to compare with."""
    return bool(model.card.quality)


def trust(model: Predictor, read: Read, found: Attribution) -> tuple[map_quality.Trust | None, bool]:
    """How far a finished map can be trusted, or None as long as a worker measures it; and whether that is done."""
    asked = Wanted(found.method, found.target, found.against, found.layer, found.baseline)
    return _trust(model.hash, found.image_sha256, asked, model, read, found).look(0.0)[:2]


@st.cache_resource(max_entries=96, scope="session", show_spinner=False, on_release=jobs.Job.give_up)
def _trust(
    checkpoint: str,  # noqa: ARG001
    image_sha256: str,  # noqa: ARG001
    asked: Wanted,  # noqa: ARG001
    _model: Predictor,
    _read: Read,
    _found: Attribution,
) -> jobs.Job[map_quality.Trust]:
    return jobs.Job(lambda: [map_quality.trust(_model, _read(), _found)])


def _settings(asked: Wanted) -> dict[str, Any]:
    layer = {"layer": asked.layer} if asked.layer else {}
    return {"against": asked.against or None, "background": asked.background} | layer


def _passes(name: str) -> int:
    info = EXPLAINERS[name].info
    return info.forward + info.backward


def expected_seconds(model: Predictor, name: str) -> float:
    """How long a map of this method takes: as the last one that was made here, or judged by its passes."""
    known = _seconds()
    if (model.hash, name) in known:
        return known[model.hash, name]
    slow = [
        spent / _passes(other)
        for (hash_, other), spent in list(known.items())
        if hash_ == model.hash and not quick(other)
    ]
    return _passes(name) * (slow[-1] if slow else _PASS)


@st.cache_resource(show_spinner=False)
def _seconds() -> dict[tuple[str, str], float]:
    return {}


@st.cache_data(max_entries=96, scope="session", show_spinner=False, hash_funcs={Attribution: Attribution.provenance})
def alike(a: Attribution, b: Attribution) -> tuple[float, float]:
    """How far two maps of one picture agree: rank correlation, and the share of their strongest tenths in common."""
    ranks, iou = agreement({"a": evidence(a)[None], "b": evidence(b)[None]})["a", "b"]
    return float(ranks[0]), 2 * float(iou[0]) / (1 + float(iou[0]))


@dataclass(frozen=True, slots=True)
class Style:
    """How raw maps are drawn.

    Attributes:
        opacity: of the strongest evidence, 0 to 1.
        threshold: share of the scale up to which evidence is not drawn, 0 to less than 1.
    """

    opacity: float = 0.6
    threshold: float = render.FAINT


def panel(
    model: Predictor, seen: images.Look, found: Attribution, style: Style, scale: float | None = None
) -> render.Panel:
    """A map drawn over the preview, with the sentence that says where its evidence lies."""
    return image_report.panel(model, seen.picture(), found, style.opacity, style.threshold, scale)


def scale_of(model: Predictor, maps: Sequence[Attribution]) -> tuple[float, bool]:
    """The evidence that gets the full colour in all these maps of one method, and whether validation fixed it."""
    own, fixed = model.map_scale(maps[0])
    if fixed:
        return own, True
    shown = [evidence(found) for found in maps]
    return (render.evidence_scale(shown) if any(one.any() for one in shown) else 1.0), False


@dataclass(frozen=True, slots=True)
class Marked:
    """A region made of a map.

    Attributes:
        region: in pixels of the picture as it came.
        rule: that drew the line.
        own: whether the rule was chosen for this model and method, and is not just the page's threshold.
        sentence: how much evidence lies in it, and where.
    """

    region: Region
    rule: RegionRule
    own: bool
    sentence: str


def marked(model: Predictor, seen: images.Look, found: Attribution) -> Marked:
    """Where the evidence of a map lies.

    Without a rule in the model's card, what reaches half of the map's strongest evidence counts, if it is not faint.
    """
    chosen = model.card.regions.get(found.method)
    shown = evidence(found)
    half = max(float(shown.max()) / 2, render.FAINT * model.map_scale(found)[0])
    rule = RegionRule(**chosen) if chosen else RegionRule(half, 0.0, blur=0.0)
    sentence = render.region_sentence(shown, region(shown, rule).mask)
    return Marked(region(shown, rule, found.target, (seen.height, seen.width)), rule, bool(chosen), sentence)


def boxes_drawn(seen: images.Look, found: Region) -> render.Picture:
    """The preview with a frame around each box of a region."""
    return render.outlined(seen.picture().display(), found.boxes, (seen.height, seen.width))


def mask_png(found: Region) -> bytes:
    """A region's mask as a PNG of the picture's size: white inside, black outside."""
    file = io.BytesIO()
    Image.fromarray(found.mask).save(file, "PNG")
    return file.getvalue()


def region_json(model: Predictor, seen: images.Look, made: Attribution, found: Marked) -> bytes:
    """A region's boxes, its rule and the map it was made of. Boxes are half open, counted from 0 in the file's picture.

    Of a strip its worst tile was explained: "left", "top", "width" and "height" say which part that is.
    """
    at = seen.judged.tiles[0]
    boxes = [
        replace(box, xmin=box.xmin + at.xmin, xmax=box.xmax + at.xmin, ymin=box.ymin + at.ymin, ymax=box.ymax + at.ymin)
        for box in found.region.boxes
    ]
    return files.as_json(
        {
            "file": seen.prediction.name,
            "width": seen.width,
            "height": seen.height,
            "left": at.xmin,
            "top": at.ymin,
            "boxes": [asdict(box) for box in boxes],
            "area": found.region.area,
            "sentence": found.sentence,
            "rule": found.rule.to_json(),
            "map": made.provenance(),
            "checkpoint_name": model.card.name,
            "caution": CAUTION,
        }
    )


@dataclass(frozen=True, slots=True)
class Example:
    """A shipped image with its verdict and the JPEG of its Grad-CAM overlay."""

    look: images.Look
    overlay: bytes


def example(model: Predictor, source: datasets.Source) -> Example | datasets.Refused:
    """Verdict and overlay of a shipped image, made once for all sessions."""
    return _example(model.hash, source.key, model, source)


@st.cache_data(max_entries=64, show_spinner=False)
def _example(checkpoint: str, key: str, _model: Predictor, _source: datasets.Source) -> Example | datasets.Refused:  # noqa: ARG001
    seen = images.first_look(_model, _source)
    if isinstance(seen, datasets.Refused):
        return seen
    found = explain_whole(_model, _source.read(), MAPS[0], seen.prediction.pred)
    return Example(seen, files.jpeg(panel(_model, seen, found, Style()).picture))


def report_png(
    model: Predictor, source: datasets.Source, seen: images.Look, maps: Sequence[Attribution], style: Style
) -> bytes:
    """The report on one image as a PNG."""
    return image_report.report_png(model, source.read(), seen.prediction, maps, style.opacity, style.threshold)


def report_json(model: Predictor, seen: images.Look, maps: Sequence[Attribution]) -> bytes:
    """The report on one image in numbers."""
    return files.as_json(image_report.result_json(model, seen.prediction, maps))


def small_map(model: Predictor, source: datasets.Source, target: str) -> bytes | datasets.Refused:
    """A small JPEG of the Grad-CAM of a class over an image, made once for all sessions."""
    return _small_map(model.hash, source.key, target, model, source)


@st.cache_data(max_entries=1000, show_spinner=False)
def _small_map(
    checkpoint: str,  # noqa: ARG001
    key: str,  # noqa: ARG001
    target: str,
    _model: Predictor,
    _source: datasets.Source,
) -> bytes | datasets.Refused:
    try:
        image = _source.read()
        found = explain_whole(_model, image, MAPS[0], target)
        small_image = SteelImage(render.thumbnail(image, datasets.THUMBNAIL), image.name, image.sha256)
        return files.jpeg(image_report.panel(_model, small_image, found).picture)
    except SteelError as error:
        return datasets.Refused(str(error))
