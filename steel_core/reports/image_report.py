"""What a user carries away from one image: a page with verdict and maps (PNG), and the same in numbers (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steel_core import render
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor, evidence
from steel_core.types import REFER, UNFAMILIAR, Attribution, Prediction, SteelImage

CAUTION = "A map shows what influenced the model, not what caused the defect. The model can be wrong; a person decides."


def verdict_sentence(prediction: Prediction) -> str:
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
    """A verdict on a sheet in which several classes can be."""
    if not prediction.defects:
        return f"Clear: the likeliest defect is {prediction.pred} ({render.percent(prediction.confidence)})"
    return "Defect: " + ", ".join(f"{name} ({render.percent(prediction.probs[name])})" for name in prediction.defects)


def panel(
    predictor: Predictor,
    image: SteelImage,
    found: Attribution,
    opacity: float = 0.6,
    threshold: float = render.FAINT,
    scale: float | None = None,
) -> render.Panel:
    """One map drawn on its checkpoint's fixed scale, with the sentence that says where its evidence lies.

    Args:
        predictor: the model that was explained.
        image: the picture that was explained.
        found: its raw map.
        opacity: of the strongest evidence, 0 to 1.
        threshold: share of the scale up to which evidence is not drawn, 0 to less than 1.
        scale: shared with other panels, where the checkpoint has no fixed one for the method.
    """
    info = EXPLAINERS[found.method].info
    own, fixed = predictor.map_scale(found)
    scale = own if fixed or scale is None else scale
    shown = evidence(found)
    told = render.summary(shown, scale)
    caption = f"For {render.target_words(found)}. {told.sentence}"
    if not fixed:
        caption += " Scaled by the maps shown here: not comparable with those of other images."
    picture = render.overlay(image, shown, scale, opacity, threshold=threshold)
    return render.Panel(info.title, caption, picture, info.signed)


def report_png(
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
        verdict_sentence(prediction),
        f"{image.name}, {image.width} x {image.height} pixels" + (f" ({prediction.note})" if prediction.note else ""),
        "Calibrated probabilities: " + ", ".join(f"{name} {render.percent(p)}" for name, p in ranked),
        f"Model: {predictor.card.title}",
        *predictor.card.warnings,
    ]
    footer = [render.small_print(found) for found in maps] + [CAUTION]
    return render.report_png(
        image, [panel(predictor, image, found, opacity, threshold) for found in maps], header, footer
    )


def map_keys(maps: Sequence[Attribution]) -> list[str]:
    """A name for each map: its method; with what is explained where a method was used for several classes."""
    methods = [found.method for found in maps]
    return [
        found.method if methods.count(found.method) == 1 else f"{found.method} for {render.target_words(found)}"
        for found in maps
    ]


def result_json(predictor: Predictor, prediction: Prediction, maps: Sequence[Attribution]) -> dict[str, Any]:
    """Prediction, checkpoint, and each map's provenance, scale and evidence, as a dictionary that `json` can write."""
    described = {}
    for key, found in zip(map_keys(maps), maps, strict=True):
        scale, fixed = predictor.map_scale(found)
        told = render.summary(evidence(found), scale)
        described[key] = found.provenance() | {
            "scale": scale,
            "scale_fixed_on_validation": fixed,
            "evidence": {name: getattr(told, name) for name in told.__slots__},
        }
    said = {"checkpoint_name": predictor.card.name, "warnings": list(predictor.card.warnings)}
    return prediction.to_json() | said | {"maps": described}
