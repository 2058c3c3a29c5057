"""What a stain can be: names and bounds, quick to import for settings and command lines."""

from typing import Literal, get_args

Shape = Literal["blot", "streak", "ring", "spatter"]
"""Irregular blot; run drawn out along the rolling direction; rim left by a drying drop; a blot with drops around it."""

Texture = Literal["film", "grain", "flat"]
"""Grain shows through; a crust of its own; plain."""

SHAPES: tuple[str, ...] = get_args(Shape)
TEXTURES: tuple[str, ...] = get_args(Texture)

LARGEST_AREA = 0.25
USUAL_AREA = 0.05
"""Shares of the picture under a stain."""

MOST_STAINS = 20
