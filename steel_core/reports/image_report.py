"""What a user carries away from one image: a page with verdict and maps (PNG), and the same in numbers (JSON)."""

from collections.abc import Sequence
from typing import Any

from steel_core import render
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.types import REFER, UNFAMILIAR, Attribution, Prediction, SteelImage

CAUTION = "A map shows what influenced the model, not what caused the defect. The model can be wrong; a person decides."


def describe_verdict(prediction: Prediction) -> str:
    """The outcome in words: the class or classes with their probabilities, or why a person must decide."""
    if prediction.defects is not None and prediction.outcome not in (UNFAMILIAR, REFER):
        return _sheet_sentence(prediction)
    best = f"{prediction.pred} ({render.percent(prediction.confidence)})"
    if prediction.outcome == UNFAMILIAR:
        return "Unfamiliar: no verdict, because it is unlike all that the model has learnt from; a person decides"
    if prediction.outcome == REFER and not prediction.judgeable:
        return "Refer to a person: the picture cannot be judged"
    if prediction.outcome == REFER and prediction.defects is not None:
        return f"Refer to a person: {best} is too likely for a clear sheet, and not likely enough to be named"
    if prediction.outcome == REFER:
        return f"Refer to a person: {best} is below the {render.percent(prediction.threshold)} needed for a verdict"
    return f"{prediction.outcome[0].upper()}{prediction.outcome[1:]} ({render.percent(prediction.confidence)})"


def _sheet_sentence(prediction: Prediction) -> str:
    if not prediction.defects:
        return f"Clear: the likeliest defect is {prediction.pred} ({render.percent(prediction.confidence)})"
    return "Defect: " + ", ".join(f"{name} ({render.percent(prediction.probs[name])})" for name in prediction.defects)


def draw_panel(
    predictor: Predictor,
    image: SteelImage,
    attribution: Attribution,
    opacity: float = 0.6,
    threshold: float = render.FAINT,
    scale: float | None = None,
) -> render.Panel:
    """One map drawn on its checkpoint's fixed scale, with the sentence that says where its evidence lies.

    Where the checkpoint has no fixed scale for the method, `scale` is shared with other panels. `opacity` (0 to 1) is
    that of the strongest evidence; up to `threshold`, a share of the scale below 1, none is drawn.
    """
    info = EXPLAINERS[attribution.method].info
    own, fixed = predictor.map_scale(attribution)
    scale = own if fixed or scale is None else scale
    shown = map_evidence(attribution)
    caption = f"For {render.describe_target(attribution)}. {render.summarise_map(shown, scale).sentence}"
    if not fixed:
        caption += " Scaled by the maps shown here: not comparable with those of other images."
    picture = render.overlay(image, shown, scale, opacity, threshold=threshold)
    return render.Panel(info.title, caption, picture, info.signed)


def render_image_png(
    predictor: Predictor,
    image: SteelImage,
    prediction: Prediction,
    maps: Sequence[Attribution],
    opacity: float = 0.6,
    threshold: float = render.FAINT,
) -> bytes:
    """One page as PNG: verdict, picture, maps side by side, and everything needed to make them again."""
    ranked = sorted(prediction.probs.items(), key=lambda pair: -pair[1])
    header = [
        describe_verdict(prediction),
        f"{image.name}, {image.width} x {image.height} pixels" + (f" ({prediction.note})" if prediction.note else ""),
        "Calibrated probabilities: " + ", ".join(f"{name} {render.percent(p)}" for name, p in ranked),
        f"Model: {predictor.card.title}",
        *predictor.card.warnings,
    ]
    footer = [render.describe_provenance(each) for each in maps] + [CAUTION]
    return render.render_report_png(
        image, [draw_panel(predictor, image, each, opacity, threshold) for each in maps], header, footer
    )


def name_maps(maps: Sequence[Attribution]) -> list[str]:
    """A name for each map: its method; with what is explained where a method was used for several classes."""
    methods = [each.method for each in maps]
    return [
        each.method if methods.count(each.method) == 1 else f"{each.method} for {render.describe_target(each)}"
        for each in maps
    ]


def result_to_json(predictor: Predictor, prediction: Prediction, maps: Sequence[Attribution]) -> dict[str, Any]:
    """Prediction, checkpoint, and each map's provenance, scale and evidence, as a dictionary that `json` can write."""
    described = {}
    for key, each in zip(name_maps(maps), maps, strict=True):
        scale, fixed = predictor.map_scale(each)
        summary = render.summarise_map(map_evidence(each), scale)
        described[key] = each.provenance() | {
            "scale": scale,
            "scale_fixed_on_validation": fixed,
            "evidence": {name: getattr(summary, name) for name in summary.__slots__},
        }
    checkpoint = {"checkpoint_name": predictor.card.name, "warnings": list(predictor.card.warnings)}
    return prediction.to_json() | checkpoint | {"maps": described}
