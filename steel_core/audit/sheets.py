"""The images an audit looks at: read once, on the grid the network sees, with what is known about their defects.

Legend of shapes: N images, K classes; H, W of a grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath

import cv2
import numpy as np
import numpy.typing as npt
import torch

from steel_core.data.annotations import boxes_to_mask
from steel_core.data.index import DatasetIndex
from steel_core.device import batch_size
from steel_core.errors import DataError, ImageError
from steel_core.explain.base import EXPLAINERS
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import judged_in_tiles
from steel_core.metrics import probabilities
from steel_core.perturb.base import Grey, Mask
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]

REGION = 0.5
"""Where no annotation tells where a defect is: the smallest part of a map that holds this share of its evidence."""


@dataclass(frozen=True, eq=False)
class Sheets:
    """Images, and what is on file about them.

    Attributes:
        grids: grey (H, W) in 0 to 1, of each image at the size the network sees.
        labels: class names of each image; empty where unlabelled.
        defects: (H, W) bool, where the defect is; None where nothing tells.
        groups: (N,) the group of near-duplicates of each.
        rows: (N,) row of the data set's table.
        paths: of each file, as the data set's table has it.
        sizes: height and width of each image as it came, in pixels.
        hashes: sha256 of each file.
        told: sentences about images that were not taken, or not taken as they are.
        data: name of the data set.
        data_hash: sha256 of labels and files.
    """

    grids: tuple[Grey, ...]
    labels: tuple[tuple[str, ...], ...]
    defects: tuple[Mask | None, ...]
    groups: npt.NDArray[np.str_]
    rows: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    hashes: tuple[str, ...]
    told: tuple[str, ...]
    data: str
    data_hash: str

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def names(self) -> tuple[str, ...]:
        """Base name of each file."""
        return tuple(PurePath(path).name for path in self.paths)

    @property
    def first_labels(self) -> npt.NDArray[np.str_]:
        """(N,) the first label of each image, "" where unlabelled."""
        return np.array([labels[0] if labels else "" for labels in self.labels], dtype=str)

    def lacks(self, label: str) -> npt.NDArray[np.bool_]:
        """(N,) whether an image is labelled, and not with this class."""
        return np.array([bool(labels) and label not in labels for labels in self.labels], dtype=bool)

    def part(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Sheets:
        """Some of the images, in the order given."""
        picked = [int(i) for i in rows]
        return replace(
            self,
            grids=tuple(self.grids[i] for i in picked),
            labels=tuple(self.labels[i] for i in picked),
            defects=tuple(self.defects[i] for i in picked),
            groups=self.groups[picked],
            rows=self.rows[picked],
            paths=tuple(self.paths[i] for i in picked),
            sizes=tuple(self.sizes[i] for i in picked),
            hashes=tuple(self.hashes[i] for i in picked),
        )


def read_sheets(
    predictor: Predictor,
    index: DatasetIndex,
    part: str = "held-out",
    limit: int = 300,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Sheets:
    """Read at most `limit` images, drawn evenly from the classes.

    Args:
        predictor: the checkpoint; what it was trained or tuned on is left out, known by the hash of the files.
        index: the data set, in the checkpoint's classes (`recipes.evaluate.match_classes`).
        part: "held-out", "train", "val" or "test", or "all".
        limit: number of images.
        seed: of the draw.
        progress: called with images read and their number.

    Raises:
        DataError: no image is left.
    """
    grids, labels, defects, groups, sizes, hashes = [], [], [], [], [], []
    rows: list[int] = []
    unread: list[str] = []
    learnt = 0
    for i in _drawn(index, part, seed):
        if len(rows) >= limit:
            break
        sample = index[i]
        try:
            image = index.image(i)
            seen_in = predictor.card.part_of(image.sha256)
            if part == "held-out" and seen_in in ("train", "val"):
                learnt += 1
                continue
            if part in ("train", "val", "test") and part != (seen_in or sample.split):
                continue
            grid, _ = predictor.card.preprocessing.to_grid(image)
            defect = defect_mask(index, i, (image.height, image.width), grid.shape)
        except (ImageError, DataError) as error:
            unread.append(str(error))
            continue
        grids.append(grid)
        labels.append(sample.labels)
        defects.append(defect)
        groups.append(sample.group or f"row {i}")
        rows.append(i)
        sizes.append((image.height, image.width))
        hashes.append(image.sha256)
        progress("reading images", len(rows), min(limit, len(index)))
    told = []
    if long := sum(judged_in_tiles(predictor, *size) for size in sizes):
        told.append(f"{long} images are long strips or very large: an audit tests them at one look, not in tiles")
    if learnt:
        told.append(f"{learnt} images served to train or tune this checkpoint and were not looked at")
    if unread:
        told.append(f"Could not be read: {len(unread)} ({'; '.join(one.rstrip('.') for one in unread[:3])})")
    if not rows:
        raise DataError(f"no image is left to look at ({'; '.join(told) or f'part {part} is empty'})")
    progress("reading images", 1, 1)
    digest = hashlib.sha256(
        "\n".join(sorted(f"{h} {'|'.join(own)}" for h, own in zip(hashes, labels, strict=True))).encode()
    )
    return Sheets(
        tuple(grids),
        tuple(labels),
        tuple(defects),
        np.array(groups, dtype=str),
        np.array(rows),
        tuple(index.table["path"].iloc[rows]),
        tuple(sizes),
        tuple(hashes),
        tuple(f"{sentence}." for sentence in told),
        index.spec.name,
        digest.hexdigest(),
    )


def stream_logits(predictor: Predictor, grids: Iterable[Grey]) -> Iterator[npt.NDArray[np.float32]]:
    """Logits (K,) of pictures that are made while they are asked for: memory does not grow with their number."""
    waiting = iter(grids)
    while some := list(islice(waiting, 8 * batch_size(predictor.device))):
        yield from predictor.logits(some)


def probs_of(predictor: Predictor, logits: npt.NDArray[np.float32]) -> Floats:
    """Calibrated probabilities (..., K) of logits (..., K)."""
    flat = logits.reshape(-1, logits.shape[-1]).astype(np.float64)
    return probabilities(flat, predictor.card.head, predictor.card.temperature).reshape(logits.shape)


def evidence_maps(
    predictor: Predictor, grids: Sequence[Grey], targets: Sequence[int] | npt.NDArray[np.int64]
) -> list[Maps]:
    """Grad-CAM (H, W) of each picture for the class of that number; the positive part alone."""
    maps: list[Maps] = []
    explainer = EXPLAINERS["grad-cam"]()
    for grid, target in zip(grids, targets, strict=True):
        inputs = predictor.card.preprocessing.normalise(torch.from_numpy(grid)[None, None].to(predictor.device))
        values = explainer.attribute(predictor.model, inputs, torch.tensor([int(target)], device=predictor.device))
        maps.append(values[0, 0].clamp(min=0).cpu().numpy())
    return maps


def share_inside(values: Maps, mask: Mask) -> float | None:
    """Share of a map's evidence (H, W) inside a mask; None where it holds none."""
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 else None


def own_regions(
    predictor: Predictor, grids: Sequence[Grey], targets: Sequence[int] | npt.NDArray[np.int64]
) -> list[Mask]:
    """Where the model looks: the smallest part of each picture (H, W) that holds half of the evidence for a class."""
    return [_largest(values, REGION) for values in evidence_maps(predictor, grids, targets)]


def regions(predictor: Predictor, sheets: Sheets, preds: npt.NDArray[np.int64]) -> list[Mask]:
    """What a patch must not cover (H, W): the defect on file; nothing on a clear sheet; else where the model looks."""
    unknown = [i for i, defect in enumerate(sheets.defects) if defect is None]
    looked = own_regions(predictor, [sheets.grids[i] for i in unknown], preds[unknown])
    found = dict(zip(unknown, looked, strict=True))
    return [found[i] if defect is None else defect for i, defect in enumerate(sheets.defects)]


def _largest(values: Maps, share: float) -> Mask:
    order = np.argsort(-values, axis=None, kind="stable")
    summed = np.cumsum(values.ravel()[order])
    mask = np.zeros(values.size, bool)
    if summed[-1] > 0:
        mask[order[: int(np.searchsorted(summed, share * summed[-1])) + 1]] = True
    return mask.reshape(values.shape)


def _drawn(index: DatasetIndex, part: str, seed: int) -> list[int]:
    """Rows in random order, the classes taking turns; unlabelled images are a class of their own."""
    rng = np.random.default_rng(seed)
    labels = index.labels_encoded()
    # Rows of the wanted split come first, so that a large training part need not be hashed to be left out.
    split = index.table["split"].to_numpy()
    wanted = {"held-out": "test"}.get(part, part)
    turns: list[tuple[bool, int, float, int]] = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        for turn, i in enumerate(sorted(own, key=lambda i: split[i] != wanted)):
            turns.append((bool(split[i] != wanted), turn, rng.random(), int(i)))
    return [i for *_, i in sorted(turns)]


def defect_mask(index: DatasetIndex, i: int, size: tuple[int, int], grid: tuple[int, ...]) -> Mask | None:
    """Where the defect of a sample is, on the grid; None where nothing tells."""
    if index[i].labels == (CLEAR,):
        return np.zeros(grid, bool)
    mask = index.mask(i)
    if mask is None and (boxes := index.boxes(i)):
        mask = boxes_to_mask(boxes, size).astype(np.uint8)
    if mask is None or mask.shape != size or not mask.any():
        return None
    if mask.shape == grid:
        return np.asarray(mask > 0)
    # Every pixel of the grid that the defect touches.
    return np.asarray(cv2.resize((mask > 0).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) > 0)
