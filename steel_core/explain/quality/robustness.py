"""Robustness: does the map stay while the image changes in a way that no one sees, and the prediction stands?

The change is L2(new map - map) / L2(map): 0 where nothing moves, about 1.4 for two maps that have nothing in common.
Images whose prediction does not stand are NaN: their map has a reason to move.
"""

import numpy as np
import torch
import torch.nn.functional as F

from steel_core.explain.quality.base import METRICS, Case, Metric, logits
from steel_core.types import Float32Array, Float64Array

NOISE = 0.01  # standard deviation of the noise, as a share of the range from black to white
SHIFTS = ((0, 1), (1, 0))  # rows down and columns right, in pixels


def change_under_noise(case: Case) -> Float64Array:
    """Change of the map (N,) when noise is added that is fainter than a camera's."""
    draws = np.random.default_rng(case.seed).standard_normal((1, 1, *case.inputs.shape[2:])) * (NOISE / case.std)
    noisy = case.inputs + torch.from_numpy(draws).to(case.inputs)
    return _change_where_stable(case, noisy, case.evidence, case.explain(noisy))


def change_under_shifts(case: Case) -> Float64Array:
    """Mean change of the map (N,) when the image moves by one pixel; the map is moved back before it is compared."""
    changes = []
    for down, right in SHIFTS:
        moved = F.pad(case.inputs, (right, 0, down, 0), mode="replicate")
        moved = moved[:, :, : case.inputs.shape[2], : case.inputs.shape[3]].contiguous(
            memory_format=torch.channels_last
        )
        after = case.explain(moved)[:, down:, right:]
        before = case.evidence[:, : after.shape[1], : after.shape[2]]
        changes.append(_change_where_stable(case, moved, before, after))
    return np.asarray(np.mean(changes, axis=0))


def relative_change(before: Float32Array, after: Float32Array) -> Float64Array:
    """L2 distance of maps (N, H, W) in units of the first one's length (N,); 0 where both are zero."""
    apart = np.linalg.norm((after - before).reshape(len(before), -1), axis=1).astype(np.float64)
    length = np.linalg.norm(before.reshape(len(before), -1), axis=1).astype(np.float64)
    return np.where(apart == 0, 0.0, apart / np.maximum(length, 1e-30))


def _change_where_stable(case: Case, inputs: torch.Tensor, before: Float32Array, after: Float32Array) -> Float64Array:
    stands = logits(case.model, case.inputs).argmax(axis=1) == logits(case.model, inputs).argmax(axis=1)
    return np.where(stands, relative_change(before, after), np.nan)


_SOURCE = "after Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, arXiv:1901.09392; "

for _name, _title, _change, _measure, _maps in (
    ("noise-change", "Change under noise", f"one draw of noise, std {NOISE:g} of the range from black to white",
     change_under_noise, 1),
    ("shift-change", "Change under a shift", "one pixel right, one pixel down", change_under_shifts, len(SHIFTS)),
):  # fmt: skip
    METRICS.register(_name)(Metric(_title, "robustness", False, _SOURCE + _change, _measure, maps=_maps, bounded=False))
