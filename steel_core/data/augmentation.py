"""How strongly training images are varied: settings, quick to import. `steel_core.data.augment` does it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from steel_core.records import Flag, Number, Record, Share


class Augmentation(Record):
    """How strongly training images are varied; every value is a largest deviation unless it says otherwise."""

    published: ClassVar[str] = "augmentation"

    flip: Flag = Field(
        True, title="Mirrored", description="Mirrored left-right and up-down, each with probability one half."
    )
    turn: Flag = Field(
        True,
        title="Turned by 90°, if square",
        description="Square images are turned by 90 degrees with probability one half; strips never are.",
    )
    degrees: Number = Field(
        8.0, ge=0, title="Turned by up to, degrees", description="Rotation.", json_schema_extra={"most": 45.0}
    )
    scale: Number = Field(
        0.15, ge=0, le=0.9, title="Zoomed by up to", description="Share of the size.", json_schema_extra={"most": 0.5}
    )
    shift: Number = Field(
        0.08, ge=0, title="Moved by up to", description="Share of the side.", json_schema_extra={"most": 0.5}
    )
    brightness: Number = Field(
        0.3,
        ge=0,
        title="Brightness",
        description="In standard deviations of the images' grey.",
        json_schema_extra={"most": 2.0},
    )
    contrast: Number = Field(
        0.3,
        ge=0,
        title="Contrast",
        description="Power of e: 0.3 is 0.74 to 1.35 times.",
        json_schema_extra={"most": 1.5},
    )
    noise: Number = Field(
        0.15,
        ge=0,
        title="Noise",
        description="In standard deviations of the images' grey; each image draws its own up to this one.",
        json_schema_extra={"most": 1.0},
    )
    blur: Share = Field(0.0, title="Blur", description="Share that a blurred copy replaces (Gaussian, 1.5 pixels).")
    cut_out: Share = Field(
        0.0,
        title="Cut out",
        description="Sides of a grey rectangle, as shares; a covered defect leaves a wrong label (DeVries and Taylor, "
        "arXiv:1708.04552).",
        json_schema_extra={"most": 0.9},
    )
    patches: Share = Field(
        0.0,
        title="Patches around rare defects",
        description="How often an image of a rare class is replaced by the 64 x 64 pixels around its defect, enlarged; "
        "needs boxes or masks.",
    )

    def scaled(self, strength: float) -> Augmentation:
        """All deviations times `strength`; flips, turns and patches stay."""
        kept = ("flip", "turn", "patches")
        return self.replace(
            **{name: getattr(self, name) * strength for name in type(self).model_fields if name not in kept}
        )
