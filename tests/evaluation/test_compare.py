"""Comparisons against statsmodels-free closed forms, simulation, and what was planted."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from steel_core.errors import DataError
from steel_core.evaluation.compare import compare
from steel_core.evaluation.evaluation import Evaluation
from steel_core.metrics import paired

CLASSES = ("clear", "defect")


def evaluation(name, labels, sure, classes=CLASSES, groups=None):
    """An evaluation whose probability of the true class is given."""
    labels, sure = np.asarray(labels), np.asarray(sure, dtype=float)
    probs = np.where(
        np.arange(len(classes)) == labels[:, None], sure[:, None], (1 - sure[:, None]) / (len(classes) - 1)
    )
    pred = np.array(classes)[probs.argmax(axis=1)]
    n = len(labels)
    table = pd.DataFrame({
        "row": range(n), "file": [f"{i}.png" for i in range(n)], "image_sha256": [f"{i:064x}" for i in range(n)],
        "label": np.array(classes)[labels], "pred": pred, "outcome": pred, "confidence": probs.max(axis=1),
        "loss": -np.log(sure), "group": groups if groups is not None else [""] * n,
        **{f"p.{c}": probs[:, k] for k, c in enumerate(classes)},
        **{f"z.{c}": np.log(probs[:, k]) for k, c in enumerate(classes)},
    })  # fmt: skip
    return Evaluation(table, classes, "softmax", 1.0, {}, "test", name, name, name, "plates", "d")


def test_mcnemar_by_the_binomial_sum():
    right_a = np.array([True] * 9 + [False] * 2 + [True] * 30)
    right_b = np.array([False] * 9 + [True] * 2 + [True] * 30)
    result = paired.mcnemar(right_a, right_b)
    expected = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    assert (result.only_a, result.only_b) == (9, 2)
    assert result.p == pytest.approx(expected)
    assert result.p_groups == pytest.approx(expected)


def test_mcnemar_of_groups_counts_a_group_once():
    right_a, right_b = np.ones(12, bool), np.zeros(12, bool)
    result = paired.mcnemar(right_a, right_b, ["strip"] * 12)
    assert result.p < 0.001
    assert result.p_groups == 1.0


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    a, b = (evaluation(name, labels, rng.uniform(0.3, 0.99, 80)) for name in "ab")
    table = compare(a, b).estimates.set_index("figure")
    for side, each in (("a", a), ("b", b)):
        pred = each.probs.argmax(axis=1)
        assert table.loc["accuracy", side] == pytest.approx(oracle.accuracy_score(labels, pred))
        assert table.loc["macro_recall", side] == pytest.approx(oracle.balanced_accuracy_score(labels, pred))
        assert table.loc["macro_f1", side] == pytest.approx(oracle.f1_score(labels, pred, average="macro"))
        assert table.loc["auc", side] == pytest.approx(oracle.roc_auc_score(labels, each.probs[:, 1]))
    assert ((table["low"] <= table["difference"]) & (table["difference"] <= table["high"])).all()


def test_the_interval_covers_the_true_difference():
    rng, covered, runs = np.random.default_rng(1), 0, 60
    for _ in range(runs):
        labels = np.arange(150) % 2
        hard = rng.random(150) < 0.3
        sure_a = np.where(hard & (rng.random(150) < 0.6), 0.3, 0.9)  # accuracy 0.82
        sure_b = np.where(hard & (rng.random(150) < 0.3), 0.3, 0.9)  # accuracy 0.91
        row = compare(evaluation("a", labels, sure_a), evaluation("b", labels, sure_b)).estimates.iloc[0]
        covered += row["low"] <= 0.09 <= row["high"]
    assert covered / runs >= 0.86


def test_a_planted_improvement_is_found_and_noise_is_not():
    labels = np.arange(200) % 2
    worse = np.where(np.arange(200) % 5 == 0, 0.2, 0.9)
    better = compare(evaluation("old", labels, worse), evaluation("new", labels, np.full(200, 0.9)))
    assert better.verdict.startswith("new has the higher macro recall, by 0.200 over old")
    assert better.mcnemar.only_b == 40
    same = compare(evaluation("old", labels, worse), evaluation("new", labels, worse))
    assert "cannot tell" in same.verdict
    assert same.disagreements.empty
    low, high = same.estimates.loc[0, ["low", "high"]]
    assert low < 0 < high


def test_images_on_which_they_disagree():
    labels = np.array([0, 0, 1, 1, 1])
    a = evaluation("a", labels, [0.9, 0.2, 0.9, 0.9, 0.1])
    b = evaluation("b", labels, [0.9, 0.9, 0.9, 0.3, 0.1])
    result = compare(a, b).disagreements
    assert result["file"].tolist() == ["1.png", "3.png"], "the surest pair first"
    assert result.loc[0, ["label", "pred_a", "pred_b"]].tolist() == ["clear", "defect", "clear"]
    json.dumps(compare(a, b).to_json())


def test_only_images_of_both_count_and_the_order_of_classes_does_not_matter():
    labels = np.arange(40) % 2
    a = evaluation("a", labels, np.full(40, 0.9))
    b = evaluation("b", 1 - labels, np.full(40, 0.8), classes=CLASSES[::-1])
    b = dataclasses.replace(b, table=b.table.iloc[::-1].iloc[:30].reset_index(drop=True))
    result = compare(a, b)
    assert result.n == 30
    assert result.estimates.loc[0, ["a", "b"]].tolist() == [1.0, 1.0]
    assert "10 images were evaluated with a alone" in result.left_out[0]


def test_groups_widen_the_interval():
    rng = np.random.default_rng(3)
    labels = np.arange(200) % 2
    strip = np.repeat(np.arange(20), 10)
    better = rng.random(20) < 0.3
    a = np.where(better[strip], 0.2, 0.9)
    alone, grouped = (
        compare(evaluation("a", labels, a, groups=g), evaluation("b", labels, np.full(200, 0.9), groups=g)).estimates
        for g in (None, [f"s{i}" for i in strip])
    )
    assert (grouped["high"] - grouped["low"])[0] > 2 * (alone["high"] - alone["low"])[0]


def test_other_classes_and_other_images_are_refused():
    a = evaluation("a", [0, 1], [0.9, 0.9])
    with pytest.raises(DataError, match="same classes"):
        compare(a, evaluation("b", [0, 1], [0.9, 0.9], classes=("clear", "rust")))
    other = dataclasses.replace(a, table=a.table.assign(image_sha256=["x", "y"]))
    with pytest.raises(DataError, match="same images"):
        compare(a, other)
