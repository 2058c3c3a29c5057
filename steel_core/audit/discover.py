"""Unknown artefacts: what kinds of evidence are there, which goes with a label, and does it move the model by itself?

Attribution maps, and the patches under their peaks, are clustered (spectral clustering of maps as in SpRAy). Clusters
are ranked by how well they predict a label. Those that lie beside the defects are confirmed: their exemplars are pasted
on images of other classes, against patches of the same outline from elsewhere in the same pictures.

Source: Lapuschkin et al., Unmasking Clever Hans Predictors, Nature Communications 10, 2019, arXiv:1902.10178.

Legend of shapes: N images, F features, K classes; H, W of a grid.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh
from scipy.stats import binom
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler

from steel_core.audit import sheets as pictures
from steel_core.audit.report import AuditReport, Finding, finished, strongest_first, told
from steel_core.audit.sheets import Maps, Sheets
from steel_core.audit.statistics import LEAST, Effect, joint, judged, measure
from steel_core.inference.predictor import Predictor
from steel_core.metrics import holm
from steel_core.metrics import share as share_of
from steel_core.perturb.base import Grey, Mask
from steel_core.perturb.methods.clean_steel import CleanSteel
from steel_core.perturb.methods.mean_grey import MeanGrey
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.patch import LARGEST_AREA
from steel_core.perturb.stencil import Stencil, cut, place
from steel_core.progress import Progress, no_progress

QUESTION = "Is there evidence beside the defects that goes with a label and moves the model by itself?"
CONTROLS = ("same-picture-elsewhere", "clean-steel", "mean-grey")
"""What a pasted patch is compared with, in the same outline at the same place."""


@dataclass(frozen=True)
class DiscoverSettings:
    """What is asked.

    Attributes:
        mapped: images whose evidence is clustered.
        most: clusters of each kind at the most.
        neighbours: of each map or patch in the graph that is cut into clusters.
        window: side of a patch, as a share of the picture's shorter side.
        beside: share of a cluster's peaks that must lie beside the defects for it to be suspect.
        confirmed: clusters that are pasted.
        pasted: images that each is pasted on, at the most.
        exemplars: of each cluster.
        tolerated: excess flip rate that is put up with.
        seed: of everything drawn at random.
    """

    mapped: int = 200
    most: int = 8
    neighbours: int = 10
    window: float = 0.25
    beside: float = 0.8
    confirmed: int = 4
    pasted: int = 150
    exemplars: int = 4
    tolerated: float = 0.05
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Cluster:
    """Evidence of one kind.

    Attributes:
        kind: "maps" (where evidence lies) or "patches" (what it looks like).
        label: the label that it predicts best.
        share: of its images with that label, and how common the label is among all: `prior`.
        prior: see `share`.
        interval: 95 % interval of the share.
        p: of so large a share by chance, corrected for the number of clusters.
        members: positions of its images.
        exemplars: positions of the images nearest its middle, nearest first.
        beside: share of its peaks that lie beside the defect; None where nothing tells.
    """

    kind: str
    label: str
    share: float
    prior: float
    interval: tuple[float, float]
    p: float
    members: npt.NDArray[np.int64]
    exemplars: npt.NDArray[np.int64]
    beside: float | None


def audit_discover(
    predictor: Predictor,
    sheets: Sheets,
    settings: DiscoverSettings = DiscoverSettings(),
    progress: Progress = no_progress,
) -> AuditReport:
    """The search on a whole split.

    Args:
        predictor: the checkpoint.
        sheets: the images.
        settings: what is asked.
        progress: called with steps done and their number. What it raises ends the audit.
    """
    steps = 2 + settings.confirmed
    clean = np.stack(list(pictures.stream_logits(predictor, sheets.grids)))
    preds = clean.argmax(axis=1)
    rows = np.random.default_rng(settings.seed).permutation(len(sheets))[: settings.mapped]
    looked = sheets.part(rows)
    maps = pictures.evidence_maps(predictor, looked.grids, preds[rows])
    progress("discover", 1, steps)
    found = clusters(predictor, looked, maps, preds[rows], settings)
    progress("discover", 2, steps)
    suspects = [
        cluster
        for cluster in found
        if cluster.kind == "patches"
        and cluster.label in predictor.classes
        and cluster.share > cluster.prior
        and (cluster.beside is None or cluster.beside >= settings.beside)
    ][: settings.confirmed]
    told_of = {cluster: _described(cluster, looked, maps, settings.window) for cluster in found}
    effects = []
    for done, cluster in enumerate(suspects):
        effects.append(_confirm(predictor, sheets, looked, maps, clean, cluster, settings))
        progress("discover", 3 + done, steps)
    said, corrected = judged(effects, settings.tolerated)
    findings = [
        Finding(
            f"patches of {cluster.label}",
            verdict,
            told(effect, f"A patch that goes with {cluster.label}, pasted on others,", f"turns to {cluster.label}"),
            effect,
            p,
            {},
            {"beside the defect": None if cluster.beside is None else True},
            {"cluster": told_of[cluster]},
        )
        for cluster, effect, verdict, p in zip(suspects, effects, said, corrected, strict=True)
    ]
    limits = []
    if not suspects:
        limits.append(
            "No patch that goes with a label lies beside the defects: the search found nothing to paste and to test."
            if found
            else f"Evidence is sorted into kinds from {2 * LEAST} images on; here are {len(looked)}."
        )
    if unknown := sum(cluster.beside is None for cluster in suspects):
        limits.append(f"Where nothing tells the defect ({unknown} clusters), a patch may be the defect: look at it.")
    return finished(
        "discover",
        QUESTION,
        joint(said),  # without a suspect nothing was put to the test, and nothing is known
        strongest_first(findings),
        predictor,
        sheets,
        settings=asdict(settings),
        seed=settings.seed,
        limits=tuple(limits),
        detail={"clusters": list(told_of.values())},
    )


def clusters(
    predictor: Predictor, sheets: Sheets, maps: list[Maps], preds: npt.NDArray[np.int64], settings: DiscoverSettings
) -> list[Cluster]:
    """Clusters of maps and of patches, the one that predicts a label best first."""
    if len(sheets) < 2 * LEAST:
        return []
    labels = np.array([own[0] if own else predictor.classes[p] for own, p in zip(sheets.labels, preds, strict=True)])
    beside = _beside(sheets, maps, settings.window)
    where = np.stack([_coarse(values) for values in maps])
    what = np.stack([_look(grid, values, settings.window) for grid, values in zip(sheets.grids, maps, strict=True)])
    found = []
    for kind, features in (("maps", where), ("patches", StandardScaler().fit_transform(what))):
        member = _spectral(features, settings)
        for number in np.unique(member):
            members = np.flatnonzero(member == number)
            found.append(_cluster(kind, members, features, labels, beside, sheets, settings))
    corrected = holm([cluster.p for cluster in found])
    found = [Cluster(**{**vars(cluster), "p": p}) for cluster, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda cluster: cluster.prior - cluster.interval[0])


def retest(cluster: dict[str, Any], checkpoint: str, data: Path) -> str:
    """The command that cuts the first exemplar of a cluster out again and asks the whole white-stain test of it.

    Args:
        cluster: of a report's `detail["clusters"]`.
        checkpoint: name or folder of the model.
        data: folder of the data set.
    """
    first = cluster["exemplars"][0]
    box = ",".join(map(str, first["box"]))
    told = ["audit", "white-stain", "--checkpoint", checkpoint, "--data", str(data)]
    told += ["--stain-from", str(data / first["path"]), "--box", box, "--towards", cluster["label"]]
    return f"python -m steel_core {shlex.join(told)}"


def _described(cluster: Cluster, sheets: Sheets, maps: list[Maps], window: float) -> dict[str, Any]:
    """A cluster as `json` can write it; its exemplars by row, file and the box of the patch in it."""
    exemplars = [
        {
            "row": int(sheets.rows[i]),
            "file": sheets.names[i],
            "path": sheets.paths[i],
            "sha256": sheets.hashes[i],
            "box": _pixels(_under_peak(maps[i], window), sheets.sizes[i]),
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


def _under_peak(values: Maps, window: float) -> Mask:
    """The patch under the peak of a map (H, W), with a rim: a cut fades out at its edge, which shall be steel."""
    mask = np.zeros(values.shape, bool)
    box = _box(values, window)
    mask[box] = values[box] >= 0.4 * values.max()
    return cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0


def _pixels(mask: Mask, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the smallest box around a mask (H, W), in pixels of the image of this size.

    At least 4 x 4 pixels, which is the least that can be cut out.
    """
    ends = []
    for axis, full in ((0, size[1]), (1, size[0])):
        inside = np.flatnonzero(mask.any(axis=axis))
        zoom = full / mask.shape[1 - axis]
        low, high = int(np.floor(inside[0] * zoom)), int(np.ceil((inside[-1] + 1) * zoom))
        low = max(0, min(low, full - 4))
        ends.append((low, min(max(high, low + 4), full) - low))
    (left, width), (top, height) = ends
    return left, top, width, height


def _confirm(
    predictor: Predictor,
    sheets: Sheets,
    looked: Sheets,
    maps: list[Maps],
    clean: npt.NDArray[np.float32],
    cluster: Cluster,
    settings: DiscoverSettings,
) -> Effect:
    """Paste the exemplars on images of other classes, beside their defects."""
    k = predictor.classes.index(cluster.label)
    under = [_under_peak(maps[i], settings.window) for i in cluster.exemplars]
    source = [(cut(looked.grids[i], mask), mask) for i, mask in zip(cluster.exemplars, under, strict=True)]
    rng = np.random.default_rng(settings.seed)
    preds = clean.argmax(axis=1)
    other = sheets.lacks(cluster.label) | (sheets.first_labels == "")
    rows = rng.permutation(np.flatnonzero(other & (preds != k)))[: settings.pasted]
    regions = pictures.regions(predictor, sheets.part(rows), preds[rows])
    counted: list[int] = []

    def changed() -> Iterator[Grey]:
        for i, region in zip(rows, regions, strict=True):
            grid, turn = sheets.grids[i], int(i) % len(source)
            stencil, mask = source[turn]
            paste = WhiteStain(source=stencil)
            area = min(float(mask.mean()), LARGEST_AREA)
            placed = paste.placed(grid.shape, area, settings.seed + int(i), region)
            if (placed.mask & region).any():
                continue
            counted.append(int(i))
            yield paste.paste(grid, placed, int(i))
            own = looked.grids[int(cluster.exemplars[turn])]
            elsewhere = WhiteStain(source=Stencil(stencil.cover, _elsewhere(own, mask, stencil)))
            yield elsewhere.perturb(grid, area, settings.seed + int(i), avoid=region).image
            for control in (CleanSteel(source=stencil), MeanGrey(source=stencil)):
                yield control.perturb(grid, area, settings.seed + int(i), avoid=region).image

    logits = list(pictures.stream_logits(predictor, changed()))
    turned = np.array([row.argmax() == k for row in logits], dtype=bool).reshape(-1, 1 + len(CONTROLS))
    return measure(
        turned[:, 0],
        {name: turned[:, 1 + c] for c, name in enumerate(CONTROLS)},
        sheets.groups[counted],
        tolerated=settings.tolerated,
        seed=settings.seed,
    )


def _elsewhere(grid: Grey, mask: Mask, stencil: Stencil) -> Grey:
    """Another part (h, w) of the picture that a patch was cut from, off the patch where there is room."""
    footprint = stencil.cover > 0
    top, left = place(footprint, mask, np.random.default_rng(int(mask.sum())))
    return grid[top : top + footprint.shape[0], left : left + footprint.shape[1]].copy()


def _cluster(
    kind: str,
    members: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.str_],
    beside: npt.NDArray[np.float64],
    sheets: Sheets,
    settings: DiscoverSettings,
) -> Cluster:
    """A cluster and the label whose share in it exceeds its prior the most."""
    own = labels[members]
    names = np.unique(own)
    prior = {name: float((labels == name).mean()) for name in names}
    label = max(names, key=lambda name: float((own == name).mean()) - prior[name])
    found = share_of(own == label, sheets.groups[members])
    near = np.linalg.norm(features[members] - np.median(features[members], axis=0), axis=1)
    typical = members[np.argsort(np.where(own == label, near, np.inf), kind="stable")]
    told_of = beside[members]
    return Cluster(
        kind=kind,
        label=str(label),
        share=float(found.value or 0.0),
        prior=prior[label],
        interval=(found.low, found.high),
        p=float(binom.sf(int((own == label).sum()) - 1, len(members), prior[label])),
        members=members,
        exemplars=typical[: settings.exemplars],
        beside=None if np.isnan(told_of).all() else float(np.nanmean(told_of)),
    )


def _spectral(features: npt.NDArray[np.float64], settings: DiscoverSettings) -> npt.NDArray[np.int64]:
    """Cluster of each row (N,), as many as the largest gap between eigenvalues of the graph's Laplacian says."""
    near = kneighbors_graph(features, min(settings.neighbours, len(features) - 1), include_self=True).toarray()
    graph = 0.5 * (near + near.T)
    root = 1 / np.sqrt(graph.sum(axis=1))
    laplacian = np.eye(len(graph)) - root[:, None] * graph * root
    values = eigvalsh(laplacian, subset_by_index=(0, min(settings.most, len(graph) - 1)))
    count = 2 + int(np.diff(values)[1:].argmax())
    with warnings.catch_warnings():  # pieces of a graph that do not hang together are clusters, too
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        made = SpectralClustering(count, affinity="precomputed", assign_labels="cluster_qr", random_state=settings.seed)
        return np.asarray(made.fit_predict(graph), dtype=np.int64)


def _coarse(values: Maps) -> npt.NDArray[np.float64]:
    """A map as a share of evidence in each cell of 8 x 8, (64,)."""
    small = cv2.resize(values, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float64)
    return np.asarray(small / max(float(small.sum()), 1e-12)).ravel()


def _look(grid: Grey, values: Maps, window: float) -> npt.NDArray[np.float64]:
    """What the patch under a map's peak looks like, wherever in the patch it is, against its own picture, (F,)."""
    patch = grid[_box(values, window)]
    spread = max(float(grid.std()), 1e-4)
    levels = (np.quantile(patch, np.linspace(0.05, 0.95, 9)) - float(np.median(grid))) / spread
    detail = []
    for sigma in (0.7, 1.5, 3.0):
        smooth = cv2.GaussianBlur(patch, (0, 0), sigma)
        down, across = (float(np.abs(np.diff(smooth, axis=axis)).mean()) for axis in (0, 1))
        detail += [np.log(down / spread + 1e-3), np.log(across / spread + 1e-3)]
    return np.r_[levels, detail]


def _box(values: Maps, window: float) -> tuple[slice, slice]:
    """Rows and columns of the patch under the peak of a map, whole inside the picture."""
    side = max(8, round(window * min(values.shape)))
    peak = np.unravel_index(int(values.argmax()), values.shape)
    starts = [int(np.clip(int(at) - side // 2, 0, full - side)) for at, full in zip(peak, values.shape, strict=True)]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _beside(sheets: Sheets, maps: list[Maps], window: float) -> npt.NDArray[np.float64]:
    """(N,) 1 where the patch under the peak keeps off the defect, 0 where it meets it, NaN where nothing tells."""
    return np.array(
        [
            np.nan if defect is None else float(not defect[_box(values, window)].any())
            for defect, values in zip(sheets.defects, maps, strict=True)
        ]
    )
