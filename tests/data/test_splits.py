"""Splits keep the classes' shares and never part a group."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.splits import make_folds, split_dataset
from steel_core.errors import DataError, UsageError


def index(labels, groups=None):
    table = pd.DataFrame({"path": [f"{i:04}.png" for i in range(len(labels))], "labels": labels})
    table["group"] = groups if groups is not None else ""
    return DatasetIndex.build(Path(), unknown_spec("made"), table)


def shares(made, label):
    placed = made.table["split"][made.table["labels"] == label]
    return [(placed == name).mean() for name in ("train", "val", "test")]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_no_group_straddles_and_every_class_is_everywhere(seed, largest):
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for label in ("crazing", "patches"):
        for number in range(int(rng.integers(3, 20))):
            size = int(rng.integers(1, largest + 1))
            labels += [label] * size
            groups += [f"{label}{number}"] * size
    made = split_dataset(index(labels, groups), seed=seed)
    table = made.table
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert (table.groupby("labels")["split"].nunique() == 3).all()
    assert made.problems == ()


def test_shares_of_single_images_are_exact():
    made = split_dataset(index(["a"] * 200 + ["b"] * 100))
    assert shares(made, "a") == pytest.approx([0.7, 0.15, 0.15])
    assert shares(made, "b") == pytest.approx([0.7, 0.15, 0.15])


def test_shares_hold_within_a_small_group_beside_large_ones():
    groups = ["big"] * 40 + [f"g{i // 4}" for i in range(160)]
    made = split_dataset(index(["a"] * 200, groups))
    assert shares(made, "a") == pytest.approx([0.7, 0.15, 0.15], abs=0.021)  # one group of 4


def test_three_large_groups_go_to_three_splits():
    made = split_dataset(index(["a"] * 150, [f"g{i // 50}" for i in range(150)]))
    assert sorted(made.table["split"].value_counts()) == [50, 50, 50]


def test_a_share_of_zero_leaves_the_split_empty():
    made = split_dataset(index(["a"] * 10, None), (0.8, 0.2, 0))
    assert made.table["split"].value_counts().to_dict() == {"train": 8, "val": 2}


def test_the_seed_decides():
    made = index(["a"] * 60 + ["b"] * 60)
    assert split_dataset(made, seed=1).table["split"].tolist() == split_dataset(made, seed=1).table["split"].tolist()
    assert split_dataset(made, seed=1).table["split"].tolist() != split_dataset(made, seed=2).table["split"].tolist()


def test_unlabelled_and_multi_labelled_samples_are_split_too():
    made = split_dataset(index(["a"] * 20 + ["a|b"] * 20 + [""] * 20 + ["b"] * 20))
    assert shares(made, "") == pytest.approx([0.7, 0.15, 0.15], abs=0.051)
    assert shares(made, "a|b")[0] == pytest.approx(0.7, abs=0.11)


def test_too_few_groups_is_a_sentence():
    few = index(["a"] * 30 + ["pitted surface"] * 10, [str(i) for i in range(30)] + ["x"] * 5 + ["y"] * 5)
    with pytest.raises(DataError, match=r"'pitted surface': expected at least 3 groups .* found 2"):
        split_dataset(few)
    assert (split_dataset(few, (0.8, 0.2, 0)).table["split"] != "").all()
    with pytest.raises(DataError, match="5 folds"):
        make_folds(few)


@pytest.mark.parametrize("wrong", [(0.7, 0.15, 0.16), (1.2, -0.1, -0.1), (0.5, 0.5), (float("nan"), 0, 1)])
def test_wrong_shares_are_refused(wrong):
    with pytest.raises(UsageError, match="sum to 1"):
        split_dataset(index(["a"] * 9), wrong)


def test_folds_part_every_sample_once_and_no_group():
    rng = np.random.default_rng(0)
    groups = [f"{label}{rng.integers(0, 15)}" for label in "ab" for _ in range(90)]
    made = index(["a"] * 90 + ["b"] * 90, groups)
    parts = make_folds(made, k=5, seed=3)
    assert len(parts) == 5
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(180))
    for train, test in parts:
        assert sorted(np.concatenate([train, test])) == list(range(180))
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert set(made.labels_encoded()[test]) == {0, 1}
    with pytest.raises(UsageError, match="at least 2"):
        make_folds(made, k=1)


def test_a_split_that_parts_a_group_is_refused():
    made = index(["a"] * 3, ["strip 1", "strip 1", ""])
    with pytest.raises(DataError, match="'strip 1' would lie in more than one split"):
        made.with_splits(["train", "test", "val"])
    assert made.with_splits(["train", "", "val"]).table["split"].tolist() == ["train", "", "val"]
