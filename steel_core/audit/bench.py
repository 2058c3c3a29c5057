"""The white-stain test on one image, live: before and after beside the controls, and the smallest stain that flips."""

from dataclasses import dataclass

import numpy as np

from steel_core.audit.evidence import compute_share_inside, find_evidence_regions
from steel_core.audit.stains import CONTROLS, make_control
from steel_core.errors import UsageError
from steel_core.inference.predictor import Predictor
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.methods.patches import PatchPerturbation, WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA
from steel_core.types import Attribution, Grey, Mask, Prediction, SteelImage

PLAIN = WhiteStain()  # the stain that is pasted unless another is asked for

_SMALLEST_AREA = 0.002
_STEPS = 16
_REFINED = 6


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One picture of the row."""

    name: str  # "as it is", or a name in the registry of perturbations
    title: str
    control: bool
    image: SteelImage
    mask: Mask  # (H, W) bool, the patch; the same in all pictures
    prediction: Prediction
    attribution: Attribution  # evidence for the class that is watched
    inside: float | None  # share of the positive evidence inside the patch; None where there is no evidence
    counts: bool  # False where the patch touches the defect: then it hides evidence, and a flip proves nothing


@dataclass(frozen=True, slots=True)
class SmallestFlip:
    """The smallest stain that turns one image."""

    area: float  # its share of the picture
    before: str
    after: str
    controls: tuple[str, ...]  # names of the controls that turn the image as well, at this place and area
    counts: bool  # False where the stain touches the defect


def run_bench(
    predictor: Predictor,
    image: SteelImage,
    stain: WhiteStain = PLAIN,
    area: float = 0.05,
    *,
    defect: Mask | None = None,
    watched: str = "",
    method: str = "grad-cam",
    seed: int = 0,
) -> tuple[BenchRow, ...]:
    """The image as it is, with the stain, and with each control in the same outline at the same place.

    A stain without a `centre` lies beside the `defect` (H, W), which is where the model looks if None. `watched` is the
    class predicted for the image as it is if empty; `area` is a share of the picture.

    Raises:
        UsageError: class or method is unknown, or a number is out of its range.
    """
    grid, region = _grid_and_region(predictor, image, defect)
    clean = predictor.predict([image])[0]
    stain.check(grid, area)
    placed = stain.place(grid.shape, area, seed, region)
    counts = not (placed.mask & region).any()
    shown = [("as it is", "As it is", False, grid)]
    for patch in (stain, *(make_control(name, stain) for name in CONTROLS)):
        name = next(each for each in PERTURBATIONS if PERTURBATIONS[each] is type(patch))
        # A stain that was cut out may have any colour.
        title = "Cut-out stain" if patch is stain and stain.source is not None else patch.info.title
        shown.append((name, title, patch.info.control, patch.paste(grid, placed, seed, avoid=region)))
    seen = [
        SteelImage((grid * 65535).round().astype(np.uint16), image.name, image.sha256, image.note) for *_, grid in shown
    ]
    rows = []
    for (name, title, control, _), picture, prediction in zip(shown, seen, predictor.predict(seen), strict=True):
        evidence = predictor.explain(picture, method, watched or clean.pred)
        inside = compute_share_inside(np.maximum(evidence.values, 0), placed.mask)
        rows.append(BenchRow(name, title, control, picture, placed.mask, prediction, evidence, inside, counts))
    return tuple(rows)


def find_smallest_flip(
    predictor: Predictor,
    image: SteelImage,
    stain: WhiteStain = PLAIN,
    *,
    defect: Mask | None = None,
    towards: str = "",
    seed: int = 0,
) -> SmallestFlip | None:
    """The smallest stain of this shape and seed that turns the image; None if none of up to a quarter of it does.

    Areas are tried in steps of a third, and the first that turns the image is refined by halving. It must turn to the
    class `towards`, or to any other if that is empty; the rest is as in `run_bench`.

    Raises:
        UsageError: the class is unknown.
    """
    if towards and towards not in predictor.classes:
        raise UsageError(f"towards: expected one of {', '.join(predictor.classes)}, got {towards!r}")
    grid, region = _grid_and_region(predictor, image, defect)
    before = int(predictor.logits([grid])[0].argmax())

    def predict(patch: PatchPerturbation, areas: list[float]) -> list[int]:
        pictures = [
            patch.paste(grid, patch.place(grid.shape, area, seed, region), seed, avoid=region) for area in areas
        ]
        return [int(k) for k in predictor.logits(pictures).argmax(axis=1)]

    def is_turned(k: int) -> bool:
        return k == predictor.classes.index(towards) != before if towards else k != before

    areas = np.geomspace(_SMALLEST_AREA, LARGEST_AREA, _STEPS).tolist()
    turned = [is_turned(k) for k in predict(stain, areas)]
    if not any(turned):
        return None
    first = turned.index(True)
    low, high = (areas[first - 1] if first else 0.0), areas[first]
    for _ in range(_REFINED):
        middle = (low + high) / 2
        low, high = (low, middle) if is_turned(predict(stain, [middle])[0]) else (middle, high)
    controls = tuple(name for name in CONTROLS if is_turned(predict(make_control(name, stain), [high])[0]))
    counts = not (stain.place(grid.shape, high, seed, region).mask & region).any()
    return SmallestFlip(high, predictor.classes[before], predictor.classes[predict(stain, [high])[0]], controls, counts)


def _grid_and_region(predictor: Predictor, image: SteelImage, defect: Mask | None) -> tuple[Grey, Mask]:
    grid, _ = predictor.card.preprocessing.to_grid(image)
    if defect is not None and defect.shape != grid.shape:
        raise UsageError(f"defect: expected a mask of shape {grid.shape}, as the network sees it, got {defect.shape}")
    pred = predictor.logits([grid]).argmax(axis=1)
    return grid, find_evidence_regions(predictor, [grid], pred)[0] if defect is None else defect
