"""Intervals hold what they promise, verdicts follow from them, and the stated power is the power there is."""

import numpy as np
import pytest

from steel_core.audit.statistics import (
    AGAINST,
    FOR,
    NOTHING,
    TOO_FEW,
    choose_worst,
    combine_verdicts,
    decide_verdicts,
    estimate_difference,
    estimate_effect,
    find_detectable,
    is_harmless,
    split_halves,
)

SIZES = {"alone": [1] * 120, "equal groups": [5] * 60, "one holds half": [75] + [1] * 75}


def draw(rng, sizes, change, controls, together):
    """Flips (N,) of the change and of each control; whole groups flip together, or each image by itself."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    luck = (
        rng.random((len(sizes), 1 + len(controls)))[groups]
        if together
        else rng.random((len(groups), 1 + len(controls)))
    )
    turned = luck < [change, *controls]
    return turned[:, 0], {f"c{k}": turned[:, 1 + k] for k in range(len(controls))}, groups


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("change", "controls"), [(0.3, [0.1] * 5), (0.4, [0.2, 0.18, 0.05, 0.05, 0.05]), (0.3, [0.1])])
def test_the_interval_covers_the_truth(sizes, together, change, controls):
    """Of 200 runs 182 to 199 (91 to 99.5 %): benchmarks.audit coverage makes 1,000 of each."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(200):
        flips, others, groups = draw(rng, SIZES[sizes], change, controls, together)
        low, high = estimate_effect(flips, others, groups).interval
        held += low <= change - max(controls) <= high
    assert 182 <= held <= 199


def test_being_the_strongest_of_five_is_not_taken_for_strength():
    rng, excesses, naive = np.random.default_rng(1), [], []
    for _ in range(200):
        flips, others, groups = draw(rng, SIZES["alone"], 0.3, [0.1] * 5, True)
        effect = estimate_effect(flips, others, groups)
        excesses.append(effect.excess)
        naive.append(effect.flip_rate - max(effect.controls.values()))
        assert effect.excess == pytest.approx(effect.flip_rate - effect.control_flip_rate)
    assert abs(np.mean(excesses) - 0.2) < 0.015 < 0.2 - np.mean(naive)


def test_an_excess_that_is_tolerated_is_hardly_ever_called_a_shortcut_nor_one_above_harmless():
    rng, found, cleared = np.random.default_rng(2), 0, 0
    for _ in range(300):
        effect = estimate_effect(*draw(rng, SIZES["alone"], 0.15, [0.1, 0.1, 0.1], True))
        (verdict,), _ = decide_verdicts([effect], 0.05)
        found += verdict == FOR
        cleared += verdict == AGAINST
    assert found <= 15 and cleared <= 18  # 2.5 % are 7.5


def test_a_piece_of_steel_counts_once_however_many_pictures_show_it():
    groups = np.repeat(np.arange(41), [60] + [1] * 40)
    flips = (groups == 0).astype(float)
    effect = estimate_effect(flips, {"grey": np.zeros(100)}, groups)
    assert (effect.n, effect.groups) == (100, 41)
    assert effect.flip_rate == pytest.approx(1 / 41)


def test_a_sample_without_any_flip_still_has_an_interval():
    (low, high), p = estimate_difference(np.zeros(100), np.arange(100))
    assert low < 0 < high < 0.05
    assert p > 0.3


def effect(flips, control, groups=None, tolerated=0.05):
    flips, control = np.asarray(flips, float), np.asarray(control, float)
    return estimate_effect(
        flips, {"grey": control}, np.arange(len(flips)) if groups is None else groups, tolerated=tolerated
    )


def decide(effect, tolerated=0.05):
    (verdict,), _ = decide_verdicts([effect], tolerated)
    return verdict


def test_one_verdict_of_many():
    assert combine_verdicts([AGAINST, FOR, TOO_FEW]) == FOR
    assert combine_verdicts([AGAINST, TOO_FEW]) == TOO_FEW
    assert combine_verdicts([AGAINST, AGAINST]) == AGAINST
    assert combine_verdicts([]) == TOO_FEW
    # What could not be asked stands in nobody's way, and is no answer by itself.
    assert combine_verdicts([AGAINST, NOTHING]) == AGAINST
    assert combine_verdicts([NOTHING, TOO_FEW]) == TOO_FEW
    assert combine_verdicts([NOTHING, NOTHING]) == NOTHING


def test_only_the_excess_over_the_strongest_control_counts():
    flips = np.r_[np.ones(60), np.zeros(40)]
    strongest = estimate_effect(flips, {"grey": np.zeros(100), "dark": flips}, np.arange(100))
    assert strongest.control == "dark"
    assert strongest.excess == pytest.approx(0, abs=0.01)
    assert decide(strongest) != FOR
    assert estimate_effect(flips, {"grey": np.zeros(100)}, np.arange(100)).excess == pytest.approx(0.6)


def test_the_verdict_follows_from_the_interval():
    many, few = np.r_[np.ones(60), np.zeros(40)], np.r_[np.ones(9), np.zeros(6)]
    assert decide(effect(many, np.zeros(100))) == FOR
    assert decide(effect(np.zeros(100), np.zeros(100))) == AGAINST
    assert decide(effect(few, np.zeros(15))) == TOO_FEW
    assert decide_verdicts([effect(few, np.zeros(15))], 0.05, least=10)[0] == [FOR]
    assert decide(effect([], [])) == TOO_FEW
    assert decide_verdicts([], 0.05) == ([], [])
    # Beyond chance, but within what is tolerated; and above what is tolerated, but not beyond chance.
    assert decide(effect(np.r_[np.ones(40), np.zeros(1960)], np.zeros(2000))) == AGAINST
    assert decide(effect(np.r_[np.ones(8), np.zeros(92)], np.zeros(100))) == TOO_FEW
    # Looking at many things is paid for.
    weak = effect(np.r_[np.ones(14), np.zeros(86)], np.zeros(100))
    assert decide(weak) == FOR
    assert decide_verdicts([weak] + [effect(np.zeros(100), np.zeros(100))] * 30, 0.05)[0][0] != FOR


def test_a_family_is_searched_on_one_half_and_harmless_only_where_every_dose_is():
    groups = np.repeat(np.arange(50), 3)
    half = split_halves(groups)
    assert half.sum() == 75 and not set(groups[half]) & set(groups[~half])
    assert (split_halves(groups, seed=1) != half).any()
    strong, weak, none = (effect(np.r_[np.ones(k), np.zeros(100 - k)], np.zeros(100)) for k in (60, 20, 0))
    assert choose_worst([none, weak, strong]) == [2, 1]
    assert choose_worst([strong] * 9) == [0, 1, 2]
    assert is_harmless([none, none], 0.05)
    assert not is_harmless([none, weak], 0.05)
    assert not is_harmless([], 0.05)
    assert not is_harmless([effect([0] * 10, [0] * 10)], 0.5)


@pytest.mark.parametrize(("n", "controls"), [(40, [0.0]), (145, [0.0]), (100, [0.2, 0.1, 0.1])])
def test_the_stated_effect_is_found_four_times_in_five(n, controls):
    rng = np.random.default_rng(n)
    told = np.mean(
        [find_detectable((rng.random((n, len(controls))) < controls).astype(float), 0.05, seed) for seed in range(5)]
    )
    found = sum(
        decide(estimate_effect(*draw(rng, [1] * n, told + max(controls), controls, True))) == FOR for _ in range(150)
    )
    assert 0.65 <= found / 150 <= 0.93
    assert find_detectable(np.zeros((10, 1)), 0.05) == find_detectable(np.full((100, 1), 0.98), 0.05) == 1.0
