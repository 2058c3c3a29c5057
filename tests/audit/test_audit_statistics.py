"""Intervals hold what they promise, verdicts follow from them, and the stated power is the power there is."""

import numpy as np
import pytest

from steel_core.audit.statistics import (
    AGAINST,
    FOR,
    TOO_FEW,
    bootstrap_paired_interval,
    combine_verdicts,
    compute_detectable,
    decide_verdicts,
    estimate_effect,
)


def pairs(rng, n, both, only_change, only_control):
    """Flips of change and control (N,) with given joint probabilities."""
    cell = rng.choice(4, size=n, p=[both, only_change, only_control, 1 - both - only_change - only_control])
    return np.isin(cell, [0, 1]).astype(float), np.isin(cell, [0, 2]).astype(float)


@pytest.mark.parametrize(
    ("n", "only_change", "only_control"), [(150, 0.17, 0.02), (150, 0.06, 0.04), (300, 0.3, 0.05), (80, 0.2, 0.1)]
)
def test_the_interval_covers_the_truth_in_93_to_97_percent_of_1000_runs(n, only_change, only_control):
    rng = np.random.default_rng(n)
    groups, held = np.arange(n), 0
    weights = None
    from steel_core.audit.statistics import _draw_weights

    weights = _draw_weights(groups, 1)
    for _ in range(1000):
        flips, control = pairs(rng, n, 0.1, only_change, only_control)
        (low, high), _ = bootstrap_paired_interval(flips - control, groups, weights)
        held += low <= only_change - only_control <= high
    assert 930 <= held <= 970


def test_the_interval_widens_where_near_duplicates_tell_the_same():
    rng = np.random.default_rng(3)
    change = np.repeat(rng.choice([0.0, 1.0], 40, p=[0.8, 0.2]), 5)
    alone, _ = bootstrap_paired_interval(change, np.arange(200))
    together, _ = bootstrap_paired_interval(change, np.repeat(np.arange(40), 5))
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])


def test_a_sample_without_any_flip_still_has_an_interval():
    (low, high), p = bootstrap_paired_interval(np.zeros(100), np.arange(100))
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


def test_only_the_excess_over_the_strongest_control_counts():
    flips = np.r_[np.ones(60), np.zeros(40)]
    strongest = estimate_effect(flips, {"grey": np.zeros(100), "dark": flips}, np.arange(100))
    assert strongest.control == "dark"
    assert strongest.excess == 0
    assert decide(strongest) != FOR
    assert estimate_effect(flips, {"grey": np.zeros(100)}, np.arange(100)).excess == 0.6


def test_the_verdict_follows_from_the_interval():
    many, few = np.r_[np.ones(60), np.zeros(40)], np.r_[np.ones(9), np.zeros(6)]
    assert decide(effect(many, np.zeros(100))) == FOR
    assert decide(effect(np.zeros(100), np.zeros(100))) == AGAINST
    assert decide(effect(few, np.zeros(15))) == TOO_FEW
    assert decide(effect([], [])) == TOO_FEW
    assert decide_verdicts([], 0.05) == ([], [])
    # Beyond chance, but within what is tolerated.
    some = np.r_[np.ones(40), np.zeros(1960)]
    assert decide(effect(some, np.zeros(2000))) == AGAINST
    # Looking at many things is paid for.
    weak = effect(np.r_[np.ones(8), np.zeros(92)], np.r_[np.zeros(8), np.ones(1), np.zeros(91)])
    assert decide(weak) == FOR
    assert decide_verdicts([weak] + [effect(np.zeros(100), np.zeros(100))] * 30, 0.05)[0][0] != FOR


def test_false_alarms_stay_below_5_percent():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        flips, control = pairs(rng, 120, 0.1, 0.1, 0.1)  # a patch of any kind turns a fifth
        alarms += decide(effect(flips, control)) == FOR
    assert alarms <= 10


@pytest.mark.parametrize("n", [40, 145])
def test_the_stated_effect_is_found_four_times_in_five(n):
    truth = compute_detectable(n, 0.05)
    rng = np.random.default_rng(n)
    count = sum(decide(effect((rng.random(n) < truth).astype(float), np.zeros(n))) == FOR for _ in range(150))
    assert 0.7 <= count / 150 <= 0.95
