"""Marks are found on uneven steel, cut with their own softness, and look the same on another sheet."""

import cv2
import numpy as np
import pytest

from steel_core.audit.family import make_family
from steel_core.audit.marks import cluster_marks, cut_marks
from steel_core.audit.settings import StainSettings
from steel_core.perturb.methods.patches import WhiteStain

SIDE = 128


def steel(seed, level=0.45):
    """Grain on light that falls off by a third from left to right."""
    grain = np.random.default_rng(seed).normal(0, 0.02, (SIDE, SIDE))
    return np.clip(level * np.linspace(1.2, 0.8, SIDE) + grain, 0, 1).astype(np.float32)


def blob(grid, centre, radius, soft, level):
    """A disc of some grey, blurred by `soft` pixels; and how much it covers."""
    cover = cv2.circle(np.zeros_like(grid), centre, radius, 1.0, -1)
    cover = cv2.GaussianBlur(cover, (0, 0), soft) if soft else cover
    return grid + cover * (level - grid), cover


@pytest.mark.parametrize(("level", "soft"), [(0.9, 0.0), (0.9, 5.0), (0.75, 3.0), (0.08, 2.0)])
def test_a_mark_is_cut_as_it_lies_and_can_be_put_on_another_sheet(level, soft):
    picture, cover = blob(steel(1), (50, 60), 20, soft, level)
    (mark, *others) = cut_marks([picture], [np.zeros((SIDE, SIDE), bool)], [("clear",)])
    assert not others and mark.bright == (level > 0.5) and mark.position == 0
    assert mark.area == pytest.approx(float((cover > 0.06).mean()), rel=0.35)
    assert 0.4 < mark.contrast / (level - 0.45) < 1.2
    other = steel(2, 0.4)
    stain = WhiteStain(source=mark.stencil, centre=(0.5, 0.5))
    pasted = stain.perturb(other, mark.area, 0).image
    truth, _ = blob(other, (64, 64), 20, soft, level)
    shift = cv2.matchTemplate(pasted, truth[16:-16, 16:-16], cv2.TM_CCOEFF_NORMED)
    assert shift.max() > 0.9


def test_softness_is_that_of_the_mark():
    soft, sharp = (
        cut_marks([blob(steel(1), (60, 60), 22, blur, 0.9)[0]], [np.zeros((SIDE, SIDE), bool)], [("clear",)])[0]
        for blur in (7.0, 0.0)
    )
    assert soft.softness > sharp.softness + 0.1
    assert "soft" in soft.words and "sharp" in sharp.words


def test_a_mark_that_may_be_the_defect_is_left():
    picture, cover = blob(steel(1), (50, 60), 14, 0, 0.9)
    assert not cut_marks([picture], [cover > 0], [("scratches",)])  # it is the defect
    assert not cut_marks([picture], [None], [("scratches",)])  # nothing tells
    assert not cut_marks([picture], [np.zeros((SIDE, SIDE), bool)], [()])  # no label
    elsewhere = np.zeros((SIDE, SIDE), bool)
    elsewhere[:10, :10] = True
    assert len(cut_marks([picture], [elsewhere], [("scratches",)])) == 1


def test_clean_uneven_steel_has_hardly_any_marks():
    clean = [np.zeros((SIDE, SIDE), bool)] * 30
    assert len(cut_marks([steel(seed) for seed in range(30)], clean, [("clear",)] * 30)) <= 1


def mixed(n=40):
    """Sheets with large soft bright marks, and with small sharp dark ones."""
    pictures = []
    for i in range(n):
        rng = np.random.default_rng([i, 3])
        at = tuple(int(k) for k in rng.integers(35, 90, 2))
        pictures.append(blob(steel(i), at, *((24, 5.0, 0.9) if i % 2 else (9, 0.0, 0.1)))[0])
    return pictures


def test_marks_that_are_alike_are_one_cluster():
    marks = cut_marks(mixed(), [np.zeros((SIDE, SIDE), bool)] * 40, [("clear",)] * 40)
    clusters = cluster_marks(marks, 2)
    assert len(clusters) == 2 and all(20 <= len(cluster) <= 25 for cluster in clusters)
    assert all(len({mark.bright for mark in cluster}) == 1 for cluster in clusters)
    assert cluster_marks(()) == ()


def test_the_family_holds_drawn_stains_and_marks_and_no_sheet_gets_its_own():
    pictures = mixed()
    marks = cut_marks(pictures, [np.zeros((SIDE, SIDE), bool)] * 40, [("clear",)] * 40)
    family = make_family(pictures, marks, StainSettings())
    assert {dose.towards for dose in family} == {"", "clear"}
    assert {dose.bright for dose in family if dose.marks} == {True, False}
    areas = [dose.settings.area for dose in family if not dose.marks]
    assert min(areas) < 0.03 and max(areas) > 0.08 and len(areas) == 8
    assert len({dose.settings.shape for dose in family if not dose.marks}) >= 3
    cut = next(dose for dose in family if dose.marks)
    for seed in range(20):
        for mark in cut.marks[:3]:
            stain, area = cut.make_patch(seed, mark.position)
            assert stain.source is not mark.stencil
            assert 0.005 <= area <= 0.25
    assert [dose.words for dose in make_family(pictures, (), StainSettings())] == [
        dose.words for dose in family if not dose.marks
    ]
