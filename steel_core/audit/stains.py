"""The stains of an audit and their controls: drawn or cut out, in one outline at one place."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from steel_core.audit.settings import StainSettings
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.methods.patches import PatchPerturbation, WhiteStain
from steel_core.perturb.stencil import Stencil, cut_box
from steel_core.types import SteelImage

CONTROLS = ("clean-steel", "mean-grey", "dark-stain", "scrambled-stain")
"""Patches that a stain is compared with, beside steel from another clear sheet where there is one."""
OPPOSITE = "white-stain"  # takes the place of the dark one beside a dark mark
DONOR = "other-clear-steel"

PNG = "data:image/png;base64,"


def make_stain(settings: StainSettings, centre: tuple[float, float] | None = None) -> WhiteStain:
    """The one stain that these settings describe."""
    return WhiteStain(
        settings.shape,
        settings.number,
        centre,
        read_stencil(settings.cut_stain),
        settings.opacity,
        settings.softness,
        settings.brightness,
        settings.texture,
    )


def make_control(name: str, stain: WhiteStain) -> PatchPerturbation:
    """The control of that name with the outline of a stain."""
    kind = PERTURBATIONS[name]
    shared: dict[str, Any] = {
        part: getattr(stain, part) for part in ("shape", "number", "centre", "source", "opacity", "softness")
    }
    if name == OPPOSITE:
        shared["source"] = stain.source and Stencil(stain.source.cover)
    elif issubclass(kind, WhiteStain):
        shared |= {"brightness": stain.brightness, "texture": stain.texture}
    control = kind(**shared)
    assert isinstance(control, PatchPerturbation)
    return control


def cut_stain(image: SteelImage, box: tuple[int, int, int, int], settings: StainSettings) -> StainSettings:
    """The same test with the stain that a box (left column, top row, width, height in pixels) marks in an image.

    Raises:
        UsageError: the box is too small or does not lie inside the image.
    """
    return settings.replace(
        family=False,
        cut_stain=PNG + base64.b64encode(cut_box(image.grey(), box).to_png()).decode(),
        cut_from=name_cut(image.name, image.sha256, box),
    )


def name_cut(name: str, sha256: str, box: Sequence[int]) -> str:
    """What a report says of where a stain was cut out: the image, its hash, and the box in pixels."""
    return f"{name} ({sha256[:16]}), box {','.join(map(str, box))}"


@lru_cache(maxsize=8)
def read_stencil(cut_stain: str) -> Stencil | None:
    """The stain of `StainSettings.cut_stain`; None for drawn ones. Do not change it in place."""
    return Stencil.from_png(base64.b64decode(cut_stain.removeprefix(PNG))) if cut_stain else None


def derive_image_seed(seed: int, sha256: str) -> int:
    """One for each image, the same whatever other images there are."""
    return (seed * 1_000_003 + int(sha256[:12] or "0", 16)) % 2**31
