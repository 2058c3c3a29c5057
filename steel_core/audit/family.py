"""The family of stains that the white-stain test rests on: drawn ones, and marks cut from the images learnt from.

A model knows the stain that it has learnt, and hardly minds another: no single drawing finds them all.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from steel_core.audit.marks import Mark, cluster_marks
from steel_core.audit.settings import StainSettings
from steel_core.audit.stains import PNG, make_stain
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stain_options import LARGEST_AREA, SHAPES, TEXTURES
from steel_core.types import Grey

_DRAWN = 8
_CLUSTERS = 4
_LARGE = 0.1  # share of the picture to which marks are enlarged beside their natural size
_LEAST_MARK = 0.005
_ENOUGH = 10  # marks that the border does not cut; with so many, others are left out


@dataclass(frozen=True, eq=False)
class Dose:
    """One stain of the family; `marks`, if any, take turns, and lie as large as they were found where `natural`."""

    words: str
    settings: StainSettings
    towards: str = ""  # the class that its marks are from, and are tested for; drawn ones are tested for every class
    marks: tuple[Mark, ...] = ()
    natural: bool = False

    @property
    def bright(self) -> bool:
        return not self.marks or self.marks[0].bright

    def make_patch(self, seed: int, position: int) -> tuple[WhiteStain, float]:
        """The stain for an image, at a position among those that marks were cut from or -1, and its area.

        No image gets its own mark.
        """
        others = [mark for mark in self.marks if mark.position != position] or list(self.marks)
        if not others:
            return make_stain(self.settings), self.settings.area
        mark = others[seed % len(others)]
        area = float(np.clip(mark.area, _LEAST_MARK, LARGEST_AREA)) if self.natural else self.settings.area
        return WhiteStain(source=mark.stencil), area


def make_family(grids: Sequence[Grey], marks: Sequence[Mark], settings: StainSettings) -> list[Dose]:
    """Drawn stains for pictures as bright as these (H, W), and doses of the commonest kinds of marks of each class."""
    doses = _draw_doses(float(np.mean([grid.mean() for grid in grids])), settings)
    for label in dict.fromkeys(mark.label for mark in marks):
        mine = [mark for mark in marks if mark.label == label]
        whole = [mark for mark in mine if mark.whole]
        for cluster in cluster_marks(whole if len(whole) >= _ENOUGH else mine)[:_CLUSTERS]:
            first = cluster[0]
            size = float(np.clip(np.median([mark.area for mark in cluster]), _LEAST_MARK, LARGEST_AREA))
            for natural, area in ((True, size), (False, max(_LARGE, min(2 * size, LARGEST_AREA)))):
                kept = settings.replace(
                    family=False,
                    area=area,
                    cut_stain=PNG + base64.b64encode(first.stencil.to_png()).decode(),
                    cut_from=f"{len(cluster)} pictures of {label}",
                )
                words = f"{first.words}, {area:.0%} of the picture"
                doses.append(Dose(words, kept, label, cluster, natural))
    return doses


def _draw_doses(grey: float, settings: StainSettings) -> list[Dose]:
    """Spread evenly over shape, texture, number, area, opacity, softness and brightness (Sobol's sequence)."""
    points = qmc.Sobol(7, rng=np.random.default_rng(settings.seed)).random(_DRAWN)
    doses = []
    for shape, texture, number, area, opacity, softness, light in points:
        one = settings.replace(
            family=False,
            shape=SHAPES[int(shape * len(SHAPES))],
            texture=TEXTURES[int(texture * len(TEXTURES))],
            number=1 + int(4 * number),
            area=round(float(0.01 * 15**area), 3),
            opacity=round(0.6 + 0.4 * float(opacity), 2),
            softness=round(0.5 * float(softness), 2),
            brightness=round(grey + (1 - grey) * (0.4 + 0.6 * float(light)), 2),
        )
        doses.append(Dose(describe_stain(one), one))
    return doses


def describe_stain(one: StainSettings) -> str:
    """A drawn stain in a few words."""
    pieces = f"{one.number} pieces" if one.number > 1 else "one piece"
    edge = "soft" if one.softness > 0.25 else "sharp"
    about = f"{one.texture}, {pieces}, grey {one.brightness:.2f}"
    return f"a drawn {edge} {one.shape} ({about}), {one.area:.0%} of the picture"
