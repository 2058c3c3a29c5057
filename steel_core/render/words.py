"""Maps in numbers and in words, and how a share is written."""

from dataclasses import dataclass

import numpy as np

from steel_core.render.heat_map import FAINT, check_map, check_scale
from steel_core.types import Attribution, BoolArray, Float64Array, FloatArray

_WEAK = 1 / 3  # of the scale: below it the colours are pale, and the words say so


@dataclass(frozen=True, slots=True)
class MapSummary:
    """A map in numbers and in one sentence."""

    sentence: str
    peak: float  # the strongest evidence for the class as a share of the scale; more than 1 where the colours are cut
    share_for: float  # evidence for the class as a share of all evidence, 0 to 1; 0 where there is none at all
    half_area: float  # share of the image that holds half of the evidence for the class, 0 to 1; 0 where there is none
    place: str  # the ninth of the image with most of it ("upper left", "centre", ...), or ""
    place_share: float  # how much of it lies there, 0 to 1


def summarise_map(values: FloatArray, scale: float) -> MapSummary:
    """Where the evidence (H, W) for the class lies; what is faint on the scale is called no evidence."""
    values = check_map(values).astype(np.float64)
    positive = values.clip(min=0)
    peak = float(positive.max()) / check_scale(scale)
    total = float(positive.sum())
    share_for = total / max(float(np.abs(values).sum()), np.finfo(np.float64).tiny)
    if peak < FAINT:
        return MapSummary("No positive evidence for this class.", peak, share_for, 0.0, "", 0.0)
    cumulative = np.cumsum(np.sort(positive, axis=None)[::-1])
    half_area = (int(np.searchsorted(cumulative, total / 2)) + 1) / positive.size
    place, place_share = _fullest_ninth(positive)
    where = f"the {place} holds {place_share:.0%}".replace("%", " %") if place_share >= 0.25 else "it is spread widely"
    strength = "the evidence" if peak >= _WEAK else "the faint evidence"
    area = f"{half_area:.0%}".replace("%", " %") if half_area >= 0.005 else "less than 1 %"
    sentence = f"Half of {strength} for this class fills {area} of the image; {where}."
    return MapSummary(sentence, peak, share_for, half_area, place, place_share)


def describe_region(values: FloatArray, mask: BoolArray) -> str:
    """How much of the evidence (H, W) lies in a region (H, W), how large that is, and where most of it is."""
    positive = check_map(values).astype(np.float64).clip(min=0)
    inside = np.where(mask, positive, 0)
    if not inside.any():
        return "No region: nowhere is the positive evidence above the threshold."
    place, share = _fullest_ninth(inside / inside.sum())
    held, area = (f"{share:.0%}".replace("%", " %") for share in (inside.sum() / positive.sum(), mask.mean()))
    area = area if mask.mean() >= 0.005 else "less than 1 %"
    where = f", mostly at the {place}" if share > 0.5 else ""
    return f"{held} of the positive evidence lies in {area} of the image{where}."


def percent(share: float) -> str:
    """A share in percent with one decimal. What is not all is not rounded up to all, what is not nothing not to it."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def describe_target(attribution: Attribution) -> str:
    """What is explained: a class, or one class rather than another."""
    return attribution.target + (f" rather than {attribution.against}" if attribution.against else "")


def describe_provenance(attribution: Attribution) -> str:
    """One line with everything needed to make the map again."""
    how = attribution.provenance()
    settings = "".join(f", {name} {value}" for name, value in how["parameters"].items())
    parts = [
        f"{how['method']} for {describe_target(attribution)}{settings}",
        f"layer {how['layer']}" if how["layer"] else "",
        f"against {how['baseline']}" if how["baseline"] else "",
        "" if how["seed"] is None else f"seed {how['seed']}",
        f"image {how['image_sha256'][:12]}",
        f"checkpoint {how['checkpoint'][:12]}",
    ]
    return " · ".join(part for part in parts if part)


def _fullest_ninth(positive: Float64Array) -> tuple[str, float]:
    """Name of the ninth of the image with most of it, and its share."""
    shares = [
        float(cell.sum()) for band in np.array_split(positive, 3, axis=0) for cell in np.array_split(band, 3, axis=1)
    ]
    best = int(np.argmax(shares))
    names = (
        *("upper left", "upper edge", "upper right"),
        *("left edge", "centre", "right edge"),
        *("lower left", "lower edge", "lower right"),
    )
    return names[best], shares[best] / sum(shares)
