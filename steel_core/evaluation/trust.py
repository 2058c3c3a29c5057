"""How far one map can be trusted, against what was measured for its method."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field, computed_field

from steel_core.evaluation.map_quality import QUICK, PickedImage, explain_images, forward_passes
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.quality.base import METRICS
from steel_core.explain.quality.randomisation import explains_model
from steel_core.explain.regions import region_mask
from steel_core.inference.predictor import Predictor, map_evidence
from steel_core.models.card import QualityTable
from steel_core.records import Record
from steel_core.types import Attribution, SteelImage


class Trust(Record):
    """How far one map can be trusted."""

    faithfulness: float = Field(
        description="ROAD of this map: what the probability loses when the strongest pixels go, against the weakest."
    )
    percentile: float | None = Field(description="Share of the stored maps of this method that are less faithful.")
    beats_random: float | None = Field(description="Share of the stored random maps that are less faithful.")
    change: float | None = Field(
        description="Of the map when faint noise is added (L2, relative); none where the prediction did not stand, or "
        "where another map would take too long."
    )
    area: float | None = Field(description="Share of the image inside the region; none without a rule for regions.")
    inside: float | None = Field(description="Share of the positive evidence inside it.")
    explains_model: bool | None = Field(
        description="Whether maps of this method change when the model forgets; none where that is open."
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lift(self) -> float | None:
        """How much denser the evidence is inside the region than over the whole image."""
        return self.inside / self.area if self.area and self.inside is not None else None


def measure_trust(predictor: Predictor, image: SteelImage, attribution: Attribution) -> Trust:
    """How far one map can be trusted, against what the card stores for its method, by some ten forward passes."""
    info = EXPLAINERS[attribution.method].info
    grid, _ = predictor.card.preprocessing.to_grid(image)
    subject = PickedImage(0, image.name, grid, predictor.classes.index(attribution.target), None, "")
    layer = {"layer": attribution.layer} if attribution.layer else {}
    case = explain_images(
        predictor,
        [subject],
        EXPLAINERS[attribution.method](**attribution.parameters, **layer),
        attribution.seed or 0,
        attribution,
    )
    quick = forward_passes(info) <= QUICK
    road = float(METRICS["road"].measure(case)[0])
    change = float(METRICS["noise-change"].measure(case)[0]) if quick else float("nan")
    stored = _stored_reference(predictor.card.quality)
    quantiles = stored.quantiles if stored else {}
    likeness = stored.methods.get(attribution.method, {}).get("randomised-model") if stored else None
    rule = predictor.card.regions.get(attribution.method)
    area = inside = None
    if rule:
        shown = map_evidence(attribution)
        mask = region_mask(shown, rule)
        positive = np.maximum(shown, 0)
        area = float(mask.mean())
        inside = float(positive[mask].sum() / positive.sum()) if positive.any() else 0.0
    return Trust(
        faithfulness=road,
        percentile=_share_below(quantiles.get(attribution.method, {}).get("road"), road),
        beats_random=_share_below(quantiles.get("random", {}).get("road"), road),
        change=None if np.isnan(change) else change,
        area=area,
        inside=inside,
        explains_model=explains_model(likeness.low, likeness.high) if likeness else None,
    )


def _stored_reference(quality: Mapping[str, QualityTable]) -> QualityTable | None:
    """What `measure_trust` compares with: figures on masks before others, on more images before fewer."""
    return max(quality.values(), key=lambda one: ("masks" in one.evidence, one.images), default=None)


def _share_below(quantiles: Sequence[float] | None, value: float) -> float | None:
    """Share of a stored distribution that lies below a value, by its quantiles at equal steps."""
    if not quantiles:
        return None
    return float(np.searchsorted(quantiles, value) / len(quantiles))
