"""Contract of every perturbation, and that a stain and its controls differ in nothing but what fills them."""

import numpy as np
import pytest

from steel_core.data.quality.clues import find_marks
from steel_core.data.strip_mill import StripMill
from steel_core.errors import UsageError
from steel_core.perturb import stencil
from steel_core.perturb.base import PERTURBATIONS
from steel_core.perturb.methods.patches import PatchPerturbation, WhiteStain

PATCHES = [name for name in PERTURBATIONS if issubclass(PERTURBATIONS[name], PatchPerturbation)]
GRID = StripMill(size=(96, 128), seed=3).render(0, "clear").pixels.astype(np.float32) / 255


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_contract(name):
    change = PERTURBATIONS[name]()
    kept = GRID.copy()
    image, mask = change.perturb(GRID, change.info.usual, 5)
    assert np.array_equal(GRID, kept)
    assert (image.dtype, mask.dtype) == (np.float32, np.bool_)
    assert image.shape == mask.shape == GRID.shape
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.array_equal(image[~mask], GRID[~mask])
    assert not np.array_equal(image, GRID)
    again = change.perturb(GRID, change.info.usual, 5)
    assert np.array_equal(image, again.image)
    assert np.array_equal(mask, again.mask)
    nothing = change.perturb(GRID, 0, 5)
    assert np.allclose(nothing.image, GRID, atol=1e-6)
    assert not nothing.mask.any()
    for wrong in (-0.01, change.info.largest * 1.01, float("nan")):
        with pytest.raises(UsageError, match="severity"):
            change.perturb(GRID, wrong, 5)
    with pytest.raises(UsageError, match="shape"):
        change.perturb(GRID, change.info.usual, 5, avoid=np.zeros((3, 3), bool))


@pytest.mark.parametrize("shape", stencil.SHAPES)
@pytest.mark.parametrize("number", [1, 3])
def test_stain_and_controls_cover_the_same_pixels(shape, number):
    avoid = np.zeros(GRID.shape, bool)
    avoid[:, :40] = True
    masks = [
        PERTURBATIONS[name](shape=shape, number=number).perturb(GRID, 0.04, 9, avoid=avoid).mask for name in PATCHES
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert not (masks[0] & avoid).any()


@pytest.mark.parametrize("shape", stencil.SHAPES)
@pytest.mark.parametrize("severity", [0.01, 0.05, 0.1])
def test_severity_is_the_share_of_the_picture(shape, severity):
    shares = [WhiteStain(shape=shape).perturb(GRID, severity, seed).mask.mean() for seed in range(12)]
    assert np.allclose(shares, severity, rtol=0.6)
    assert np.isclose(np.mean(shares), severity, rtol=0.3)


def test_another_seed_is_another_place_and_a_centre_is_kept_to():
    a, b = (WhiteStain().perturb(GRID, 0.05, seed).mask for seed in (1, 2))
    assert not np.array_equal(a, b)
    mask = WhiteStain(centre=(0.25, 0.75)).perturb(GRID, 0.02, 1).mask
    rows, columns = np.nonzero(mask)
    assert abs((rows.min() + rows.max() + 1) / 2 / 96 - 0.25) < 0.02
    assert abs((columns.min() + columns.max() + 1) / 2 / 128 - 0.75) < 0.02


def test_the_fillings_are_what_they_say():
    made = {name: PERTURBATIONS[name]().perturb(GRID, 0.1, 4) for name in PATCHES}
    mask = made["white-stain"].mask
    core = WhiteStain().place(GRID.shape, 0.1, 4).cover > 0.8
    mean = {name: change.image[core].mean() for name, change in made.items()}
    assert mean["white-stain"] > 0.8
    assert mean["dark-stain"] < 0.25
    assert abs(mean["mean-grey"] - GRID.mean()) < 0.1
    assert (made["white-stain"].image >= GRID - 1e-6).all()

    # A change of its own, no brighter than the sheet.
    scrambled = made["scrambled-stain"].image
    assert (scrambled - GRID)[mask].std() > 0.03
    assert abs((scrambled - GRID)[mask].mean()) < 0.06
    assert np.quantile(scrambled[mask], 0.9) < np.quantile(GRID, 0.995) + 0.1


def test_clean_steel_comes_from_outside_the_patch_and_the_defect():
    grid = np.full((80, 80), 0.5, np.float32)
    grid[:, :40] = 0.9  # the defect
    avoid = grid > 0.8
    image = PERTURBATIONS["clean-steel"]().perturb(grid, 0.05, 0, avoid=avoid).image
    assert np.array_equal(image, grid)  # steel of 0.5 on steel of 0.5
    donor = np.random.default_rng(0).random((80, 80)).astype(np.float32) * 0.1
    image, mask = PERTURBATIONS["clean-steel"]().perturb(GRID[:80, :80], 0.1, 0, donor=donor)
    assert image[mask].std() > 0.3 * GRID.std()


def test_a_cut_out_stain_is_pasted_as_it_was():
    picture, mask = WhiteStain().perturb(GRID, 0.06, 2)
    source = stencil.cut_out(picture, mask)
    plain = np.full(GRID.shape, 0.3, np.float32)
    pasted = WhiteStain(source=source).perturb(plain, float(mask.mean()), 8)
    assert abs(pasted.mask.mean() - mask.mean()) < 0.01
    assert pasted.image[pasted.mask].max() > 0.8
    with pytest.raises(UsageError, match="not empty"):
        stencil.cut_out(picture, np.zeros_like(mask))


def test_a_marked_box_gives_the_stain_in_it_and_not_the_steel_around_it():
    sheet = GRID * 0.6
    picture, mask = WhiteStain(centre=(0.5, 0.5)).perturb(sheet, 0.04, 2)
    cut = stencil.cut_box(picture, (20, 10, 90, 80))
    assert 0.5 * mask.sum() < (cut.cover > 0).sum() < 2 * mask.sum()
    assert cut.cover.max() == 1
    assert (cut.cover[0] < 0.5).all() and (cut.cover[-1] < 0.5).all()  # it fades out
    plain = stencil.cut_box(sheet, (5, 6, 20, 12))  # nothing bright there: what was marked is meant
    assert plain.cover.shape == (12, 20)
    for wrong in ((-1, 0, 10, 10), (0, 0, 3, 10), (120, 0, 10, 10), (0, 90, 10, 10)):
        with pytest.raises(UsageError, match="inside the picture"):
            stencil.cut_box(sheet, wrong)


def test_a_varied_stain_is_another_outline_of_the_same_kind():
    picture, mask = WhiteStain().perturb(GRID * 0.6, 0.06, 2)
    for source in (stencil.cut_out(picture, mask), stencil.draw_outline("streak", 3)):
        made = [stencil.vary_stencil(source, np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert np.array_equal(made[0].cover, made[1].cover)
        assert made[0].cover.shape != made[2].cover.shape
        for one in made:
            assert (one.grey is None) == (source.grey is None)
            assert ((one.cover == 0) | (one.cover >= stencil.EDGE)).all()
            assert 0.4 < np.count_nonzero(one.cover) / np.count_nonzero(source.cover) < 2.5
            assert one.grey is None or (
                one.grey.shape == one.cover.shape and 0 <= one.grey.min() <= one.grey.max() <= 1
            )


def test_stains_are_found_and_painted_over():
    picture, mask = WhiteStain().perturb(GRID * 0.6, 0.04, 2)
    spots = find_marks(picture)[0]
    assert (spots & mask).sum() > 0.7 * mask.sum()
    assert not find_marks(GRID * 0.6)[0].any()
    cleaned = stencil.inpaint(picture, spots)
    assert np.array_equal(cleaned[~spots], picture[~spots])
    assert abs(cleaned[spots].mean() - (GRID * 0.6).mean()) < 0.1


def test_border_and_band_replace_as_much_and_the_band_keeps_off_the_border_and_the_defect():
    avoid = np.zeros(GRID.shape, bool)
    avoid[20:30] = True
    frame = PERTURBATIONS["border"]().perturb(GRID, 0.08, 0).mask
    band = PERTURBATIONS["band"]().perturb(GRID, 0.08, 0, avoid=avoid).mask
    assert abs(frame.mean() - band.mean()) < 0.01
    assert not (band & avoid).any()
    assert not band.all(axis=1)[[0, -1]].any()


def test_the_band_goes_on_like_the_steel_at_either_side_as_the_border_does():
    rows = np.repeat(np.arange(100, dtype=np.float32)[:, None] / 100, 60, axis=1)  # grey tells the row
    avoid = np.zeros(rows.shape, bool)
    avoid[:, ::2] = True
    avoid[40:90] = False  # so that it lies across
    image, mask = PERTURBATIONS["band"]().perturb(rows, 0.08, 0, avoid=avoid)
    taken = np.flatnonzero(mask.all(axis=1))
    start, stop = taken[0], taken[-1] + 1
    assert mask.sum() == len(taken) * 60 and start >= 40 and stop <= 90
    assert np.array_equal(image[start, 0], rows[start - 1, 0]) and np.array_equal(image[stop - 1, 0], rows[stop, 0])
    frame, _ = PERTURBATIONS["border"]().perturb(rows, 0.08, 0)
    for filled in (image, frame):  # no line that was not there
        assert np.abs(np.diff(filled[:, 0])).max() < 0.03


@pytest.mark.parametrize("wrong", [{"shape": "star"}, {"number": 0}, {"brightness": 2}, {"texture": "wool"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        WhiteStain(**wrong)
