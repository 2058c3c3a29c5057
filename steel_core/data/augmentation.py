"""How strongly training images are varied: settings, quick to import. `steel_core.data.augment` does it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from steel_core.records import Flag, Number, Record, Share


def _dial(default: float, title: str, most: float, **more: Any) -> Any:
    """A field of which a form offers 0 to `most`, where values beyond make no sense."""
    return Field(default, ge=0, title=title, json_schema_extra={"most": most}, **more)


class Augmentation(Record):
    """How strongly training images are varied; every value is a largest deviation unless it says otherwise."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    published: ClassVar[str] = "augmentation"

    flip: Flag = Field(True, title="Mirrored")
    """Mirrored left-right and up-down, each with probability one half."""
    turn: Flag = Field(True, title="Turned by 90°, if square")
    """Square images are turned by 90 degrees with probability one half; strips never are."""
    degrees: Number = _dial(8.0, "Turned by up to, degrees", most=45.0)
    """Rotation."""
    scale: Number = _dial(0.15, "Zoomed by up to", most=0.5, le=0.9)
    """Share of the size."""
    shift: Number = _dial(0.08, "Moved by up to", most=0.5)
    """Share of the side."""
    brightness: Number = _dial(0.3, "Brightness", most=2.0)
    """In standard deviations of the images' grey."""
    contrast: Number = _dial(0.3, "Contrast", most=1.5)
    """Power of e: 0.3 is 0.74 to 1.35 times."""
    noise: Number = _dial(0.15, "Noise", most=1.0)
    """In standard deviations of the images' grey; each image draws its own up to this one."""
    blur: Share = Field(0.0, title="Blur")
    """Share that a blurred copy replaces (Gaussian, 1.5 pixels)."""
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
