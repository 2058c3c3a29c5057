"""The classical chain step by step: what is shown adds up to what it says, and is what the leaderboard's chain says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, make
from steel_core.errors import DataError
from steel_core.leaderboard.baselines import judge_by_baselines
from steel_core.leaderboard.classical_chain import NAME, looked_into, taught_chain
from steel_core.types import SteelImage

CLASSES = ("clear", "defect")


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "sheets"
    make(StripMill(size=(64, 64), seed=3, clear_share=0.4), 60, place)
    return open_dataset(place).binary()


@pytest.fixture(scope="module")
def judge(sheets):
    return taught_chain(sheets, CLASSES)


def test_what_the_features_add_leads_from_the_mean_to_what_is_said(sheets, judge):
    befores = []
    for row in range(4):
        found = looked_into(judge, sheets.image(row), CLASSES)
        assert sum(found.probs.values()) == pytest.approx(1)
        for name in CLASSES:
            total = found.before[name] + found.contributions[name].sum()
            assert total == pytest.approx(found.probs[name])
        befores.append(found.before["defect"])
        assert list(found.contributions.index) == list(found.features.index)
    assert np.ptp(befores) < 1e-6, "what holds before an image is looked at depends on no image"


def test_it_is_the_chain_of_the_leaderboard(sheets, judge, tmp_path):
    rows = np.flatnonzero((sheets.table["split"] == "test").to_numpy())
    said, _ = judge_by_baselines(sheets, rows, CLASSES, tmp_path, lambda *_: None)[NAME]
    mine = [looked_into(judge, sheets.image(int(row)), CLASSES).probs["defect"] for row in rows]
    np.testing.assert_allclose(said.probs[:, 1], mine, atol=1e-5)


def test_candidates_are_numbered_and_the_largest_is_marked(judge):
    steel = np.random.default_rng(0).normal(128, 2, (64, 64))
    steel[10:20, 10:30] += 90
    steel[40:45, 40:45] += 90
    found = looked_into(judge, SteelImage(steel.clip(0, 255).astype(np.uint8), "two.png", "0" * 64), CLASSES)
    sizes = np.bincount(found.candidates.ravel())[1:]
    assert found.features["candidates"] == (sizes > 0).sum() >= 2
    assert found.largest.sum() == sizes.max()
    assert found.largest[15, 20] and not found.largest[42, 42] and found.candidates[42, 42]
    even = looked_into(judge, SteelImage(np.full((64, 64), 128, np.uint8), "even.png", "0" * 64), CLASSES)
    assert not even.largest.any() and even.features["candidates"] == 0


def test_without_lessons_a_sentence_says_so(sheets):
    nothing = replace(sheets, table=sheets.table.assign(split=pd.Series("test", index=sheets.table.index)))
    with pytest.raises(DataError, match="in the train split to learn from, got none"):
        taught_chain(nothing, CLASSES)
