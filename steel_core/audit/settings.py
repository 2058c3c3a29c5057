"""Settings of the audits and of the cure. Quick to import: the command line makes its flags from them."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, computed_field, model_validator

from steel_core.data.augmentation import Augmentation
from steel_core.perturb.stain_options import LARGEST_AREA, MOST_STAINS, Shape, Texture
from steel_core.records import Record

AuditKind = Literal["white-stain", "edges", "properties", "discover"]

AUDITS: tuple[AuditKind, ...] = get_args(AuditKind)
Tolerated = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Excess flip rate that is put up with, as a share of the images.",
        json_schema_extra={"flag": "--max-excess-flip"},
    ),
]
Seed = Annotated[int, Field(ge=0, description="Seed of everything drawn at random.")]
Images = Annotated[int, Field(ge=0)]
Area = Annotated[float, Field(gt=0, le=LARGEST_AREA)]
Brightness = Annotated[float, Field(ge=0, le=1)]


class StainSettings(Record):
    """What the white-stain test asks."""

    published: ClassVar[str] = "stain-settings"

    family: bool = Field(
        True, description="Whether a family of stains is tested, drawn and cut from the data; else the one below."
    )
    area: Area = Field(0.05, description="The one stain: its share of the picture.")
    brightness: Brightness = Field(0.92, description="The one stain: grey of the film from 0 (black) to 1.")
    opacity: float = Field(1.0, gt=0, le=1, description="The one stain: how much it hides where it is thickest.")
    softness: float = Field(0.0, ge=0, le=1, description="The one stain: how soft its edge is.")
    shape: Shape = Field("blot", description="The one stain: its outline.")
    number: int = Field(1, ge=1, le=MOST_STAINS, description="The one stain: pieces that share its area.")
    texture: Texture = Field("film", description="The one stain: in a film the steel shows through.")
    cut_stain: str = Field(
        "", exclude=True, description="Stain cut out of a picture, as the address of a PNG; it keeps its brightness."
    )
    cut_from: str = Field("", description="The picture and the part of it that the stain was cut out of.")
    tolerated: Tolerated = 0.05
    towards: str = Field("", description="Class whose gain is tested; clear where the model knows it, else every one.")
    elsewhere: Images = Field(40, description="Images on which a stain is also put where it is no evidence.")
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _read_written(cls, values: object) -> object:
        """Leaves out what is computed; reports before December 2026 hold lists of doses, of which one decided."""
        if not isinstance(values, dict):
            return values
        old = {"family": False} if "areas" in values else {}
        return {k: value for k, value in values.items() if k not in ("stain", "areas", "brightnesses")} | old

    @computed_field
    def stain(self) -> Literal["drawn", "cut out of a picture"]:
        """Where the stains come from."""
        return "cut out of a picture" if self.cut_from else "drawn"


ONE_STAIN = ("area", "brightness", "opacity", "softness", "shape", "texture", "number")
"""Settings of a stain that is asked for by itself; any of them given, no family is tested."""


class EdgeSettings(Record):
    """What the edge test asks."""

    published: ClassVar[str] = "edge-settings"

    width: float = Field(0.08, ge=0, le=0.25, description="Width of the border, as a share of the shorter side.")
    moves: tuple[Annotated[float, Field(ge=0, le=0.4)], ...] = Field(
        (0.03, 0.06, 0.1), description="Shifts and crops that are tried, as shares of the side."
    )
    tolerated: Tolerated = 0.05
    mapped: Images = Field(60, description="Images whose evidence is measured.")
    seed: Seed = 0


class PropertySettings(Record):
    """What the property test asks."""

    published: ClassVar[str] = "property-settings"

    margin: float = Field(
        0.15, ge=0, lt=1, description="Youden's J from which a property is taken to go with the label in the data."
    )
    tolerated: Tolerated = 0.05
    seed: Seed = 0


class DiscoverSettings(Record):
    """What the search for unknown artefacts asks."""

    published: ClassVar[str] = "discover-settings"

    mapped: Images = Field(200, description="Images whose evidence is clustered.")
    most: int = Field(8, ge=2, description="Clusters of each kind at the most.")
    neighbours: int = Field(10, ge=1, description="Neighbours of each map or patch in the graph that is cut up.")
    window: float = Field(0.25, gt=0, le=1, description="Side of a patch, as a share of the picture's shorter side.")
    beside: float = Field(0.8, ge=0, le=1, description="Share of a cluster's peaks that must lie beside the defects.")
    confirmed: int = Field(4, ge=0, description="Clusters that are pasted.")
    pasted: Images = Field(150, description="Images that each cluster is pasted on, at the most.")
    exemplars: int = Field(4, ge=1, description="Exemplars of each cluster.")
    tolerated: Tolerated = 0.05
    seed: Seed = 0


class AuditSettings(Record):
    """What a whole audit asks, and of which images."""

    published: ClassVar[str] = "audit-settings"

    kinds: tuple[AuditKind, ...] = Field(AUDITS, description="The questions that are asked.")
    part: Literal["held-out", "train", "val", "test", "all"] = Field("held-out", description="Images that are taken.")
    limit: int = Field(300, ge=1, description="Number of images at the most, drawn evenly from the classes.")
    tolerated: Tolerated = 0.05
    seed: Seed = 0
    stain: StainSettings | None = Field(None, description="The white-stain test, where more than the above differs.")


class CureSettings(Record):
    """How a shortcut is cured."""

    published: ClassVar[str] = "cure-settings"

    epochs: int = Field(30, ge=1, description="Passes over the training images.")
    rate: float = Field(1e-3, gt=0, description="Highest learning rate of the one-cycle schedule.")
    pasted: float = Field(
        0.5, gt=0, le=1, description="Share of the images of every class that are learnt with marks of others."
    )
    drawn: float = Field(0.25, ge=0, le=1, description="Chance of a drawn stain besides, on every class alike.")
    penalty: float = Field(
        0.0, ge=0, description="Weight of the loss on evidence in the artefact: it doubles the time."
    )
    augmentation: Augmentation = Field(
        Augmentation(), description="How images are varied besides.", json_schema_extra={"flag": "--augment"}
    )
    seed: Seed = 0
