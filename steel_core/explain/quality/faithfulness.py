"""Faithfulness: does the prediction depend on the pixels that the map names?"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from steel_core.explain.quality.base import METRICS, Case, Metric, rank_pixels
from steel_core.types import BoolArray, Float32Array, Float64Array, Mask

STEPS = 10  # equal parts in which pixels are deleted or inserted
ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)  # shares of the pixels that are removed, from either end of the order
_BLUR = 10.0  # pixels; what insertion starts from shows the light of the scene and no defect
_ROAD_NOISE = 0.01  # of the image's own spread, as in the paper's code
_ITERATIONS, _TOLERANCE = 20, 3e-4  # of conjugate gradients, at each scale


def deletion(case: Case) -> Float64Array:
    """Mean probability of the class (N,) while pixels become mean grey, strongest evidence first: 0 to 1."""
    return _area_under(case, torch.zeros_like(case.inputs), removes=True)


def insertion(case: Case) -> Float64Array:
    """Mean probability of the class (N,) while pixels of a blurred image become sharp, strongest first: 0 to 1."""
    return _area_under(case, blur_images(case.inputs), removes=False)


def road(case: Case) -> Float64Array:
    """Probability without the weakest pixels minus that without the strongest ones (N,), mean over the shares: -1 to 1.

    Removed pixels are imputed from their neighbours, so that the shape of the hole tells the model nothing.
    """
    place, inputs = rank_pixels(case.evidence, case.seed), case.inputs.float().cpu().numpy()
    pixels = place[0].size
    gaps = np.empty((len(case), len(ROAD_SHARES)))
    for i in range(len(case)):
        cuts = [round(share * pixels) for share in ROAD_SHARES]
        removed = [place[i] < cut for cut in cuts] + [place[i] >= pixels - cut for cut in cuts]
        filled = impute_pixels(inputs[i], removed, case.seed)
        probs = case.probs(torch.from_numpy(filled).to(case.inputs))[:, int(case.targets[i])]
        gaps[i] = probs[len(cuts) :] - probs[: len(cuts)]
    return np.asarray(gaps.mean(axis=1))


def impute_pixels(image: Float32Array, removed: Sequence[Mask], seed: int = 0) -> Float32Array:
    """An image (C, H, W) with pixels replaced by noisy linear imputation, for each of M masks: (M, C, H, W).

    Masks (H, W) are True where a pixel is unknown, and leave at least one. Each removed pixel becomes the mean of its
    eight neighbours, the diagonal ones counting half, plus noise: one sparse, symmetric system for each mask. Conjugate
    gradients solve all of them together, from a start that fills the holes coarse to fine. Source: Rong et al., A
    Consistent and Efficient Evaluation Strategy, ICML 2022, arXiv:2202.00449.
    """
    gone = np.stack(removed, axis=-1)  # (H, W, M): cv2 filters all masks of a channel in one call
    planes = image[:1] if (image == image[:1]).all() else image  # grey images: solve one channel
    noise = np.random.default_rng(seed).standard_normal(gone.shape, dtype=np.float32) * _ROAD_NOISE
    solved = [
        _solve(np.repeat(plane[..., None], gone.shape[-1], axis=-1), gone) + gone * noise * plane.std()
        for plane in planes
    ]
    out = np.stack(solved).transpose(3, 0, 1, 2)
    return np.ascontiguousarray(np.broadcast_to(out, (len(removed), *image.shape)))


def blur_images(inputs: Tensor) -> Tensor:
    """Images (N, C, H, W) without their details."""
    planes = inputs.float().cpu().numpy()
    soft = np.stack(
        [[cv2.GaussianBlur(plane, (0, 0), _BLUR, borderType=cv2.BORDER_REFLECT) for plane in image] for image in planes]
    )
    return torch.from_numpy(soft).to(inputs)


def _area_under(case: Case, other: Tensor, removes: bool) -> Float64Array:
    """Trapezoid area (N,) under the probability of the class while pixels change to or from the other image."""
    place = torch.from_numpy(rank_pixels(case.evidence, case.seed)).to(case.inputs.device)[:, None]
    start, end = (case.inputs, other) if removes else (other, case.inputs)
    pixels = place[0].numel()
    curve = np.empty((STEPS + 1, len(case)))
    rows = np.arange(len(case))
    for step in range(STEPS + 1):
        mixed = torch.where(place < round(step / STEPS * pixels), end, start)
        curve[step] = case.probs(mixed.contiguous(memory_format=torch.channels_last))[rows, case.targets.cpu().numpy()]
    return np.asarray((curve[:-1] + curve[1:]).mean(axis=0) / 2)


def _neighbours(planes: Float32Array) -> Float32Array:
    """Sum of the eight neighbours of each pixel of (H, W, M), weighed 1/6 and, on the diagonals, 1/12."""
    kernel = np.array([1, 2, 1], dtype=np.float32)
    ring = cv2.sepFilter2D(planes, -1, kernel, kernel / 12, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(ring.reshape(planes.shape) - planes / 3)


def _solve(planes: Float32Array, gone: BoolArray) -> Float32Array:
    """Planes (H, W, M) in which each pixel that is gone equals the weighted mean of its neighbours.

    Each scale starts from the next coarser solution, so that wide holes need no more steps than narrow ones.
    """
    hole = gone.astype(np.float32)
    weight = _neighbours(np.ones_like(planes[..., :1]))  # less than 1 at the edge, which has fewer neighbours
    x = planes + hole * (_coarser(planes, gone) - planes)
    residual = hole * (_neighbours(x) - weight * x)
    direction = residual.copy()
    power = np.einsum("hwm,hwm->m", residual, residual)
    goal = _TOLERANCE**2 * planes.var(axis=(0, 1)) * hole.sum(axis=(0, 1))
    for _ in range(_ITERATIONS):
        if (power <= goal).all():
            break
        moved = hole * (weight * direction - _neighbours(direction))
        step = power / np.maximum(np.einsum("hwm,hwm->m", direction, moved), 1e-30)
        x += step * direction
        residual -= step * moved
        before, power = power, np.einsum("hwm,hwm->m", residual, residual)
        direction *= power / np.maximum(before, 1e-30)
        direction += residual
    return np.asarray(x)


def _coarser(planes: Float32Array, gone: BoolArray) -> Float32Array:
    """A first guess (H, W, M) from half the resolution, where each pixel is the mean of the known ones in its place."""
    height, width, count = planes.shape
    if max(height, width) == 1:
        return np.zeros_like(planes)
    even = ((0, height % 2), (0, width % 2), (0, 0))
    present = np.pad(1 - gone.astype(np.float32), even)
    total = np.pad(planes, even) * present
    blocks = ((height + 1) // 2, 2, (width + 1) // 2, 2, count)
    weight = present.reshape(blocks).sum(axis=(1, 3))
    coarse = _solve(total.reshape(blocks).sum(axis=(1, 3)) / np.maximum(weight, 1), weight == 0)
    size = (2 * blocks[2], 2 * blocks[0])
    layers = np.ascontiguousarray(np.moveaxis(coarse, -1, 0))
    fine = [cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR) for layer in layers]
    return np.stack(fine, axis=-1)[:height, :width]


_RISE = "Petsiuk et al., RISE, BMVC 2018, arXiv:1806.07421; "
_ROAD = "Rong et al., ICML 2022, arXiv:2202.00449; probability, weakest minus strongest pixels removed"

for _name, _title, _higher, _source, _measure in (
    ("deletion", "Deletion", False, f"{_RISE}to mean grey, in {STEPS} steps", deletion),
    ("insertion", "Insertion", True, f"{_RISE}into the blurred image, in {STEPS} steps", insertion),
    ("road", "ROAD", True, _ROAD, road),
):
    METRICS.register(_name)(Metric(_title, "faithfulness", _higher, _source, _measure, bounded=_name != "road"))
