"""Robustness: does the map stay while the image changes in a way that no one sees, and the prediction stands?

The change is L2(new map - map) / L2(map): 0 where nothing moves, about 1.4 for two maps that have nothing in common.
Images whose prediction does not stand are NaN: their map has a reason to move.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from steel_core.explain.quality.base import METRICS, Case, Floats, Maps, Metric, logits

NOISE = 0.01
"""Standard deviation of the noise, as a share of the range from black to white."""

SHIFTS = ((0, 1), (1, 0))
"""Rows down and columns right, in pixels."""


def change_under_noise(case: Case) -> Floats:
    """Change of the map (N,) when noise is added that is fainter than a camera's."""
    draws = np.random.default_rng(case.seed).standard_normal((1, 1, *case.inputs.shape[2:])) * (NOISE / case.std)
    noisy = case.inputs + torch.from_numpy(draws).to(case.inputs)
    return _changed(case, noisy, case.evidence, case.explain(noisy))


def change_under_shifts(case: Case) -> Floats:
    """Mean change of the map (N,) when the image moves by one pixel; the map is moved back before it is compared."""
    changes = []
    for down, right in SHIFTS:
        moved = F.pad(case.inputs, (right, 0, down, 0), mode="replicate")
        moved = moved[:, :, : case.inputs.shape[2], : case.inputs.shape[3]].contiguous(
            memory_format=torch.channels_last
        )
        after = case.explain(moved)[:, down:, right:]
        before = case.evidence[:, : after.shape[1], : after.shape[2]]
        changes.append(_changed(case, moved, before, after))
    return np.asarray(np.mean(changes, axis=0))


def relative_change(before: Maps, after: Maps) -> Floats:
    """L2 distance of maps (N, H, W) in units of the first one's length (N,); 0 where both are zero."""
    apart = np.linalg.norm((after - before).reshape(len(before), -1), axis=1).astype(np.float64)
    length = np.linalg.norm(before.reshape(len(before), -1), axis=1).astype(np.float64)
    return np.where(apart == 0, 0.0, apart / np.maximum(length, 1e-30))


def _changed(case: Case, inputs: torch.Tensor, before: Maps, after: Maps) -> Floats:
    stands = logits(case.model, case.inputs).argmax(axis=1) == logits(case.model, inputs).argmax(axis=1)
    return np.where(stands, relative_change(before, after), np.nan)


_SOURCE = "after Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, arXiv:1901.09392; "

METRICS.register("noise-change")(
    Metric(
        "Change under noise",
        "robustness",
        False,
        f"{_SOURCE}one draw of noise, std {NOISE:g} of the range from black to white",
        change_under_noise,
        maps=1,
        bounded=False,
    )
)
METRICS.register("shift-change")(
    Metric(
        "Change under a shift",
        "robustness",
        False,
        f"{_SOURCE}one pixel right, one pixel down",
        change_under_shifts,
        maps=len(SHIFTS),
        bounded=False,
    )
)
