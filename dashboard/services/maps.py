"""Maps: which there are, how far they have come, how they are drawn, and what they mark."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import streamlit as st

from dashboard.services import datasets, files, images, jobs
from dashboard.services.cache import cached_data, cached_resource
from steel_core import render
from steel_core.errors import SteelError
from steel_core.evaluation.trust import Trust, measure_trust
from steel_core.explain.base import EXPLAINERS, ExplainerInfo
from steel_core.explain.quality.agreement import compare_methods
from steel_core.explain.regions import Region, map_to_region
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.inference.tiling import explain_tiled
from steel_core.models.card import RegionRule
from steel_core.reports.image_report import CAUTION, draw_panel, render_image_png, result_to_json
from steel_core.types import Attribution, SteelImage

Read = Callable[[], SteelImage]

__all__ = ["CAUTION", "Trust", "render_image_png", "result_to_json"]

MAPS = ("grad-cam", "guided-grad-cam", "shap")  # those that Inspect shows, cheap ones first
_QUICK = 8  # forward and backward passes: a map of so few is made while the page is drawn
_PASS = 0.015  # seconds a pass, until one was measured here


@dataclass(frozen=True, slots=True)
class WantedMap:
    """One map that a page asks for; "" for no contrast, or the model's own choice of layer or SHAP background."""

    method: str
    target: str
    against: str = ""
    layer: str = ""
    background: str = ""

    def settings(self) -> dict[str, Any]:
        layer = {"layer": self.layer} if self.layer else {}
        return {"against": self.against or None, "background": self.background} | layer


def methods() -> tuple[list[str], list[str]]:
    """The explainers that are made at once, and those that take their time; controls last, else cheap ones first."""
    named = sorted(EXPLAINERS, key=lambda name: (EXPLAINERS[name].info.control, _passes(name)))
    return [name for name in named if is_quick(name)], [name for name in named if not is_quick(name)]


def is_quick(name: str) -> bool:
    """Whether a method's map is made while the page is drawn."""
    return _passes(name) <= _QUICK


def method(name: str) -> ExplainerInfo:
    return EXPLAINERS[name].info


def wanted_map(name: str, target: str, against: str = "", layer: str = "", background: str = "") -> WantedMap:
    """A map of one method, with those of the settings that the method reads."""
    needs = EXPLAINERS[name].info.needs
    return WantedMap(
        name,
        target,
        against if against != target else "",
        layer if "cam layer" in needs else "",
        background if "background" in needs else "",
    )


def _wanted_key(model: Predictor, sha256: str, asked: WantedMap) -> tuple[object, ...]:
    return model.hash, sha256, asked


def explain(
    model: Predictor, seen: images.FirstLook, read: Read, asked: WantedMap, patience: float = 0.0
) -> jobs.RefinementState[Attribution]:
    """A raw map. One that takes long comes from a worker, step by step: ask again until it is done.

    `read` is called only if the map is not cached, perhaps by a worker; `patience` is for its first step, in seconds.

    Raises:
        SteelError: there is no such map of this image.
    """
    sha256 = seen.prediction.image_sha256
    if is_quick(asked.method):
        result = jobs.RefinementState(_explain(model, sha256, read, asked), True)
    else:
        result = _refine(model, sha256, read, asked).look(patience)
    if result.latest and result.done:
        _seconds()[model.hash, asked.method] = result.latest.seconds
    return result


@cached_data(_wanted_key, max_entries=96, per_session=True)
def _explain(model: Predictor, sha256: str, read: Read, asked: WantedMap) -> Attribution:  # noqa: ARG001 - the key
    return model.explain(read(), asked.method, asked.target, **asked.settings())


@cached_resource(_wanted_key, max_entries=64, per_session=True, on_release=jobs.Refinement.give_up)
def _refine(model: Predictor, sha256: str, read: Read, asked: WantedMap) -> jobs.Refinement[Attribution]:  # noqa: ARG001
    return jobs.Refinement(lambda: model.refine(read(), asked.method, asked.target, **asked.settings()))


def trust(model: Predictor, read: Read, attribution: Attribution) -> Trust | None:
    """How far a finished map can be trusted; None as long as a worker measures it."""
    measured = _measure_trust(model, read, attribution).look(0.0)
    return measured.latest if measured.done else None


def _identity(one: Attribution) -> tuple[str, ...]:
    return one.image_sha256, one.method, one.target, one.against, one.layer, one.baseline


@cached_resource(
    lambda model, attribution: (model.hash, *_identity(attribution)),
    max_entries=96, per_session=True, on_release=jobs.Refinement.give_up,
)  # fmt: skip
def _measure_trust(model: Predictor, read: Read, attribution: Attribution) -> jobs.Refinement[Trust]:
    return jobs.Refinement(lambda: [measure_trust(model, read(), attribution)])


def _passes(name: str) -> int:
    info = EXPLAINERS[name].info
    return info.forward + info.backward


def expected_seconds(model: Predictor, name: str) -> float:
    """How long a map of this method takes: as the last one that was made here, or judged by its passes."""
    spent = _seconds()
    if (model.hash, name) in spent:
        return spent[model.hash, name]
    slow = [
        seconds / _passes(other)
        for (hash_, other), seconds in list(spent.items())
        if hash_ == model.hash and not is_quick(other)
    ]
    return _passes(name) * (slow[-1] if slow else _PASS)


@st.cache_resource(show_spinner=False)
def _seconds() -> dict[tuple[str, str], float]:
    return {}


@cached_data(lambda a, b: (a.provenance(), b.provenance()), max_entries=96, per_session=True)
def agreement_of(a: Attribution, b: Attribution) -> tuple[float, float]:
    """How far two maps of one picture agree: rank correlation, and the share of their strongest tenths in common."""
    ranks, iou = compare_methods({"a": map_evidence(a)[None], "b": map_evidence(b)[None]})["a", "b"]
    return float(ranks[0]), 2 * float(iou[0]) / (1 + float(iou[0]))


@dataclass(frozen=True, slots=True)
class Style:
    """How raw maps are drawn: `opacity` 0 to 1, no evidence up to `threshold`, a share of the scale below 1."""

    opacity: float = 0.6
    threshold: float = render.FAINT


def panel(
    model: Predictor, seen: images.FirstLook, attribution: Attribution, style: Style, scale: float | None = None
) -> render.Panel:
    """A map drawn over the preview, with the sentence that says where its evidence lies."""
    return draw_panel(model, seen.picture(), attribution, style.opacity, style.threshold, scale)


def scale_of(model: Predictor, maps: Sequence[Attribution]) -> tuple[float, bool]:
    """The evidence that gets the full colour in all these maps of one method, and whether validation fixed it."""
    own, fixed = model.map_scale(maps[0])
    if fixed:
        return own, True
    shown = [map_evidence(one) for one in maps]
    return (render.evidence_scale(shown) if any(one.any() for one in shown) else 1.0), False


@dataclass(frozen=True, slots=True)
class MarkedRegion:
    """A region of a map, in the file's pixels; `own` if its rule was chosen for this model and method."""

    region: Region
    rule: RegionRule
    own: bool
    sentence: str


def mark_region(model: Predictor, seen: images.FirstLook, attribution: Attribution) -> MarkedRegion:
    """Where the evidence of a map lies.

    Without a rule in the model's card, what reaches half of the map's strongest evidence counts, if it is not faint.
    """
    chosen = model.card.regions.get(attribution.method)
    shown = map_evidence(attribution)
    half = max(float(shown.max()) / 2, render.FAINT * model.map_scale(attribution)[0])
    rule = chosen or RegionRule(mean=half, std=0.0, blur=0.0)
    sentence = render.describe_region(shown, map_to_region(shown, rule).mask)
    marked = map_to_region(shown, rule, attribution.target, (seen.height, seen.width))
    return MarkedRegion(marked, rule, bool(chosen), sentence)


def region_json(model: Predictor, seen: images.FirstLook, attribution: Attribution, marked: MarkedRegion) -> bytes:
    """A region's boxes, its rule and the map it was made of. Boxes are half open, counted from 0 in the file's picture.

    Of a strip its worst tile was explained: "left", "top", "width" and "height" say which part that is.
    """
    at = seen.tiled.tiles[0]
    boxes = [
        replace(box, xmin=box.xmin + at.xmin, xmax=box.xmax + at.xmin, ymin=box.ymin + at.ymin, ymax=box.ymax + at.ymin)
        for box in marked.region.boxes
    ]
    return files.as_json(
        {
            "file": seen.prediction.name,
            "width": seen.width,
            "height": seen.height,
            "left": at.xmin,
            "top": at.ymin,
            "boxes": [asdict(box) for box in boxes],
            "area": marked.region.area,
            "sentence": marked.sentence,
            "rule": marked.rule.to_json(),
            "map": attribution.provenance(),
            "checkpoint_name": model.card.name,
            "caution": CAUTION,
        }
    )


@dataclass(frozen=True, slots=True)
class Example:
    """A shipped image with its verdict and the JPEG of its Grad-CAM overlay."""

    seen: images.FirstLook
    overlay: bytes


@cached_data(lambda model, source: (model.hash, source.key), max_entries=64)
def example(model: Predictor, source: datasets.Source) -> Example | datasets.Refused:
    """Verdict and overlay of a shipped image, made once for all sessions."""
    seen = images.take_first_look(model, source)
    if isinstance(seen, datasets.Refused):
        return seen
    attribution = explain_tiled(model, source.read(), MAPS[0], seen.prediction.pred)
    return Example(seen, files.jpeg(panel(model, seen, attribution, Style()).picture))


@cached_data(lambda model, source, target: (model.hash, source.key, target), max_entries=1000)
def row_map(model: Predictor, source: datasets.Source, target: str) -> bytes | datasets.Refused:
    """A small JPEG of the Grad-CAM of a class over an image, made once for all sessions."""
    try:
        image = source.read()
        attribution = explain_tiled(model, image, MAPS[0], target)
        small = SteelImage(render.thumbnail(image, datasets.THUMBNAIL), image.name, image.sha256)
        return files.jpeg(draw_panel(model, small, attribution).picture)
    except SteelError as error:
        return datasets.Refused(str(error))
