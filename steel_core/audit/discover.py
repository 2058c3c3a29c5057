"""Unknown artefacts: what kinds of evidence are there, which goes with a label, and does it move the model by itself?

Clusters of evidence (`steel_core.audit.clusters`) that lie beside the defects are confirmed: their exemplars are pasted
on images of other classes, against patches of the same outline from elsewhere in the same pictures.

Legend of shapes: K classes; H, W of a grid.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steel_core.audit.clusters import Cluster, cluster_evidence, describe_as_json, find_patch_under_peak
from steel_core.audit.evidence import compute_evidence_maps, find_regions, predict_logits, stream_logits
from steel_core.audit.report import AuditFinding, AuditReport, build_report, describe_effect, sort_strongest_first
from steel_core.audit.settings import DiscoverSettings
from steel_core.audit.sheets import Sheets
from steel_core.audit.statistics import LEAST, Effect, combine_verdicts, decide_verdicts, estimate_effect
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.clean_steel import CleanSteel
from steel_core.perturb.methods.mean_grey import MeanGrey
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.perturb.stencil import Stencil, cut_out, place_footprint
from steel_core.progress import Progress, no_progress
from steel_core.types import Float32Array, Grey, Mask

CONTROLS = ("same-picture-elsewhere", "clean-steel", "mean-grey")
"""What a pasted patch is compared with, in the same outline at the same place."""


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
    clusters = cluster_evidence(mapped, maps, labels, settings)
    progress("discover", 2, steps)
    suspects = [
        cluster
        for cluster in clusters
        if cluster.kind == "patches"
        and cluster.label in predictor.classes
        and cluster.share > cluster.prior
        and (cluster.beside is None or cluster.beside >= settings.beside)
    ][: settings.confirmed]
    descriptions = {cluster: describe_as_json(cluster, mapped, maps, settings.window) for cluster in clusters}
    effects = []
    for done, cluster in enumerate(suspects):
        effects.append(_confirm(predictor, sheets, mapped, maps, clean, cluster, settings))
        progress("discover", 3 + done, steps)
    verdicts, corrected = decide_verdicts(effects, settings.tolerated)
    findings = [
        AuditFinding.of_effect(
            effect,
            name=f"patches of {cluster.label}",
            verdict=verdict,
            sentence=describe_effect(
                effect, f"A patch that goes with {cluster.label}, pasted on others,", f"turns to {cluster.label}"
            ),
            p_corrected=p,
            legs={"beside the defect": None if cluster.beside is None else True},
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
    if unknown := sum(cluster.beside is None for cluster in suspects):
        limits.append(f"Where nothing tells the defect ({unknown} clusters), a patch may be the defect: look at it.")
    return build_report(
        "discover",
        combine_verdicts(verdicts),  # without a suspect nothing was put to the test, and nothing is known
        sort_strongest_first(findings),
        predictor,
        sheets,
        settings,
        limits=tuple(limits),
        detail={"clusters": list(descriptions.values())},
    )


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
    cluster: Cluster,
    settings: DiscoverSettings,
) -> Effect:
    k = predictor.classes.index(cluster.label)
    under = [find_patch_under_peak(maps[i], settings.window) for i in cluster.exemplars]
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
        tolerated=settings.tolerated,
        seed=settings.seed,
    )


def _cut_elsewhere(grid: Grey, mask: Mask, stencil: Stencil) -> Grey:
    """Another part (h, w) of the picture that a patch was cut from, off the patch where there is room."""
    footprint = stencil.cover > 0
    top, left = place_footprint(footprint, mask, np.random.default_rng(int(mask.sum())))
    return grid[top : top + footprint.shape[0], left : left + footprint.shape[1]].copy()
