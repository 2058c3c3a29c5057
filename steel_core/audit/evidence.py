"""What the model answers and where its evidence lies, for many pictures."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import estimate_difference
from steel_core.device import batch_size
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor
from steel_core.metrics import logits_to_probabilities
from steel_core.metrics.decisions import decide_outcomes
from steel_core.types import CLEAR, REFER, Float32Array, Float64Array, Grey, Int64Array, Mask

REGION = 0.5
"""Where no annotation tells where a defect is: the smallest part of a map that holds this share of its evidence."""


def stream_logits(predictor: Predictor, grids: Iterable[Grey]) -> Iterator[Float32Array]:
    """Logits (K,) of pictures that are made while they are asked for: memory does not grow with their number."""
    waiting = iter(grids)
    while some := list(islice(waiting, 8 * batch_size(predictor.device))):
        yield from predictor.logits(some)


def predict_logits(predictor: Predictor, grids: Iterable[Grey]) -> Float32Array:
    """Logits (N, K) of N pictures, at least one."""
    return np.stack(list(stream_logits(predictor, grids)))


def compute_probabilities(predictor: Predictor, logits: Float32Array) -> Float64Array:
    """Calibrated probabilities (..., K) of logits (..., K)."""
    flat = logits.reshape(-1, logits.shape[-1]).astype(np.float64)
    return logits_to_probabilities(flat, predictor.card.head, predictor.card.temperature).reshape(logits.shape)


def count_outcomes(predictor: Predictor, logits: Float32Array, sheets: Sheets) -> dict[str, Any]:
    """What people would see of sheets with a defect, by their logits (N, K), as shares of `n` sheets.

    "passed": called clear; "referred": left to a person; "named wrong": called another defect than the label says.
    """
    bad = sheets.lacks(CLEAR) if CLEAR in predictor.classes else sheets.first_labels != ""
    probs = compute_probabilities(predictor, logits[bad])
    outcomes = decide_outcomes(probs, predictor.classes, predictor.card.thresholds)
    passed, referred = outcomes == CLEAR, outcomes == REFER
    wrong = ~passed & ~referred & (outcomes != sheets.first_labels[bad])
    shares = {"passed": passed, "referred": referred, "named wrong": wrong}
    return {"n": int(bad.sum())} | {name: float(of.mean()) if bad.any() else None for name, of in shares.items()}


def compute_evidence_maps(
    predictor: Predictor, grids: Sequence[Grey], targets: Sequence[int] | Int64Array
) -> list[Float32Array]:
    """Grad-CAM (H, W) of each picture for the class of that number; the positive part alone."""
    maps: list[Float32Array] = []
    explainer = EXPLAINERS["grad-cam"]()
    for grid, target in zip(grids, targets, strict=True):
        inputs = predictor.card.preprocessing.normalise(torch.from_numpy(grid)[None, None].to(predictor.device))
        values = explainer.attribute(predictor.model, inputs, torch.tensor([int(target)], device=predictor.device))
        maps.append(values[0, 0].clamp(min=0).cpu().numpy())
    return maps


def compute_share_inside(values: Float32Array, mask: Mask) -> float | None:
    """Share of a map's evidence (H, W) inside a mask; None where it holds none."""
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 else None


def measure_evidence_in_parts(
    predictor: Predictor,
    sheets: Sheets,
    parts: Iterable[tuple[int, int, Mask]],
    most: int,
    *,
    least: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Share of the evidence inside parts of pictures against those parts' areas; no estimate of fewer than `least`.

    `parts` are images, numbers of a class, and masks (H, W); they are asked for until `most` images have evidence.
    """
    shares: list[float] = []
    areas: list[float] = []
    groups: list[str] = []
    for i, target, part in parts:
        if len(shares) >= most:
            break
        (values,) = compute_evidence_maps(predictor, [sheets.grids[i]], [target])
        if (share := compute_share_inside(values, part)) is not None:
            shares.append(share)
            areas.append(float(part.mean()))
            groups.append(sheets.groups[i])
    if len(shares) < least:
        return {"n": len(shares), "share": None, "area": None, "interval_of_difference": None}
    interval, _ = estimate_difference(np.array(shares) - np.array(areas), np.array(groups), seed=seed)
    return {
        "n": len(shares),
        "share": float(np.mean(shares)),
        "area": float(np.mean(areas)),
        "interval_of_difference": interval,
    }


def find_evidence_regions(
    predictor: Predictor, grids: Sequence[Grey], targets: Sequence[int] | Int64Array
) -> list[Mask]:
    """Where the model looks: the smallest part of each picture (H, W) that holds half of the evidence for a class."""
    return [_find_largest(values) for values in compute_evidence_maps(predictor, grids, targets)]


def find_regions(predictor: Predictor, sheets: Sheets, preds: Int64Array) -> list[Mask]:
    """What a patch must not cover (H, W): the defect on file; nothing on a clear sheet; else where the model looks."""
    unknown = [i for i, defect in enumerate(sheets.defects) if defect is None]
    guesses = iter(find_evidence_regions(predictor, [sheets.grids[i] for i in unknown], preds[unknown]))
    return [next(guesses) if defect is None else defect for defect in sheets.defects]


def _find_largest(values: Float32Array) -> Mask:
    order = np.argsort(-values, axis=None, kind="stable")
    summed = np.cumsum(values.ravel()[order])
    mask = np.zeros(values.size, bool)
    if summed[-1] > 0:
        mask[order[: int(np.searchsorted(summed, REGION * summed[-1])) + 1]] = True
    return mask.reshape(values.shape)
