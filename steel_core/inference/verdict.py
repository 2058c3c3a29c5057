"""From logits to a verdict: the class, or why a person must look.

Legend: N images, H rows, W columns, K classes, F features.
"""

from collections.abc import Sequence

import numpy as np

from steel_core.metrics import logits_to_probabilities, multi_label
from steel_core.models.card import Card
from steel_core.models.ood import OODGate
from steel_core.types import REFER, UNFAMILIAR, Float32Array, Float64Array, Prediction, SteelImage

_SMALLEST = 16  # pixels a side
_BLANK = 1 / 255  # one grey level of 8 bits
_CLIPPED = 0.95  # share of the picture


def decide_predictions(
    card: Card,
    checkpoint: str,
    gate: OODGate | None,
    images: Sequence[SteelImage],
    grids: Sequence[tuple[Float32Array, str]],
    logits: Float32Array,
    features: Float32Array,
) -> list[Prediction]:
    """One prediction for each image, from what the network saw (H, W), logits (N, K) and averaged features (N, F)."""
    probs = logits_to_probabilities(logits.astype(np.float64), card.head, card.temperature)
    scores = gate.ood_score(features, probs.argmax(axis=1)) if gate and len(images) else [None] * len(images)
    predictions = []
    for image, row, p, (grid, note), score in zip(images, logits, probs, grids, scores, strict=True):
        pred = card.classes[int(p.argmax())]
        blank = why_not_judgeable(image, grid)
        outcome, defects = _decide(card, p)
        if blank:
            outcome = REFER
        elif score is not None and score > 1:
            outcome = UNFAMILIAR
        notes = "; ".join(filter(None, (image.note, note, blank)))
        predictions.append(Prediction(
            name=image.name, pred=pred, outcome=outcome, probs=dict(zip(card.classes, map(float, p), strict=True)),
            logits=row, threshold=card.threshold(pred), image_sha256=image.sha256, checkpoint=checkpoint, note=notes,
            judgeable=not blank, ood_score=None if score is None else float(score), defects=defects,
        ))  # fmt: skip
    return predictions


def _decide(card: Card, probs: Float64Array) -> tuple[str, tuple[str, ...] | None]:
    """What thresholds make of probabilities (K,): the outcome and, of a multi-label checkpoint, the classes named."""
    if card.multi_label:
        named = multi_label.named_types(probs, card.classes, card.thresholds)
        defects = tuple(card.classes[k] for k in np.argsort(-probs, kind="stable") if named[k])
        return str(multi_label.decide_outcomes(probs[None], card.classes, card.thresholds)[0]), defects
    best = int(probs.argmax())
    pred = card.classes[best]
    return pred if probs[best] >= card.threshold(pred) else REFER, None


def why_not_judgeable(image: SteelImage, grid: Float32Array) -> str:
    """Why no model can judge a picture and its grid (H, W): too small, blank, black or overexposed; or ""."""
    if min(image.height, image.width) < _SMALLEST:
        return f"only {image.width} x {image.height} pixels: too small to judge"
    if float(grid.std()) < _BLANK:
        return "every pixel is nearly alike: nothing to judge"
    if float(((grid <= _BLANK) | (grid >= 1 - _BLANK)).mean()) > _CLIPPED:
        return "almost all of it is pure black or pure white: nothing to judge"
    return ""
