"""The white-stain test on one image, live: before and after beside the controls, and the smallest stain that flips.

Legend of shapes: H, W of the grid the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steel_core.audit.sheets import own_regions
from steel_core.audit.white_stain import CONTROLS, POSITIONS, control_patch
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.base import PERTURBATIONS, Grey, Mask
from steel_core.perturb.methods.white_stain import WhiteStain
from steel_core.perturb.patch import LARGEST_AREA, Patch
from steel_core.types import Attribution, Prediction, SteelImage

PLAIN = WhiteStain()
"""The stain that is pasted unless told otherwise."""

_SMALLEST_AREA = 0.002
_STEPS = 16
_REFINED = 6


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One picture of the row.

    Attributes:
        name: "as it is", or a name in the registry of perturbations.
        title: for people.
        control: whether it is a control.
        image: what the network saw.
        mask: (H, W) bool, the patch; the same in all pictures.
        prediction: what the model says of it.
        attribution: evidence for the class that is watched.
        inside: share of the positive evidence inside the patch; None where there is no evidence.
        counts: False where the patch touches the defect: then it hides evidence, and a flip proves nothing.
    """

    name: str
    title: str
    control: bool
    image: SteelImage
    mask: Mask
    prediction: Prediction
    attribution: Attribution
    inside: float | None
    counts: bool


@dataclass(frozen=True, slots=True)
class SmallestFlip:
    """The smallest stain that turns one image.

    Attributes:
        area: its share of the picture.
        before: class before.
        after: class after.
        controls: names of the controls that turn the image as well, at this place and area.
        counts: False where the stain touches the defect.
    """

    area: float
    before: str
    after: str
    controls: tuple[str, ...]
    counts: bool


def bench(
    predictor: Predictor,
    image: SteelImage,
    stain: WhiteStain = PLAIN,
    area: float = 0.05,
    *,
    position: str = "off",
    defect: Mask | None = None,
    watched: str = "",
    method: str = "grad-cam",
    seed: int = 0,
) -> tuple[BenchRow, ...]:
    """The image as it is, with the stain, and with each control in the same outline at the same place.

    Args:
        predictor: the checkpoint.
        image: any size.
        stain: shape, number, texture, brightness, place (`centre`) or cut-out `source`.
        area: share of the picture.
        position: "off" the defect, "anywhere", or "on" it; a `centre` goes before it.
        defect: (H, W) on the grid; where the model looks if None.
        watched: class whose evidence is shown; the class predicted for the image as it is if empty.
        method: explainer.
        seed: of shape and place.

    Raises:
        UsageError: position, class or method is unknown, or a number is out of its range.
    """
    grid, region = _grid_and_region(predictor, image, defect)
    clean = predictor.predict([image])[0]
    stain.check(grid, area)
    placed = stain.placed(grid.shape, area, seed, _avoid(position, region))
    counts = not (placed.mask & region).any()
    shown = [("as it is", "As it is", False, grid)]
    for patch in (stain, *(control_patch(name, stain) for name in CONTROLS)):
        name = next(known for known in PERTURBATIONS if PERTURBATIONS[known] is type(patch))
        # A stain that was cut out may have any colour.
        title = "Cut-out stain" if patch is stain and stain.source is not None else patch.info.title
        shown.append((name, title, patch.info.control, patch.paste(grid, placed, seed, avoid=region)))
    seen = [_as_image(picture, image) for *_, picture in shown]
    rows = []
    for (name, title, control, _), picture, prediction in zip(shown, seen, predictor.predict(seen), strict=True):
        found = predictor.explain(picture, method, watched or clean.pred)
        positive = np.maximum(found.values, 0)
        total = float(positive.sum())
        inside = float(positive[placed.mask].sum()) / total if total > 0 else None
        rows.append(BenchRow(name, title, control, picture, placed.mask, prediction, found, inside, counts))
    return tuple(rows)


def smallest_flip(
    predictor: Predictor,
    image: SteelImage,
    stain: WhiteStain = PLAIN,
    *,
    position: str = "off",
    defect: Mask | None = None,
    towards: str = "",
    seed: int = 0,
) -> SmallestFlip | None:
    """The smallest stain of this shape and seed that turns the image; None if none of up to a quarter of it does.

    Areas are tried in steps of a third, and the first that turns the image is refined by halving.

    Args:
        predictor: the checkpoint.
        image: any size.
        stain: as in `bench`.
        position: as in `bench`.
        defect: as in `bench`.
        towards: class that the image must be turned to; any other than before if empty.
        seed: of shape and place.

    Raises:
        UsageError: position or class is unknown.
    """
    if towards and towards not in predictor.classes:
        raise UsageError(f"towards: expected one of {', '.join(predictor.classes)}, got {towards!r}")
    grid, region = _grid_and_region(predictor, image, defect)
    avoid = _avoid(position, region)
    before = int(predictor.logits([grid])[0].argmax())

    def named(patch: Patch, areas: list[float]) -> list[int]:
        pictures = [
            patch.paste(grid, patch.placed(grid.shape, area, seed, avoid), seed, avoid=region) for area in areas
        ]
        return [int(k) for k in predictor.logits(pictures).argmax(axis=1)]

    def turned(k: int) -> bool:
        return k == predictor.classes.index(towards) != before if towards else k != before

    areas = np.geomspace(_SMALLEST_AREA, LARGEST_AREA, _STEPS).tolist()
    found = [turned(k) for k in named(stain, areas)]
    if not any(found):
        return None
    first = found.index(True)
    low, high = (areas[first - 1] if first else 0.0), areas[first]
    for _ in range(_REFINED):
        middle = (low + high) / 2
        low, high = (low, middle) if turned(named(stain, [middle])[0]) else (middle, high)
    controls = tuple(name for name in CONTROLS if turned(named(control_patch(name, stain), [high])[0]))
    counts = not (stain.placed(grid.shape, high, seed, avoid).mask & region).any()
    return SmallestFlip(high, predictor.classes[before], predictor.classes[named(stain, [high])[0]], controls, counts)


def _grid_and_region(predictor: Predictor, image: SteelImage, defect: Mask | None) -> tuple[Grey, Mask]:
    grid, _ = predictor.card.preprocessing.to_grid(image)
    if defect is not None and defect.shape != grid.shape:
        raise UsageError(f"defect: expected a mask of shape {grid.shape}, as the network sees it, got {defect.shape}")
    pred = predictor.logits([grid]).argmax(axis=1)
    return grid, own_regions(predictor, [grid], pred)[0] if defect is None else defect


def _avoid(position: str, region: Mask) -> Mask | None:
    if position not in POSITIONS:
        raise UsageError(f"position: expected one of {', '.join(POSITIONS)}, got {position!r}")
    return {"off": region, "anywhere": None, "on": ~region if region.any() else None}[position]


def _as_image(grid: Grey, of: SteelImage) -> SteelImage:
    return SteelImage((grid * 65535).round().astype(np.uint16), of.name, of.sha256, of.note)
