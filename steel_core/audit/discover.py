"""Unknown artefacts: what kinds of evidence are there, which goes with a label, and does it move the model by itself?

Attribution maps, and the patches under their peaks, are sorted into clusters by spectral clustering as in SpRAy, ranked
by how well they predict a label. Clusters that lie beside the defects are confirmed: their exemplars are pasted on
images of other classes, against patches of the same outline from elsewhere in the same pictures.

Source: Lapuschkin et al., Unmasking Clever Hans Predictors, Nature Communications 10, 2019, arXiv:1902.10178.

Legend of shapes: F features.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.linalg import eigvalsh
from scipy.stats import binom
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler

from steel_core.audit.evidence import compute_evidence_maps, find_regions, predict_logits, stream_logits
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect, sort_strongest_first
from steel_core.audit.settings import DiscoverSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import (
    FOR,
    LEAST,
    NOTHING,
    TOO_FEW,
    Effect,
    combine_verdicts,
    decide_verdicts,
    estimate_effect,
)
from steel_core.inference.predictor import Predictor
from steel_core.metrics import estimate_share, holm_correction
from steel_core.perturb.methods.patches import CleanSteel, MeanGrey, WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.perturb.stencil import Stencil, cut_out, place_footprint
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, Float32Array, Float64Array, Grey, Int64Array, Mask, StrArray

CONTROLS = ("same-picture-elsewhere", "clean-steel", "mean-grey")
"""What a pasted patch is compared with, in the same outline at the same place."""


QUESTION = "A person must look: is this the defect? What makes a defect is no shortcut to it."


def audit_discover(
    predictor: Predictor,
    sheets: Sheets,
    settings: DiscoverSettings = DiscoverSettings(),
    progress: Progress = no_progress,
) -> AuditReport:
    """The search on these images; `progress` receives steps done and their number."""
    steps = 2 + settings.confirmed
    clean = predict_logits(predictor, sheets.grids)
    preds = clean.argmax(axis=1)
    rows = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.mapped]
    mapped = sheets.select(rows)
    maps = compute_evidence_maps(predictor, mapped.grids, preds[rows])
    progress("discover", 1, steps)
    labels = mapped.labels_or_predicted(predictor.classes, preds[rows])
    clusters = _cluster_evidence(mapped, maps, labels, settings)
    progress("discover", 2, steps)
    suspects = [
        cluster
        for cluster in clusters
        if cluster.kind == "patches"
        and cluster.label in predictor.classes
        and cluster.share > cluster.prior
        and (cluster.beside is None or cluster.beside >= settings.beside)
    ][: settings.confirmed]
    descriptions = {cluster: _describe_as_json(cluster, mapped, maps, settings.window) for cluster in clusters}
    effects = []
    for done, cluster in enumerate(suspects):
        effects.append(_confirm(predictor, sheets, mapped, maps, clean, cluster, settings))
        progress("discover", 3 + done, steps)
    verdicts, corrected = decide_verdicts(effects, settings.tolerated)
    findings = [
        AuditFinding(
            **dict(effect),
            name=f"patches of {cluster.label}",
            verdict=TOO_FEW if verdict == FOR and _is_unsure(cluster) else verdict,
            sentence=describe_effect(
                effect, f"A patch that goes with {cluster.label}, pasted on others,", f"turns to {cluster.label}"
            )
            + (f" {QUESTION}" if verdict == FOR and _is_unsure(cluster) else ""),
            p_corrected=p,
            legs={"not the defect": None if _is_unsure(cluster) else True},
            cluster=descriptions[cluster],
        )
        for cluster, effect, verdict, p in zip(suspects, effects, verdicts, corrected, strict=True)
    ]
    limits = []
    if not suspects:
        limits.append(
            "No patch that goes with a label lies beside the defects: the search found nothing to paste and to test."
            if clusters
            else f"Evidence is sorted into kinds from {2 * LEAST} images on; here are {len(mapped)}."
        )
    if unsure := sum(_is_unsure(cluster) for cluster in suspects):
        limits.append(
            f"Nothing tells whether the patches of {unsure} clusters are the defect itself: a person must look."
        )
    return build_report(
        "discover",
        combine_verdicts([finding.verdict for finding in findings] or [NOTHING if clusters else TOO_FEW]),
        sort_strongest_first(findings),
        predictor,
        sheets,
        settings,
        limits=limits,
        detail={"clusters": list(descriptions.values())},
    )


def _is_unsure(cluster: _Cluster) -> bool:
    """Whether a patch may be the defect: it goes with one, and nothing tells where that is."""
    return cluster.beside is None and cluster.label != CLEAR


def format_retest_command(cluster: dict[str, Any], checkpoint: str, data: Path) -> str:
    """The command that cuts the first exemplar of a cluster out again and asks the whole white-stain test of it."""
    first = cluster["exemplars"][0]
    box = ",".join(map(str, first["box"]))
    command = ["audit", "white-stain", "--checkpoint", checkpoint, "--data", str(data)]
    command += ["--stain-from", str(data / first["path"]), "--box", box, "--towards", cluster["label"]]
    return f"python -m steel_core {shlex.join(command)}"


def _confirm(
    predictor: Predictor,
    sheets: Sheets,
    mapped: Sheets,
    maps: list[Float32Array],
    clean: Float32Array,
    cluster: _Cluster,
    settings: DiscoverSettings,
) -> Effect:
    k = predictor.classes.index(cluster.label)
    under = [_find_patch_under_peak(maps[i], settings.window) for i in cluster.exemplars]
    source = [(cut_out(mapped.grids[i], mask), mask) for i, mask in zip(cluster.exemplars, under, strict=True)]
    rng = np.random.default_rng(settings.seed)
    preds = clean.argmax(axis=1)
    other = sheets.lacks(cluster.label) | (sheets.first_labels == "")
    rows = rng.permutation(np.flatnonzero(other & (preds != k)))[: settings.pasted]
    regions = find_regions(predictor, sheets.select(rows), preds[rows])
    counted: list[int] = []

    def changed() -> Iterator[Grey]:
        for i, region in zip(rows, regions, strict=True):
            grid, turn = sheets.grids[i], int(i) % len(source)
            stencil, mask = source[turn]
            paste = WhiteStain(source=stencil)
            area = min(float(mask.mean()), LARGEST_AREA)
            placed = paste.place(grid.shape, area, settings.seed + int(i), region)
            if (placed.mask & region).any():
                continue
            counted.append(int(i))
            yield paste.paste(grid, placed, int(i))
            own = mapped.grids[int(cluster.exemplars[turn])]
            elsewhere = WhiteStain(source=Stencil(stencil.cover, _cut_elsewhere(own, mask, stencil)))
            yield elsewhere.perturb(grid, area, settings.seed + int(i), avoid=region).image
            for control in (CleanSteel(source=stencil), MeanGrey(source=stencil)):
                yield control.perturb(grid, area, settings.seed + int(i), avoid=region).image

    logits = list(stream_logits(predictor, changed()))
    turned = np.array([row.argmax() == k for row in logits], dtype=bool).reshape(-1, 1 + len(CONTROLS))
    return estimate_effect(
        turned[:, 0],
        {name: turned[:, 1 + c] for c, name in enumerate(CONTROLS)},
        sheets.groups[counted],
        settings.tolerated,
        settings.seed,
        power=True,
    )


def _cut_elsewhere(grid: Grey, mask: Mask, stencil: Stencil) -> Grey:
    """Another part (h, w) of the picture that a patch was cut from, off the patch where there is room."""
    footprint = stencil.cover > 0
    top, left = place_footprint(footprint, mask, np.random.default_rng(int(mask.sum())))
    return grid[top : top + footprint.shape[0], left : left + footprint.shape[1]].copy()


@dataclass(frozen=True, eq=False)
class _Cluster:
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


def _cluster_evidence(
    sheets: Sheets, maps: Sequence[Float32Array], labels: StrArray, settings: DiscoverSettings
) -> list[_Cluster]:
    """Clusters of maps (H, W) and of patches, the one that predicts a label (N,) best first."""
    if len(sheets) < 2 * LEAST:
        return []
    # Whether the patch under the peak keeps off the defect: 1, or 0 where it meets it, NaN where nothing tells.
    beside = np.array(
        [
            np.nan if defect is None else float(not defect[_window_at_peak(values, settings.window)].any())
            for defect, values in zip(sheets.defects, maps, strict=True)
        ]
    )
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


def _describe_as_json(cluster: _Cluster, sheets: Sheets, maps: Sequence[Float32Array], window: float) -> dict[str, Any]:
    """A cluster as `json` can write it; its exemplars by row, file and the box of the patch in it."""
    exemplars = [
        {
            "row": int(sheets.rows[i]),
            "file": sheets.names[i],
            "path": sheets.paths[i],
            "sha256": sheets.hashes[i],
            "box": _bound_in_pixels(_find_patch_under_peak(maps[i], window), sheets.sizes[i]),
        }
        for i in cluster.exemplars
    ]
    facts = {name: getattr(cluster, name) for name in ("kind", "label", "share", "prior", "interval", "p")}
    return facts | {"n": len(cluster.members), "beside_the_defect": cluster.beside, "exemplars": exemplars}


def _find_patch_under_peak(values: Float32Array, window: float) -> Mask:
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
) -> _Cluster:
    own = labels[members]
    names = np.unique(own)
    prior = {name: float((labels == name).mean()) for name in names}
    label = max(names, key=lambda name: float((own == name).mean()) - prior[name])
    share = estimate_share(own == label, sheets.groups[members])
    near = np.linalg.norm(features[members] - np.median(features[members], axis=0), axis=1)
    typical = members[np.argsort(np.where(own == label, near, np.inf), kind="stable")]
    return _Cluster(
        kind=kind,
        label=str(label),
        share=float(share.value or 0.0),
        prior=prior[label],
        interval=(share.low, share.high),
        p=float(binom.sf(int((own == label).sum()) - 1, len(members), prior[label])),
        members=members,
        exemplars=typical[: settings.exemplars],
        # A defect that nothing tells may be what its patch shows, whatever is known of other images.
        beside=None if np.isnan(beside[members][own == label]).any() else float(np.mean(beside[members][own == label])),
    )


def _sort_spectrally(features: Float64Array, settings: DiscoverSettings) -> Int64Array:
    """_Cluster of each row (N,), as many as the largest gap between eigenvalues of the graph's Laplacian says."""
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
