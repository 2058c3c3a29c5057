"""The classical chain step by step: what is shown adds up to what it says, and is what the leaderboard's chain says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError
from steel_core.leaderboard.baselines import NAME, evaluate_baselines, explain_chain, fit_baseline
from steel_core.types import SteelImage

CLASSES = ("clear", "defect")


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=3, clear_share=0.4), 60, place)
    return open_dataset(place).binary()


@pytest.fixture(scope="module")
def judge(sheets):
    return fit_baseline(NAME, sheets, CLASSES)


def test_what_the_features_add_leads_from_the_mean_to_what_is_said(sheets, judge):
    befores = []
    for row in range(4):
        result = explain_chain(judge, sheets.image(row), CLASSES)
        assert sum(result.probs.values()) == pytest.approx(1)
        for name in CLASSES:
            total = result.before[name] + result.contributions[name].sum()
            assert total == pytest.approx(result.probs[name])
        befores.append(result.before["defect"])
        assert list(result.contributions.index) == list(result.features.index)
    assert np.ptp(befores) < 1e-6, "what holds before an image is looked at depends on no image"


def test_it_is_the_chain_of_the_leaderboard(sheets, judge, tmp_path):
    rows = np.flatnonzero((sheets.table["split"] == "test").to_numpy())
    said, _ = evaluate_baselines(sheets, rows, CLASSES, tmp_path, lambda *_: None)[NAME]
    mine = [explain_chain(judge, sheets.image(int(row)), CLASSES).probs["defect"] for row in rows]
    np.testing.assert_allclose(said.probs[:, 1], mine, atol=1e-5)


def test_candidates_are_numbered_and_the_largest_is_marked(judge):
    steel = np.random.default_rng(0).normal(128, 2, (64, 64))
    steel[10:20, 10:30] += 90
    steel[40:45, 40:45] += 90
    result = explain_chain(judge, SteelImage(steel.clip(0, 255).astype(np.uint8), "two.png", "0" * 64), CLASSES)
    sizes = np.bincount(result.candidates.ravel())[1:]
    assert result.features["candidates"] == (sizes > 0).sum() >= 2
    assert result.largest.sum() == sizes.max()
    assert result.largest[15, 20] and not result.largest[42, 42] and result.candidates[42, 42]
    even = explain_chain(judge, SteelImage(np.full((64, 64), 128, np.uint8), "even.png", "0" * 64), CLASSES)
    assert not even.largest.any() and even.features["candidates"] == 0


def test_without_lessons_a_sentence_says_so(sheets):
    nothing = replace(sheets, table=sheets.table.assign(split=pd.Series("test", index=sheets.table.index)))
    with pytest.raises(DataError, match="in the train split to learn from, got none"):
        fit_baseline(NAME, nothing, CLASSES)
