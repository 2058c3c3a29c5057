"""Kinds of evidence: attribution maps, and the patches under their peaks, sorted into clusters.

Spectral clustering of maps as in SpRAy; clusters are ranked by how well they predict a label.

Source: Lapuschkin et al., Unmasking Clever Hans Predictors, Nature Communications 10, 2019, arXiv:1902.10178.

Legend of shapes: N images, F features; H, W of a grid.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from scipy.linalg import eigvalsh
from scipy.stats import binom
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler

from steel_core.audit.settings import DiscoverSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import LEAST
from steel_core.metrics import estimate_share, holm_correction
from steel_core.types import Float32Array, Float64Array, Grey, Int64Array, Mask, StrArray


@dataclass(frozen=True, eq=False)
class Cluster:
    """Evidence of one kind."""

    kind: str  # "maps" (where evidence lies) or "patches" (what it looks like)
    label: str
    share: float  # of its images with that label
    prior: float  # how common the label is among all images
    interval: tuple[float, float]  # 95 % interval of the share
    p: float  # of so large a share by chance, corrected for the number of clusters
    members: Int64Array
    exemplars: Int64Array  # positions of the images nearest its middle, nearest first
    beside: float | None  # share of its peaks that lie beside the defect; None where nothing tells


def cluster_evidence(
    sheets: Sheets, maps: Sequence[Float32Array], labels: StrArray, settings: DiscoverSettings
) -> list[Cluster]:
    """Clusters of maps (H, W) and of patches, the one that predicts a label (N,) best first."""
    if len(sheets) < 2 * LEAST:
        return []
    beside = _measure_beside(sheets, maps, settings.window)
    where = np.stack([_coarsen(values) for values in maps])
    what = np.stack(
        [_describe_patch(grid, values, settings.window) for grid, values in zip(sheets.grids, maps, strict=True)]
    )
    clusters = []
    for kind, features in (("maps", where), ("patches", StandardScaler().fit_transform(what))):
        member = _sort_spectrally(features, settings)
        for number in np.unique(member):
            members = np.flatnonzero(member == number)
            clusters.append(_describe_members(kind, members, features, labels, beside, sheets, settings))
    corrected = holm_correction([cluster.p for cluster in clusters])
    clusters = [replace(cluster, p=p) for cluster, p in zip(clusters, corrected, strict=True)]
    return sorted(clusters, key=lambda cluster: cluster.prior - cluster.interval[0])


def describe_as_json(cluster: Cluster, sheets: Sheets, maps: Sequence[Float32Array], window: float) -> dict[str, Any]:
    """A cluster as `json` can write it; its exemplars by row, file and the box of the patch in it."""
    exemplars = [
        {
            "row": int(sheets.rows[i]),
            "file": sheets.names[i],
            "path": sheets.paths[i],
            "sha256": sheets.hashes[i],
            "box": _bound_in_pixels(find_patch_under_peak(maps[i], window), sheets.sizes[i]),
        }
        for i in cluster.exemplars
    ]
    return {
        "kind": cluster.kind,
        "label": cluster.label,
        "share": cluster.share,
        "prior": cluster.prior,
        "interval": cluster.interval,
        "p": cluster.p,
        "n": len(cluster.members),
        "beside_the_defect": cluster.beside,
        "exemplars": exemplars,
    }


def find_patch_under_peak(values: Float32Array, window: float) -> Mask:
    """The patch under the peak of a map (H, W), with a rim: a cut fades out at its edge, which shall be steel."""
    mask = np.zeros(values.shape, bool)
    box = _window_at_peak(values, window)
    mask[box] = values[box] >= 0.4 * values.max()
    return cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0


def _bound_in_pixels(mask: Mask, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height around a mask (H, W) in pixels of the image; at least 4 x 4, to be cut out."""
    ends = []
    for axis, full in ((0, size[1]), (1, size[0])):
        inside = np.flatnonzero(mask.any(axis=axis))
        zoom = full / mask.shape[1 - axis]
        low, high = int(np.floor(inside[0] * zoom)), int(np.ceil((inside[-1] + 1) * zoom))
        low = max(0, min(low, full - 4))
        ends.append((low, min(max(high, low + 4), full) - low))
    (left, width), (top, height) = ends
    return left, top, width, height


def _describe_members(
    kind: str,
    members: Int64Array,
    features: Float64Array,
    labels: StrArray,
    beside: Float64Array,
    sheets: Sheets,
    settings: DiscoverSettings,
) -> Cluster:
    own = labels[members]
    names = np.unique(own)
    prior = {name: float((labels == name).mean()) for name in names}
    label = max(names, key=lambda name: float((own == name).mean()) - prior[name])
    share = estimate_share(own == label, sheets.groups[members])
    near = np.linalg.norm(features[members] - np.median(features[members], axis=0), axis=1)
    typical = members[np.argsort(np.where(own == label, near, np.inf), kind="stable")]
    return Cluster(
        kind=kind,
        label=str(label),
        share=float(share.value or 0.0),
        prior=prior[label],
        interval=(share.low, share.high),
        p=float(binom.sf(int((own == label).sum()) - 1, len(members), prior[label])),
        members=members,
        exemplars=typical[: settings.exemplars],
        beside=None if np.isnan(beside[members]).all() else float(np.nanmean(beside[members])),
    )


def _sort_spectrally(features: Float64Array, settings: DiscoverSettings) -> Int64Array:
    """Cluster of each row (N,), as many as the largest gap between eigenvalues of the graph's Laplacian says."""
    near = kneighbors_graph(features, min(settings.neighbours, len(features) - 1), include_self=True).toarray()
    graph = 0.5 * (near + near.T)
    root = 1 / np.sqrt(graph.sum(axis=1))
    laplacian = np.eye(len(graph)) - root[:, None] * graph * root
    values = eigvalsh(laplacian, subset_by_index=(0, min(settings.most, len(graph) - 1)))
    count = 2 + int(np.diff(values)[1:].argmax())
    with warnings.catch_warnings():  # pieces of a graph that do not hang together are clusters, too
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        clustering = SpectralClustering(
            count, affinity="precomputed", assign_labels="cluster_qr", random_state=settings.seed
        )
        return np.asarray(clustering.fit_predict(graph), dtype=np.int64)


def _coarsen(values: Float32Array) -> Float64Array:
    """A map as a share of evidence in each cell of 8 x 8, (64,)."""
    small = cv2.resize(values, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float64)
    return np.asarray(small / max(float(small.sum()), 1e-12)).ravel()


def _describe_patch(grid: Grey, values: Float32Array, window: float) -> Float64Array:
    """What the patch under a map's peak looks like, wherever in the patch it is, against its own picture, (F,)."""
    patch = grid[_window_at_peak(values, window)]
    spread = max(float(grid.std()), 1e-4)
    levels = (np.quantile(patch, np.linspace(0.05, 0.95, 9)) - float(np.median(grid))) / spread
    detail = []
    for sigma in (0.7, 1.5, 3.0):
        smooth = cv2.GaussianBlur(patch, (0, 0), sigma)
        down, across = (float(np.abs(np.diff(smooth, axis=axis)).mean()) for axis in (0, 1))
        detail += [np.log(down / spread + 1e-3), np.log(across / spread + 1e-3)]
    return np.r_[levels, detail]


def _window_at_peak(values: Float32Array, window: float) -> tuple[slice, slice]:
    side = max(8, round(window * min(values.shape)))
    peak = np.unravel_index(int(values.argmax()), values.shape)
    starts = [int(np.clip(int(at) - side // 2, 0, full - side)) for at, full in zip(peak, values.shape, strict=True)]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _measure_beside(sheets: Sheets, maps: Sequence[Float32Array], window: float) -> Float64Array:
    """(N,) 1 where the patch under the peak keeps off the defect, 0 where it meets it, NaN where nothing tells."""
    return np.array(
        [
            np.nan if defect is None else float(not defect[_window_at_peak(values, window)].any())
            for defect, values in zip(sheets.defects, maps, strict=True)
        ]
    )
